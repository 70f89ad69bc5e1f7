"""The model card: what the weights are, how they were made and measured, how to load them, what they hash to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bingo import __version__
from bingo.export.network import Network
from bingo.export.training import settings_shown

MARK = "<!-- written by bingo export -->"
FIRST = 4096
"""Bytes of a card in which the mark stands."""
LICENCE = (
    "**Fill this in before you share the weights.** They inherit the terms of the teacher and of the images that they "
    "were trained and evaluated on. bingo-distill cannot know these terms."
)


@dataclass(frozen=True)
class Facts:
    """What a card says besides the network.

    training: see `training_of`; figures: see `figures_of`; hashes: content hashes by what they are of; fitted: whether
    an evaluation made the classifier.
    """

    training: Mapping[str, Any] | None
    figures: list[tuple[str, float, str]]
    hashes: Mapping[str, str]
    fitted: bool


class Use(NamedTuple):
    """A way to load: who loads, in which language the lines are, the lines."""

    consumer: str
    language: str
    lines: str
    note: str = ""


def card(network: Network, facts: Facts, uses: list[Use], files: Mapping[str, tuple[str, int]], *, hub: bool) -> str:
    """The whole page in Markdown. files: name -> (sha256, bytes). hub: it lies in a folder that timm reads."""
    parts = [
        front_matter(network, facts, hub=hub),
        f"{MARK}\n# {network.name}, {network.classes} classes\n\n{about(network, facts, hub=hub)}",
        f"## Licence\n\n{LICENCE}",
        f"## Input\n\n{expected(network)}",
        f"## Training\n\n{trained(facts.training)}",
        f"## Measured\n\n{measured(facts)}",
        "\n\n".join(["## Loading\n\n`DIR` stands for this folder.", *(_use(use) for use in uses)]),
        f"## Content\n\n{content(facts, files)}",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(network: Network, facts: Facts, *, hub: bool) -> str:
    """YAML that model hubs read."""
    task = "image-classification" if facts.fitted else "image-feature-extraction"
    lines = ["---", "license: other  # fill in, see below", "license_name: to-be-filled-in"]
    lines += ["library_name: timm"] if hub else []
    tags = [task, *(["timm"] if hub else []), "knowledge-distillation", "bingo-distill"]
    lines += [f"pipeline_tag: {task}", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join([*lines, "---"])


def about(network: Network, facts: Facts, *, hub: bool) -> str:
    training = facts.training
    how = {"distill": "distilled from a frozen teacher", "pretrain": "trained by MoCo-v2"}
    origin = f"{how[training['kind']]} without labels" if training else "whose training is not recorded"
    if facts.fitted:
        top = "The linear classifier was fitted on its frozen features."
    else:
        top = "**The classifier is zeros: train it before use.** The backbone is ready."
    where = "`config.json` (`label_names`)" if hub else "`weights.json` (`class_names`)"
    names = f" The names of the classes stand in {where}." if network.class_names else ""
    return f"An image encoder, {origin}, exported by bingo-distill {__version__}. {top}{names}"


def expected(network: Network) -> str:
    seen = network.input
    if seen is None:
        return "Not recorded. Ask who trained the model for the image size, mean and standard deviation."
    mean, std = (", ".join(f"{value:g}" for value in seen[name]) for name in ("mean", "std"))
    return (
        f"RGB from 0 to 1. The shorter side is resized to {seen['resize']} pixels (bilinear, antialiased), the central "
        f"{seen['size']} x {seen['size']} pixels are cut. Then mean ({mean}) is subtracted and divided by std ({std})."
    )


def trained(training: Mapping[str, Any] | None) -> str:
    if training is None:
        return "Not recorded."
    rows = [("stage", f"{training['kind']} of bingo-distill {training['version']}")]
    rows += [(name, f"`{each['name']}`, content hash `{each['hash']}`") for name, each in training["inputs"].items()]
    rows += settings_shown(dict(training))
    return table(("setting", "value"), rows)


def measured(facts: Facts) -> str:
    if not facts.figures:
        return "No evaluation was given to the export."
    rows = [(name, f"{100 * value:.2f} %", protocol) for name, value, protocol in facts.figures]
    return table(("accuracy", "value", "protocol"), rows)


def content(facts: Facts, files: Mapping[str, tuple[str, int]]) -> str:
    rows = [(f"`{name}`", str(size), f"`{digest}`") for name, (digest, size) in files.items()]
    hashes = [(name, f"`{digest}`") for name, digest in facts.hashes.items()]
    return f"{table(('file', 'bytes', 'sha256'), rows)}\n\n{table(('content hash of', 'value'), hashes)}"


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    """A Markdown table; a bar in a value would end its cell."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _use(use: Use) -> str:
    note = f"\n\n{use.note}" if use.note else ""
    return f"### {use.consumer}\n\n```{use.language}\n{use.lines}\n```{note}"
