"""The `export` stage: backbone and classifier in the formats asked for, a model card, and hashes of every file."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bingo.config_evaluation import ExportConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.evaluate.input import input_of
from bingo.export import detectron, hub, onnx_file, plain
from bingo.export.card import FIRST, MARK, Facts, Use, card
from bingo.export.classifier import Classifier, classifier_of
from bingo.export.network import USUAL_SIZE, Network, need
from bingo.export.training import figures_of, training_of
from bingo.files import atomic_write, open_file, sweep_temporaries, write_json
from bingo.inputs import augmentation_of
from bingo.models import Encoder, check_alive, load_encoder, state_hash

CARD = "README.md"
HUB_CARD = "hub/README.md"
DESCRIPTION = "weights.json"

HUB_NOTE = "On a model hub `hf-hub:USER/NAME` stands for `local-dir:DIR`."

log = logging.getLogger(__name__)


class Format(NamedTuple):
    """files: a network as name -> content; loading: how it is loaded again, in `language`; needs: packages."""

    files: Callable[[Network], dict[str, bytes]]
    loading: Callable[[Network], str]
    language: str
    needs: tuple[str, ...] = ()
    note: str = ""


FORMATS = {
    "torchvision": Format(plain.files, plain.loading, "python"),
    "safetensors": Format(
        hub.files,
        hub.loading,
        "python",
        hub.PACKAGES,
        "`DIR/hub` may be uploaded to a model hub as it is. There `hf-hub:USER/NAME` stands for `local-dir:DIR/hub`.",
    ),
    "onnx": Format(onnx_file.files, onnx_file.loading, "python", onnx_file.PACKAGES),
    "detectron2": Format(
        detectron.files,
        detectron.loading,
        "yaml",
        note="The backbone only. These weights want RGB, where detectron2's own want BGR. "
        "NumPy 1.26 or newer reads the file.",
    ),
}
CONSUMERS = {"torchvision": "PyTorch", "safetensors": "timm", "onnx": "onnxruntime", "detectron2": "detectron2"}


def run(config: ExportConfig, key: str, world: World) -> dict[str, Any]:
    """Write the formats, `README.md` (a model card) and `weights.json`.

    `weights.json`: model, classes (their number), class_names and input (see `input_of`), both null where nothing says
    them, content hashes, the training as it is recorded, what was measured, and the sha256 of every other file.
    Every format is made and proven before the first file is written. `UserError`: a package that is missing, a network
    that a format cannot hold, a consumer that computes other logits; and what `classifier_of` says.
    """
    for form in config.format:
        need(FORMATS[form].needs, form)
    encoder, model_hash = load_encoder(config.model, config.arch)
    found = classifier_of(config, encoder.feature_dim, model_hash)
    network = network_of(config, encoder, found)
    contents: dict[str, bytes] = {}
    for form in config.format:
        contents |= FORMATS[form].files(network)
    hashes = {"model": model_hash, "weights": state_hash(network.state)}
    folder = config.classifier if config.classifier and config.classifier.is_dir() else None
    facts = Facts(training_of(config.model), figures_of(found.results, folder), hashes, found.fitted)
    contents |= cards(config, network, facts, contents)
    for name in (CARD, HUB_CARD):
        refuse_others_card(config.out / name)
    sweep_temporaries(config.out / hub.FOLDER)
    for name, content in contents.items():
        with atomic_write(config.out / name) as file:
            file.write(content)
    write_json(config.out / DESCRIPTION, description(config, network, facts, found, contents))
    if not found.fitted:
        log.warning(
            "the classifier in %s is %d zero outputs; give --classifier RUN/eval/linear", config.out, network.classes
        )
    return {"model": network.name, "classes": network.classes}


def network_of(config: ExportConfig, encoder: Encoder, found: Classifier) -> Network:
    """The encoder's backbone with a classifier; `UserError` if the backbone answers nothing of use."""
    if not encoder.classifier_name:
        raise UserError(
            f"{encoder.name} of {config.model} has no linear layer at its end, so no classifier can go with its "
            "backbone: export another network"
        )
    own = augmentation_of(config.model)
    shown = found.results.get("input") or (input_of(own) if own else None)
    check_alive(encoder, config.model, shown["size"] if shown else USUAL_SIZE, head=False)
    state = {name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    state |= {f"{encoder.classifier_name}.weight": found.weight, f"{encoder.classifier_name}.bias": found.bias}
    network = Network(encoder.name, encoder.classifier_name, state, len(found.weight), found.classes, shown)
    assert network.module is not None  # which takes the state strictly
    return network


def cards(config: ExportConfig, network: Network, facts: Facts, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The model card, and the one of the folder `hub`, which may be uploaded alone."""
    uses = {
        name: Use(CONSUMERS[name], FORMATS[name].language, FORMATS[name].loading(network), FORMATS[name].note)
        for name in config.format
    }
    files = {name: (sha256(content), len(content)) for name, content in contents.items()}
    found = {CARD: card(network, facts, list(uses.values()), files, hub=False).encode()}
    if "safetensors" in uses:
        inside = {name.removeprefix("hub/"): entry for name, entry in files.items() if name.startswith("hub/")}
        inside_use = uses["safetensors"]._replace(lines=hub.loading(network, "DIR"), note=HUB_NOTE)
        found[HUB_CARD] = card(network, facts, [inside_use], inside, hub=True).encode()
    return found


def description(
    config: ExportConfig, network: Network, facts: Facts, found: Classifier, contents: Mapping[str, bytes]
) -> dict[str, Any]:
    """What `weights.json` says."""
    return {
        "model": network.name,
        "classes": network.classes,
        "class_names": network.class_names,
        "input": network.input,
        "classifier": "linear evaluation" if found.fitted else "zeros: train it, or export with an evaluation folder",
        "from": facts.hashes["model"],
        "hash": facts.hashes["weights"],
        "formats": list(config.format),
        "files": {name: {"sha256": sha256(content), "bytes": len(content)} for name, content in contents.items()},
        **({"onnx": onnx_file.about()} if "onnx" in config.format else {}),
        "training": facts.training,
        "measured": {name: {"value": value, "protocol": how} for name, value, how in facts.figures},
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refuse_others_card(path: Path) -> None:
    """`UserError` if a page of others is where the model card is to be written."""
    if not path.exists():
        return
    with open_file(path) as file:
        ours = MARK.encode() in file.read(FIRST)
    if not ours:
        raise UserError(f"{path} is not what bingo writes under that name; move it, or choose another --out")
