"""The objectives of a distillation: what each one takes of a step, and the module that has its loss.

A new objective is a row here and a module in `bingo/losses`; the command line, its checks, the trainer, the
leaderboard and the reports read this table. It imports no torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

KeyView = Literal["cross", "same"]


@dataclass(frozen=True)
class Objective:
    """A row of the table: R-18 from a teacher's keys by one loss."""

    module: str
    """In `bingo.losses`, or a module of yours; it has `loss(step)`."""
    text: str
    """One line for people: what it is, and its source."""
    bags: bool = False
    """Whether each anchor brings a member of its bag."""
    keys: int = 1
    """Key views of an image pair: of the anchor; of the anchor and its bag mate, or of both views of the anchor."""
    views: int = 1
    """Views of an anchor that the student sees."""
    key_view: KeyView = "same"
    """Where keys come from unless the user says: the student's own view, or another."""
    teacher_temperature: float | None = None
    """Of a teacher's softmax over the queue unless the user says; 0: that of the student."""
    own_queue: Literal["", "student", "momentum"] = ""
    """Whose keys fill a second queue, if there is one: the student's, or those of an average of its weights."""
    lengths: bool = False
    """Whether it needs the teacher's outputs with their lengths, which no cache holds."""
    mixes: bool = False
    """Whether the student also sees mixtures (CutMix) of anchor and bag mate."""
    guess: Literal["queue", "none"] = "queue"
    """Loss of a student that guesses: log(queue + 1) times `guesses`, or a number that nobody knows beforehand."""
    guesses: int = 1

    def passes(self, *, mixes: bool = True) -> int:
        """Images that pass the student per image of a batch; mixes: whether a mixture that is possible is asked for."""
        return self.views + self.bags + (self.mixes and mixes)


def local_share(crops: int, local_size: int, size: int) -> float:
    """Local crops of an image in passes of whole views, by their pixels."""
    return crops * (local_size / size) ** 2


OBJECTIVES = {
    "release": Objective(
        "release",
        "BINGO as published code has it: three queries, two keys, CutMix (arXiv 2107.01691)",
        bags=True, keys=2, key_view="cross", mixes=True,
    ),
    "paper": Objective(
        "paper",
        "BINGO as the paper has it: anchor and bag mate against the anchor's key (arXiv 2107.01691)",
        bags=True, key_view="cross", guesses=2,
    ),
    "moco": Objective("moco", "InfoNCE against the teacher's key of the image, as MoCo-v2 (arXiv 2003.04297)"),
    "seed": Objective(
        "seed",
        "the teacher's softmax over its key and the queue is the student's target (SEED, arXiv 2101.04731)",
        teacher_temperature=0.01,
    ),
    "compress": Objective(
        "compress",
        "the teacher's softmax over the queue is the student's target (CompRess-1q, arXiv 2010.14713)",
        teacher_temperature=0.0, guess="none",
    ),
    "compress-2q": Objective(
        "compress_2q",
        "the same, the student's softmax being over its own past outputs (CompRess-2q, arXiv 2010.14713)",
        teacher_temperature=0.0, own_queue="student", guess="none",
    ),
    "simreg": Objective(
        "simreg", "2 - 2 cos of the student's output and the teacher's key (SimReg, arXiv 2201.05131)", guess="none"
    ),
    "simreg-seed": Objective(
        "simreg_seed", "SimReg and half of SEED, the loss of the modern recipe", teacher_temperature=0.05, guess="none"
    ),
    "disco": Objective(
        "disco",
        "MoCo-v2 on the student's own average, and squared distances to the teacher's keys (DisCo, arXiv 2104.09124)",
        keys=2, views=2, own_queue="momentum", guess="none",
    ),
    "pseudo-labels": Objective(
        "pseudo_labels",
        "the queue is a classifier, the teacher's softmax a soft label (LightlyTrain's first distillation)",
        teacher_temperature=0.0,
    ),
    "coss": Objective(
        "coss",
        "cosines of rows and of channels of a batch (CoSS, arXiv 2409.13939)",
        lengths=True, guess="none",
    ),
}  # fmt: skip
"""Name -> its row, in the order of `--help`."""

if TYPE_CHECKING:
    ObjectiveName = str
else:  # the command line reads its choices from the type
    ObjectiveName = Literal[tuple(OBJECTIVES)]
