"""A teacher held against a card: which published number is its, or which card it is for. Needs no torch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bingo.errors import UserError
from bingo.paths import library_name
from bingo.recipes.cards import CARDS, Card
from bingo.recipes.glance import glance
from bingo.recipes.teachers import TEACHERS, Teacher

CLASSIFIER = "fc."
"""At the beginning of a name: of a ResNet that was trained with labels."""
WHERE = "(`bingo recipes` lists all)"


@dataclass(frozen=True)
class Given:
    """A teacher as a user names it. network: "" where that is not known without loading it; own: trained by bingo.

    beginnings: those of `Teacher.marks` that names of its tensors have, and what else tells it from published teachers.
    """

    path: Path
    network: str = ""
    epoch: int | None = None
    own: bool = False
    beginnings: frozenset[str] = frozenset()

    def is_kind(self, teacher: Teacher) -> bool:
        """Whether it is this teacher, trained for however long."""
        marks = {teacher.marks} - {""}
        return not self.own and self.network == teacher.network and marks == self.beginnings

    def __str__(self) -> str:
        if not self.network:
            return f"{self.path} is of a network that cannot be told without loading it"
        trained = "" if self.epoch is None else f", trained for {self.epoch} epochs"
        return f"{self.path} is a {self.network}{trained}"


def look(path: Path) -> Given:
    """What can be told of a run folder, a model.pt, a checkpoint or a library's name."""
    if name := library_name(path):
        of_timm = {t.marks for t in TEACHERS.values() if t.network == name}
        return Given(path, name.removeprefix("torchvision:"), beginnings=frozenset(of_timm or {name}))
    found = glance(path)
    if found is None:
        return Given(path)
    marks = {t.marks for t in TEACHERS.values()} - {""} | {CLASSIFIER}
    beginnings = frozenset(mark for mark in marks if found.holds(mark))
    return Given(path, found.network, found.epoch, found.own, beginnings)


def sentence(name: str, path: Path) -> str:
    """Which number of the card `name` this teacher is to give; `UserError` for a network that the card is not for."""
    card, given = CARDS[name], look(path)
    if given.own:
        return f"{name}: no number is published for it: {given} of your own"
    if given.network and given.network not in card.networks:
        wants = " or ".join(TEACHERS[teacher].text for teacher in card.expected)
        raise UserError(f"--teacher: {given}, and the recipe {name} wants {wants}; {_fitting(given)} {WHERE}")
    kind = {teacher: top1 for teacher, top1 in card.expected.items() if given.is_kind(TEACHERS[teacher])}
    if not kind:
        better = f"; it is for {_listed(names)}" if (names := fitting(given)) else ""
        return f"{name}: no number is published for it: {given}{better}"
    known = [teacher for teacher in kind if _is(given, TEACHERS[teacher])]
    if len(known) == 1:
        return _told(name, card, given, known[0])
    rows = " and ".join(f"{_number(top1)} from {TEACHERS[teacher].text}" for teacher, top1 in kind.items())
    why = "does not say how long it was trained" if given.epoch is None else f"says epoch {given.epoch}"
    return f"{name}: the file {why}; {card.source} has {rows}"


def _is(given: Given, teacher: Teacher) -> bool:
    """By its epochs; where the file does not say them, by its hash, if its page gives one."""
    if given.epoch is not None and teacher.epoch is not None:
        return given.epoch == teacher.epoch
    return not teacher.md5 or md5_of(given.path).startswith(teacher.md5)


def _told(name: str, card: Card, given: Given, teacher: str) -> str:
    other = [
        f"; {_number(top1)} is for {TEACHERS[each].text}"
        for each, top1 in card.expected.items()
        if each != teacher and top1 != card.expected[teacher]
    ]
    said = "" if given.epoch is None else f"the file says epoch {given.epoch}: "
    number = f"{card.source} has {_number(card.expected[teacher])}, {card.protocol}, from {TEACHERS[teacher].text}"
    doubt = "" if TEACHERS[teacher].marks else ", if it is one: files of other methods have the same names"
    return f"{name}: {said}{number}{doubt}{''.join(other)}"


def _number(top1: float | None) -> str:
    return "no number" if top1 is None else f"{top1:.1f}"


def fitting(given: Given) -> list[str]:
    """Cards that this teacher is for."""
    kinds = {name for name, teacher in TEACHERS.items() if given.is_kind(teacher)}
    return [name for name, card in CARDS.items() if kinds & set(card.expected)]


def _fitting(given: Given) -> str:
    names = fitting(given)
    return f"it is for {_listed(names)}" if names else "no recipe is for it; distil from it with `bingo distill`"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def md5_of(path: Path) -> str:
    """MD5 sum of a file, as pages of published files give it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
