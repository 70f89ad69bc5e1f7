"""`bingo recipes`: the cards as a list, one card whole, and checks of cards and of a teacher's file."""

import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bingo.arguments import Parser
from bingo.config import DistillConfig, PretrainConfig
from bingo.config_flags import defaults, shown
from bingo.errors import UserError, brief, did_you_mean
from bingo.recipes import CHAINS
from bingo.recipes.cards import CARDS, Card
from bingo.recipes.chains import TRAINED
from bingo.recipes.given import fitting, look, md5_of, sentence
from bingo.recipes.teachers import TEACHERS

CHECK = "check"
HOURS = Path(__file__).with_name("hours.json")
"""What `bingo bench predict --recipes` says of an H100 and of eight; a test compares."""
HEAD = ("recipe", "from", "published top-1, %", "judged by", "student passes", "H100 hours, 1 and 8 GPUs", "status")


def recipes_flags() -> Parser:
    about = "The recipes, or one of them whole. check: build cards and train two steps with generated teachers."
    parser = Parser("bingo recipes", about, "bingo recipes resnet18-r50")
    text = f"one of: {', '.join(CHAINS)}; or check (default: the list)"
    parser.add_argument("name", nargs="?", choices=[CHECK, *CHAINS], metavar="NAME|check", help=text)
    more = "with check: the recipes to check (default: all)"
    parser.add_argument("more", nargs="*", default=[], metavar="NAME", help=more)
    teacher = "with check: instead, what this teacher is and which published number is for it"
    parser.add_argument("--teacher", type=Path, metavar="PATH", help=teacher)
    parser.add_argument("--table", action="store_true", help="the list as the table of docs/reproduce.md")
    return parser


def main(argv: list[str]) -> int:
    """`bingo recipes [NAME]`, `bingo recipes check [NAME...] [--teacher PATH]`; the exit status."""
    options = recipes_flags().parse_args(argv)
    if options.name == CHECK:
        for name in options.more:
            if name not in CARDS:
                raise UserError(f"{name!r} is no recipe with a card; {did_you_mean(name, CARDS)}")
        return check_teacher(options.teacher, options.more) if options.teacher else check_cards(options.more)
    if options.teacher:
        raise UserError("--teacher is looked at by `bingo recipes check --teacher PATH`: add the word check")
    if options.more:
        raise UserError(f"{brief(options.more[0])} is a word too many: `bingo recipes NAME` shows one recipe")
    for line in whole(options.name) if options.name else markdown() if options.table else listing():
        print(line)
    return 0


def check_cards(names: list[str]) -> int:
    """Train two steps by each of these cards, or by all; 1: one of them failed."""
    from bingo.recipes.check import check

    names, failed = names or list(CARDS), 0
    for name in names:
        found = check(name)
        print(found, flush=True)
        failed += bool(found.error)
    print(f"{len(names)} {'card' if len(names) == 1 else 'cards'}, {failed} failed")
    return 1 if failed else 0


def check_teacher(path: Path, names: list[str]) -> int:
    """Say what a teacher is, and of these cards, or of those that it is for, which number is its."""
    given = look(path)
    print(given)
    if path.is_file():
        digest = md5_of(path)
        page = [t for t in TEACHERS.values() if t.md5 and digest.startswith(t.md5)]
        print(f"md5 {digest}: " + (f"published as {page[0].file}" if page else "of no file whose hash is known here"))
    found = names or fitting(given)
    for name in found:
        print(sentence(name, path))
    if not found:
        print("no recipe is for it; distil from it with `bingo distill` (docs/teachers.md)")
    return 0 if found else 1


def rows() -> Iterator[tuple[str, ...]]:
    """A row of cells for each card, as in `HEAD`."""
    hours = json.loads(HOURS.read_text())
    for name, card in CARDS.items():
        teachers = [TEACHERS[teacher].text if teacher else "no teacher" for teacher in card.expected]
        numbers = ["none known" if top1 is None else f"{top1:.1f}" for top1 in card.expected.values()]
        if len(set(numbers)) == 1:
            numbers = numbers[:1]
        spent = " and ".join(f"{each:.1f}" for each in hours[name])
        yield (name, " / ".join(teachers), " / ".join(numbers), card.protocol, f"{card.passes:.0f}", spent, card.status)


def listing() -> Iterator[str]:
    """The cards in columns, and what to type next."""
    table = [HEAD, *rows()]
    widths = [max(len(row[at]) for row in table) for at in range(len(HEAD))]
    for row in table:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield "hours are predicted by arithmetic (docs/predicted.md); `bingo recipes NAME` has a whole card and its command"
    yield f"other recipes: {', '.join(name for name in CHAINS if name not in CARDS)}"


def markdown() -> Iterator[str]:
    """The same for docs/reproduce.md."""
    for row in (HEAD, tuple("---" for _ in HEAD), *rows()):
        yield f"| {' | '.join(f'`{row[0]}`' if at == 0 and row[0] in CARDS else cell for at, cell in enumerate(row))} |"


def whole(name: str) -> Iterator[str]:
    """One card, with the command."""
    if name not in CARDS:
        lines = (inspect.getdoc(CHAINS[name]) or "").splitlines()
        yield f"{name}: {lines[0]}"
        yield next(line for line in lines if line.startswith("bingo "))
        return
    card = CARDS[name]
    yield f"{name}: {card.method}, student {card.student}"
    yield f"  command      {command(name, card)}"
    for teacher, top1 in card.expected.items():
        number = "no number is published" if top1 is None else f"{top1:.1f} % top-1"
        yield f"  expected     {number}" + (f" from {TEACHERS[teacher].text}" if teacher else "")
        if teacher:
            yield from _teacher_lines(teacher)
    yield f"  source       {card.source}"
    yield f"  judged by    {card.protocol}"
    yield f"  passes       {card.passes:.0f} of the student over the images, in {card.epochs} epochs"
    one, eight = json.loads(HOURS.read_text())[name]
    yield f"  H100 hours   {one:.1f} on one GPU, {eight:.1f} on eight; predicted, of the training alone"
    yield f"  settings     {' '.join(_settings(card))}"
    if card.differs:
        yield f"  differs      {card.differs}"
    yield f"  status       {card.status}"


def command(name: str, card: Card) -> str:
    """What to type."""
    file = next((TEACHERS[t].file or "FILE" for t in card.expected if t), "")
    teacher = f" --teacher {file}" if file else ""
    return f"bingo run {name} --images DIR{teacher} --out runs/{place(name, card)}"


def place(name: str, card: Card) -> str:
    """The folder: a fine-tuning takes the student of the row that it is a part of."""
    return name if card.labels is None else name.rpartition("-")[0]


def _teacher_lines(name: str) -> Iterator[str]:
    teacher = TEACHERS[name]
    file = teacher.file or "no file of its own"
    hashed = f", md5 {teacher.md5}..." if teacher.md5 else ""
    own = "" if teacher.top1 is None else f"; its own top-1 {teacher.top1:.1f}"
    yield f"    teacher    {file} ({teacher.network}{hashed}): {teacher.source}{own}"


def _settings(card: Card) -> Iterable[str]:
    """What is unlike the defaults of the verb, as flags."""
    usual = defaults(DistillConfig if card.distils else PretrainConfig)
    values: dict[str, Any] = {**TRAINED, **card.settings}
    return [f"--{n.replace('_', '-')} {shown(v)}" for n, v in values.items() if v != usual.get(n)]
