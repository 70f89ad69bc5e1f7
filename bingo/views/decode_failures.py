"""Images that DALI cannot decode at run time: found, named, replaced, counted; too many are refused.

DALI fails a whole batch and names no file, so every image of the batch is decoded alone. That, and not a stricter
decoder's opinion, says which are bad: what happens to an image then never depends on the batch it came in, so any
number of ranks and a resumed run see the same pixels. The strict decoder only gives the reason. Damage that DALI
decodes without an error (garbage inside a JPEG, a tail of zeros) is not seen here: `bingo check` sees it. An image of a
pack whose bytes are no longer those that were packed is not given to DALI at all, and so is one of the bad.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bingo.errors import PASSING, TransientError, UserError, remedy
from bingo.images.dataset import Dataset
from bingo.images.names import first_few, printable
from bingo.inputs import is_gone

log = logging.getLogger(__name__)


DAMAGED = "not the bytes that were packed: damaged on disk"


class Failures:
    """What one rank knows about the bad images of a dataset.

    most: how many may be bad before the run stops, 0 for none, None for any number. `found` maps the index of a bad
    image to the reason; `instead` maps it to the next index that decodes. `remedy` ends the sentence of a stop.
    """

    def __init__(self, dataset: Dataset, most: int | None = 0, remedy: str = "") -> None:
        self.dataset, self.most = dataset, most
        self.remedy = remedy or "run `bingo check`, then repair the files or pack again"
        self.found: dict[int, str] = {}
        self.instead: dict[int, int] = {}
        self._elsewhere: dict[int, str] = {}
        self._told: set[int] = set()

    def replace(self, images: np.ndarray) -> np.ndarray:
        """The images (int64), with the next index that decodes in the place of each bad one."""
        if not self.instead:
            return images
        return np.array([self.instead.get(int(image), int(image)) for image in images], np.int64)

    def look(self, images: Iterable[int], decodes: Callable[[int], bool]) -> bool:
        """Decode each image alone; True if one is bad. `UserError` naming files once there are too many.

        `TransientError` for one that cannot be read now: another in its place would be other weights for good.
        """
        bad = [image for image in sorted(set(images)) if not _decodes(image, decodes)]
        if not bad:
            return False
        from bingo.images.jpeg_strict import StrictDecoder  # only on failure: it starts a decoding process

        with StrictDecoder(1) as decoder:
            for image in bad:
                self._note(image, decoder)
            for image in bad:
                self.instead[image] = self._next(image, decodes, decoder)
        return True

    def _next(self, image: int, decodes: Callable[[int], bool], decoder: Any) -> int:
        for step in range(1, len(self.dataset)):
            candidate = (image + step) % len(self.dataset)
            if candidate not in self.found:
                if _decodes(candidate, decodes):
                    return candidate
                self._note(candidate, decoder)
        raise UserError(f"no image of {self.dataset.path} can be decoded; run `bingo check`")

    def _note(self, image: int, decoder: Any) -> None:
        if image in self.found:
            return
        self.found[image] = _reason(self.dataset, image, decoder)
        self._refuse_too_many()
        log.warning(
            "%s of %s cannot be decoded (%s); another image takes its place",
            printable(self.dataset.paths[image]), self.dataset.path, self.found[image],
        )  # fmt: skip

    def news(self) -> list[tuple[int, str]]:
        """(index, reason) of what was found since the last call."""
        fresh = [(image, reason) for image, reason in self.found.items() if image not in self._told]
        self._told.update(image for image, _ in fresh)
        return fresh

    def hear(self, found: Iterable[tuple[int, str]]) -> None:
        """Count what other ranks found; the same `UserError` on every rank once all together are too many."""
        self._elsewhere.update(found)
        self._refuse_too_many()

    def _refuse_too_many(self) -> None:
        everywhere = {**self._elsewhere, **self.found}
        if self.most is None or len(everywhere) <= self.most:
            return
        named = first_few({self.dataset.paths[i]: everywhere[i] for i in sorted(everywhere)})
        allowed = f", {self.most} may be" if self.most else ""
        what = f"{len(everywhere)} image(s) of {self.dataset.path} cannot be decoded"
        raise UserError(f"{what}{allowed}: {named}; {self.remedy}")


def _decodes(image: int, decodes: Callable[[int], bool]) -> bool:
    """Asked twice: what storage or memory did not give for a moment is no damage."""
    return decodes(image) or decodes(image)


def _reason(dataset: Dataset, image: int, decoder: Any) -> str:
    from bingo.images.check import judge

    try:
        verdict = judge(dataset.paths[image], bytes(dataset.encoded(image)), decoder=decoder)
    except OSError as error:
        if error.errno in PASSING or is_gone(dataset.path):
            raise TransientError(
                f"cannot read {printable(dataset.paths[image])} of {dataset.path}: {error.strerror}; {remedy(error)}, "
                "and type the same command to go on"
            ) from error
        return f"cannot be read: {error.strerror}"
    if verdict.verdict == "bad":
        return verdict.reason
    if dataset.damaged([image]):
        return DAMAGED
    found, expected = (verdict.height, verdict.width), tuple(dataset.sizes[image].tolist())
    return "DALI cannot decode it" if found == expected else f"{found} pixels instead of {expected}"
