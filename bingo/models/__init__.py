"""Networks: by name, from files of every kind, with heads of any depth."""

from bingo.models.alive import check_alive
from bingo.models.architectures import build_classifier, check_name
from bingo.models.arithmetic import autocast
from bingo.models.encoder import Encoder, save_encoder, seeded_encoder, state_hash
from bingo.models.engine import compiled_or_not, frozen_engine
from bingo.models.load import load_encoder

__all__ = [
    "Encoder",
    "autocast",
    "build_classifier",
    "check_alive",
    "check_name",
    "compiled_or_not",
    "frozen_engine",
    "load_encoder",
    "save_encoder",
    "seeded_encoder",
    "state_hash",
]
