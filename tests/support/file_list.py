"""Prints every source file with the first sentence of its docstring, folder by folder: `make files`.

Rooms come in the order of the layers, so the list reads from what others rest on to what rests on others.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *("kernels", "bingo", "bingo/models", "bingo/images", "bingo/views", "bingo/features", "bingo/bags"),
    *("bingo/evaluate", "bingo/losses", "bingo/train", "bingo/export", "bingo/supervised", "bingo/recipes"),
    *("launch", "launch/cluster", "launch/job", "launch/submit", "launch/status"),
    *("bench", "bench/kernels", "bench/loader", "bench/step", "bench/report"),
    *("bench/compare", "bench/roof", "bench/predict", "bench/profile", "bench/scaling", "bench/gpu"),
)


WITHOUT_PACKAGE = ("tests/softgpu",)
"""Folders whose sentence is the title of their README.md."""


def sentence(path: Path) -> str:
    """The first sentence of a file's docstring, or its first paragraph if that has no end."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?]) ", text)[0].rstrip(".")


def rows(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(folder with a slash or file name, sentence), in the order in which they are printed."""
    for folder in FOLDERS:
        yield f"{folder}/", sentence(root / folder / "__init__.py")
        for path in sorted((root / folder).glob("*.py")):
            if path.name != "__init__.py":
                yield path.name, sentence(path)
    for folder in WITHOUT_PACKAGE:
        yield f"{folder}/", (root / folder / "README.md").read_text().splitlines()[0].lstrip("# ")
        for path in sorted((root / folder).glob("*.py")):
            yield path.name, sentence(path)


def main() -> None:
    print("kernels, launch and bench are imported as bingo.kernels, bingo.launch and bingo.bench, through links.\n")
    for name, text in rows():
        print(f"{name:28s} {text}" if name.endswith("/") else f"  {name:26s} {text}")


if __name__ == "__main__":
    sys.exit(main())
