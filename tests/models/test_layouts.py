"""Every published layout is loaded whole from a file of its names and shapes, or refused by the name that is wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.errors import UserError
from bingo.models import load, load_encoder
from tests.support.checkpoints import EXTRAS, ROWS, Row, holder, save


@pytest.fixture(scope="module", params=ROWS)
def made(request: pytest.FixtureRequest) -> tuple[Row, dict[str, Any]]:
    row = ROWS[request.param]
    return row, row.make()


def changed(saved: dict[str, Any], key: str, **changes: Any) -> dict[str, Any]:
    """A copy of a file's content where the dict with this tensor has others; None takes one out."""
    inside = holder(saved, key)
    new = {n: v for n, v in {**inside, **changes}.items() if v is not None}
    return new if inside is saved else {n: new if v is inside else v for n, v in saved.items()}


def refusal(saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(load, "read_network", lambda *_: saved)
    with pytest.raises(UserError) as caught:
        load_encoder(Path("file.pth"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_load_whole_and_parts_of_them_do_not(made: tuple[Row, dict[str, Any]], tmp_path: Path) -> None:
    """With a script's arguments, paths and numbers of NumPy inside. Of two networks the published one is taken."""
    row, saved = made
    path = save({**saved, **EXTRAS}, tmp_path / "teacher.pth")
    encoder, _ = load_encoder(path)
    assert (encoder.name, encoder.form.form, encoder.form.widths) == (row.network, row.form, row.widths)
    state = encoder.state_dict()
    assert torch.equal(state[f"backbone.{row.ours}"], holder(saved, row.key)[row.key])
    names, inside = [n for n in state if n.startswith("backbone.")], holder(saved, row.key)
    same = {n: inside.get(n.replace("backbone.", row.key.removesuffix(row.ours), 1)) for n in names}
    assert all(value is None or torch.equal(state[n], value) for n, value in same.items())
    if row.key.endswith(row.ours):  # tests/models/test_renames.py compares those that have other names there
        assert sum(value is not None for value in same.values()) > len(names) * 0.7
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    with pytest.raises(UserError, match=r"teacher.pth is truncated or damaged \("):
        load_encoder(path)
    path.unlink()


def test_a_renamed_key_and_a_wrong_shape_are_named(
    made: tuple[Row, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, saved = made
    value = holder(saved, row.key)[row.key]
    told = refusal(changed(saved, row.key, **{row.key: None, f"{row.key}_x": value}), monkeypatch)
    assert f"missing keys backbone.{row.ours}; unexpected keys backbone." in told
    larger = torch.zeros(len(value) + 1, *value.shape[1:])
    told = refusal(changed(saved, row.key, **{row.key: larger}), monkeypatch)
    assert f"wrong shapes backbone.{row.ours} is {tuple(larger.shape)}, not {tuple(value.shape)}" in told
    told = refusal(changed(saved, row.key, **{"module.no.such.weight": torch.zeros(3)}), monkeypatch)
    assert "no.such.weight" in told


def test_a_head_is_whole_or_absent(made: tuple[Row, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    row, saved = made
    if not row.head:
        pytest.skip("this layout has no head of several layers")
    if row.network in ("resnet152", "resnet50w2"):
        pytest.skip("large, and of the layout of a smaller one in this table")
    names = [name for name in holder(saved, row.key) if name.startswith(row.head) and "num_batches" not in name]
    assert names
    last = next(name for name in reversed(names) if name.endswith("weight"))
    told = refusal(changed(saved, row.key, **{last: None}), monkeypatch)
    layer = last.removesuffix(".weight").rpartition(".")[2]
    assert re.search(rf": \S+\.{layer}\.\w+ is missing: such a head has the layers", told), told
    assert "MoCo v1 has one layer" not in told
    gone = changed(saved, row.key, **{n: None for n in holder(saved, row.key) if n.startswith(row.head)})
    if row.network == "resnet18" and "predict_q" in row.head:
        return  # without its head SimReg's student is one of MoCo's layout, with strange names
    monkeypatch.setattr(load, "read_network", lambda *_: gone)
    encoder, _ = load_encoder(Path("file.pth"))
    assert (encoder.name, encoder.form.form, encoder.dim) == (row.network, "", encoder.feature_dim)
