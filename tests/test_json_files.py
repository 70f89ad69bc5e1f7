"""Each JSON file that the suite reads, with bad content of every kind, through the verbs that read it: no traceback."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bingo.cli import main
from bingo.config_json import from_json, to_json
from bingo.files import remove_tree
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Snapshot
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit import send
from bingo.stages import KINDS
from tests.support.recipe_folder import SCORES, write_recipe
from tests.support.submissions import attempt, job, submission

pytestmark = pytest.mark.slow
SENT = 1.79e9
CONTENTS: dict[str, bytes | None] = {
    "array": b"[]", "null": b"null", "number": b"1", "text": b'"x"', "nan": b"NaN", "object": b"{}", "empty": b"",
    "deep": b"[" * 100_000, "deep objects": b'{"a":' * 100_000, "digits": b"9" * 5000,
    "digits inside": b'{"a":%d}' % 10**4000,
    "no text": b"\xff\xfe\x00", "zeros": b"\0" * 100, "truncated": b'{"kind": "pre', "folder": None,
}  # fmt: skip
VALUES = (None, True, -1, 10**30, 1e400, "", "x", [], [[1]], {}, {"x": {}}, "a\0b")
"""What stands in place of each field."""


class Row(NamedTuple):
    """A file, relative to the folder of all inputs, and a command that reads it; {} in it is that folder.

    fields: spoil each of its fields too. Settings are, in tests/test_config_json.py and tests/test_inputs.py.
    """

    file: str
    command: str
    fields: bool = True


ROWS = (
    Row("run/config.json", "eval knn {}/run --train {}/train --val {}/val --out {}/new", False),
    Row("run/config.json", "features --data {}/train --model {}/run --out {}/new", False),
    Row("run/config.json", "keys --data {}/train --teacher {}/run/model.pt --out {}/new --views 1", False),
    Row("run/config.json", "pretrain --config {}/run/config.json --out {}/new", False),
    Row("bags/config.json", "bags --config {}/bags/config.json --out {}/new"),
    Row("features/features.json", "bags --data {}/train --features {}/features --out {}/new"),
    Row("keys/keys.json", "distill --data {}/train --keys {}/keys --bags {}/bags --out {}/new --student tiny"),
    Row("keys/config.json", "distill --data {}/train --keys {}/keys --bags {}/bags --out {}/new --student tiny"),
    Row("features/stage.json", "bags --data {}/train --features {}/features --kind knn --out {}/new"),
    Row("run/stage.json", "export --model {}/run --out {}/new"),
    Row("images/digits.json", "demo-data {}/images"),
    Row("recipe/recipe.json", "report {}/recipe --out {}/new.html"),
    Row("recipe/eval/0-0/results.json", "report {}/recipe --out {}/new.html"),
    Row("recipe/eval/0-0/stage.json", "report {}/recipe --out {}/new.html", False),
    Row("recipe/students/1-0/config.json", "report {}/recipe --out {}/new.html", False),
    Row("recipe/students/1-0/environment.json", "report {}/recipe --out {}/new.html", False),
    *(
        Row("jobs/submissions/*/submission.json", f"{verb} {{}}/jobs")
        for verb in ("status", "history", "logs", "cancel", "repair")
    ),
    Row("jobs/submissions/*/jobs/one/attempts/7-0/end.json", "status {}/jobs"),
    Row("jobs/submissions/*/jobs/one/attempts/7-0/end.json", "history {}/jobs"),
    Row("jobs/submissions/*/jobs/one/attempts/7-0/begin.json", "history {}/jobs"),
    Row("jobs/submissions/*/jobs.jsonl", "status {}/jobs"),
    Row("jobs/submissions/*/jobs/one/attempts/7-0/rank-0.jsonl", "history {}/jobs"),
)


@pytest.fixture(scope="module")
def inputs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, features, bags, keys, a recipe and a submission, as small as they get."""
    root = tmp_path_factory.mktemp("inputs")
    for name in ("train", "val"):
        (root / name).symlink_to(digits / name)
    small = (
        "--augment.size 8 --contrast.dim 8 --contrast.hidden 8 --contrast.queue 64 --optim.batch 512 --optim.epochs 1"
    )
    for words in (
        f"pretrain --data {root}/train --out {root}/run --model tiny-2 --runtime.threads 1 {small}",
        f"features --data {root}/train --model {root}/run --out {root}/features",
        f"bags --data {root}/train --features {root}/features --out {root}/bags",
        f"keys --data {root}/train --teacher {root}/run --out {root}/keys --views 1",
        f"demo-data {root}/images",
    ):
        assert main(words.split()) == 0
    write_recipe(root / "recipe", digits, {arm: scores[:1] for arm, scores in SCORES.items()})
    made = submission(root / "jobs", [job(root / "jobs", "one")], {"one": "7"}, SENT)
    cause = {"kind": "user", "sentence": "no such folder", "rank": 0, "node": None, "step": None}
    end = {"time": SENT + 9, "rc": 1, "decision": 65, "then": "", "cause": cause}
    stage = {"event": "stage", "time": SENT + 2, "name": "stage of one"}
    attempt(made, "one", "7-0", begin={"time": SENT + 1, "host": "n1", "nodes": "n1"}, end=end, events={0: [stage]})
    return root


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has, the files alone are read."""
    for module in (slurm, send):
        monkeypatch.setattr(module, "ask", lambda *words, **more: Snapshot(SENT + 20, SENT, None, None, ("no Slurm",)))
    monkeypatch.setenv("PATH", "/nowhere")


def spoiled(whole: bytes, fields: bool) -> Iterator[tuple[str, bytes | None]]:
    """Names and contents: the fixed ones, half of the file, and each field missing or of another type."""
    yield from CONTENTS.items()
    yield "half", whole[: len(whole) // 2]
    value = json.loads(whole.splitlines()[0] if whole.count(b"\n") == 1 else whole)
    value.pop("seal", None)  # an object without one is taken as it is: so its fields are looked at
    for name in value if fields else ():
        yield f"without {name}", json.dumps({key: v for key, v in value.items() if key != name}).encode()
        for other in VALUES:
            yield f"{name}={other!r}", json.dumps({**value, name: other}).encode()


@pytest.mark.sampled(10)
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.file} {row.command.split()[0]}" for row in ROWS])
def test_bad_content_is_one_sentence_or_harmless(
    row: Row, inputs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = inputs.glob(row.file)
    monkeypatch.chdir(inputs)
    whole, found = file.read_bytes(), dict[str, str]()
    for name, content in spoiled(whole, row.fields):
        try:
            if content is None:
                file.unlink()
                file.mkdir()
            else:
                file.write_bytes(content)
            capfd.readouterr()
            status = main(row.command.format(*[inputs] * 9).split())
            told = capfd.readouterr().err
            last = told.strip().splitlines()[-1:]
            if status not in (0, 1, 2) or "Traceback" in told or (status == 2 and not last):
                found[name] = told
        except Exception as error:
            found[name] = repr(error)[:300]
        finally:
            remove_tree(file) if file.is_dir() else file.unlink(missing_ok=True)
            file.write_bytes(whole)
            for new in (inputs / "new", inputs / "new.html"):
                remove_tree(new) if new.is_dir() else new.unlink(missing_ok=True)
    assert found == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("row", ROWS)
def test_a_file_that_may_not_be_read(row: Row, inputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (file,) = inputs.glob(row.file)
    mode = file.stat().st_mode
    file.chmod(0)
    try:
        assert main(row.command.format(*[inputs] * 9).split()) in (0, 1, 2)
    finally:
        file.chmod(mode)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("place", ["", "tasks", "task", "stage", "config"])
def test_jobs_of_any_content(place: str, tmp_path: Path) -> None:
    from bingo.errors import UserError

    whole = job(tmp_path, "one").to_json()
    assert JobSpec.from_json(json.loads(json.dumps(whole))) == job(tmp_path, "one")
    stage: dict[str, Any] = whole["tasks"][0][0]
    for value in (*VALUES, [[{}]], [[[]]]):
        spoils: dict[str, list[Any]] = {
            "": [value, *({**whole, name: value} for name in whole)],
            "tasks": [{**whole, "tasks": value}],
            "task": [{**whole, "tasks": [value]}],
            "stage": [{**whole, "tasks": [[value]]}, *({**whole, "tasks": [[{**stage, n: value}]]} for n in stage)],
            "config": [{**whole, "tasks": [[{**stage, "config": {"out": value}}]]}],
        }
        for content in spoils[place]:
            (tmp_path / "job.json").write_text(json.dumps(content))
            try:
                spec = JobSpec.read(tmp_path)
            except UserError as error:
                assert str(error).startswith(str(tmp_path))  # noqa: PT017
            else:
                assert JobSpec.from_json(spec.to_json()) == spec


def test_configs_of_all_kinds_are_read_back(inputs: Path) -> None:
    for name, kind in (("run", "pretrain"), ("features", "features"), ("keys", "keys")):
        values = json.loads((inputs / name / "config.json").read_text())
        values = {key: value for key, value in values.items() if key not in ("kind", "cwd")}
        assert to_json(from_json(KINDS[kind].config, values)) == values
