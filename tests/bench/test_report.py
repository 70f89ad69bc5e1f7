"""The report's numbers against hand-computed ones, its pictures against the packed images, and what it refuses."""

import base64
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.bags.file import label_bags, random_bags, save_bags
from bingo.bench.report.page import curve, evidence, relation, summary_lines, write_report
from bingo.bench.report.pictures import photograph, smooth, view_rows
from bingo.bench.report.results import compare, load
from bingo.config import BagsConfig, DistillConfig, EvalConfig, PretrainConfig
from bingo.config_json import to_json
from bingo.config_parts import Augmentation, Monitor, Optimiser
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import write_json
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from bingo.views.loader import augmenter, training_batches
from bingo.views.plan import Plan
from tests.support.page import Page

WRITTEN = Path("runs") / "elsewhere"  # where the configs say the run is: it has been moved since
AUGMENT = Augmentation(size=16)
ENVIRONMENT = {
    "python": "3.12.1", "system": "Linux 6", "cpu": "A <fast> CPU", "cores": 2, "memory_gib": 7.5,
    "packages": {"torch": "2.14.1"}, "gpu": [], "driver": None, "git": "abc+dirty", "slurm": {}, "argv": [],
}  # fmt: skip
Scores = dict[str, list[tuple[float, float, float]]]  # arm -> (few-label, kNN, linear) per seed

SCORES: Scores = {
    "no teacher": [(0.50, 0.90, 0.80), (0.54, 0.92, 0.80), (0.52, 0.91, 0.80)],
    "knn": [(0.60, 0.90, 0.70), (0.66, 0.91, 0.80), (0.60, 0.92, 0.90)],
    "label": [(0.50, 0.95, 0.80), (0.56, 0.97, 0.80), (0.52, 0.96, 0.80)],
}


class Folder:
    """Writes a recipe folder by hand, stage by stage, in the format that `bingo run` leaves."""

    def __init__(self, root: Path, digits: Path) -> None:
        self.root, self.stages = root, list[dict[str, Any]]()
        self.arms: dict[str, list[str]] = {}
        for split in ("train", "val"):
            shutil.copytree(digits / split, root / split)

    def stage(self, name: str, kind: str, config: Any, figures: dict[str, Any], files: dict[str, str]) -> None:
        out = self.root / config.out.relative_to(WRITTEN)
        self.stages.append({"name": name, "kind": kind, "config": to_json(config)})
        for file, text in files.items():
            out.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(text)
        write_json(out / "config.json", {"kind": kind, **to_json(config)})
        write_json(out / "environment.json", ENVIRONMENT)
        record = {"name": name, "kind": kind, "key": "k", "seconds": 30.0, "figures": figures, "ranks": 2}
        write_json(out / "stage.json", record)

    def bags(self, kind: str) -> None:
        dataset = open_dataset(self.root / "train")
        members = random_bags(len(dataset), 3, 0) if kind == "random" else label_bags(dataset.labels, 3, 0)
        path = self.root / "bags" / kind / "bags.npz"
        save_bags(path, members, kind=kind, dataset_hash=dataset.hash, features_hash=None, teacher_hash=None,
                  engine="numpy", seed=0)  # fmt: skip
        config = BagsConfig(data=WRITTEN / "train", out=WRITTEN / "bags" / kind, kind=kind, k=3)  # type: ignore[arg-type]
        self.stage(f"bags {kind}", "bags", config, {}, {})

    def arm(self, arm: str, scores: list[tuple[float, float, float]], epochs: int) -> None:
        for seed, (fewshot, knn, linear) in enumerate(scores):
            place = Path("students") / f"{len(self.arms)}-{seed}"
            common: dict[str, Any] = {
                "data": WRITTEN / "train", "out": WRITTEN / place, "augment": AUGMENT, "seed": seed,
                "optim": Optimiser(epochs=epochs, batch=64), "monitor": Monitor(val=WRITTEN / "val"),
            }  # fmt: skip
            config: Any = PretrainConfig(model="tiny", **common)
            if arm != "no teacher":
                config = DistillConfig(
                    teacher=WRITTEN / "teacher", bags=WRITTEN / "bags", student="tiny", objective="paper", **common
                )
            lines = [{"kind": "train", "step": s, "epoch": s // 16, "loss": 5 - 0.01 * s} for s in range(16 * epochs)]
            lines.append({"kind": "eval", "step": 16 * epochs, "epoch": epochs, "knn": knn})
            kind = "pretrain" if arm == "no teacher" else "distill"
            metrics = {"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines)}
            weights = f"weights of {arm} {seed}"
            self.stage(f"{kind} {arm} {seed}", kind, config, {"weights": weights, "resumed_from": 16 * seed}, metrics)
            evaluation = EvalConfig(
                run=WRITTEN / place, train=WRITTEN / "train", val=WRITTEN / "val", out=WRITTEN / "eval" / place.name
            )
            results = {"model": weights, "knn": knn, "fewshot": fewshot, "linear": linear, "shots": 2}
            self.stage(f"eval {arm} {seed}", "eval", evaluation, {}, {"results.json": json.dumps(results)})
            self.arms.setdefault(arm, []).append(f"eval {arm} {seed}")

    def close(self, name: str = "digits") -> Path:
        write_json(self.root / "recipe.json", {"recipe": name, "arms": self.arms, "stages": self.stages})
        return self.root


def write_recipe(root: Path, digits: Path, scores: Scores, *, name: str = "digits", bags: bool = False) -> Path:
    """Equal student passes: 4 epochs of one view, 2 epochs of two."""
    folder = Folder(root, digits)
    teacher = PretrainConfig(data=WRITTEN / "train", out=WRITTEN / "teacher", model="tiny-8")
    folder.stage("teacher", "pretrain", teacher, {"knn": 0.97}, {})
    for kind in ("random", "label") if bags else ():
        folder.bags(kind)
    for arm, values in scores.items():
        folder.arm(arm, values, 4 if arm == "no teacher" else 2)
    return folder.close(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), digits, SCORES, bags=True)


@pytest.fixture(scope="module")
def written(root: Path) -> tuple[str, list[str]]:
    lines = write_report(root, root / "report.html")
    return (root / "report.html").read_text(), lines


@pytest.fixture(scope="module")
def page(written: tuple[str, list[str]]) -> Page:
    return Page(written[0])


def test_numbers_equal_those_computed_by_hand(page: Page) -> None:
    # no teacher: 50, 54, 52; kNN bags: 60, 66, 60, deviations -2, 4, -2, so the variance is 24 / 2.
    base = ["no teacher", "3", "52.0 ± 2.0", "91.0 ± 1.0", "80.0 ± 0.0", "4,096", "4 epochs × 16 steps × 64 images × 1"]
    knn = ["kNN bags", "3", "62.0 ± 3.5", "91.0 ± 1.0", "80.0 ± 10.0", "4,096", "2 epochs × 16 steps × 64 images × 2"]
    assert base in page.rows
    assert knn in page.rows
    # Differences 10, 12, 8: standard error 2 / sqrt 3 = 1.15, times 4.30 is 4.97 < 10. kNN: 0, -1, 1.
    assert ["kNN bags − no teacher", "+10.0", "1.2", "3", "better", "+0.0", "0.6", "3", "within noise"] in page.rows
    # Label bags: -10, -10, -8 in few-label accuracy; +5, +6, +4 in kNN accuracy.
    assert ["label bags − kNN bags", "−9.3", "0.7", "3", "worse", "+5.0", "0.6", "3", "better"] in page.rows
    named = [row for row in page.rows if row[:1] and "random bags" in row[0]]
    assert [len(row) for row in named] == [9], "its bags are described, but it is no arm that was run"


def test_the_teacher_behind_a_cache_of_keys_is_found(root: Path) -> None:
    run = load(root)
    student = next(stage for stage in run.stages if stage.kind == "distill")
    teacher = replace(student, name="teacher", kind="pretrain", out=root / "teacher")
    cache = replace(student, name="keys", kind="keys", out=root / "keys", config={"teacher": str(WRITTEN / "teacher")})
    cached = replace(student, config={**student.config, "teacher": None, "keys": str(WRITTEN / "keys")})
    assert replace(run, stages=(teacher, cache)).teacher_of(cached) == teacher
    assert replace(run, stages=(teacher, cache)).teacher_of(student) == teacher
    assert replace(run, stages=()).teacher_of(student) is None


def test_the_sentence_and_the_lines_say_the_same(written: tuple[str, list[str]], page: Page, root: Path) -> None:
    assert (
        "a tiny student distilled from a tiny-8 teacher with kNN bags reaches 62.0 % few-label accuracy (2 labels per "
        "class), 10.0 points above the same student trained without a teacher at equal student passes (n = 3 seeds, "
        "std of the paired differences 2.0 points: clear of the noise). Its kNN accuracy is 0.0 points above (n = 3 "
        "seeds, std of the paired differences 1.0 points: within noise)."
    ) in page.words
    assert written[1] == [
        "no teacher  n = 3  few-label 52.0 ± 2.0 %  kNN 91.0 ± 1.0 %",
        "kNN bags    n = 3  few-label 62.0 ± 3.5 %  kNN 91.0 ± 1.0 %",
        "label bags  n = 3  few-label 52.7 ± 3.1 %  kNN 96.0 ± 1.0 %",
        "kNN bags minus no teacher: few-label +10.0 points, std 2.0 over n = 3 seeds: better; "
        "kNN +0.0 points, std 1.0 over n = 3 seeds: within noise",
        f"report: {root / 'report.html'}",
    ]


def test_time_and_environment(page: Page) -> None:
    # A teacher, two kinds of bags, and nine students with their evaluations, 30 seconds each.
    assert "630 seconds (10.5 minutes) in all stages together" in page.words
    assert ["distill knn 1", "distill", "2", "30.0 since it resumed at step 16"] in page.rows
    assert ["CPU", "A <fast> CPU, 2 cores, 7.5 GiB of memory"] in page.rows
    assert "Every other stage recorded the same." in page.words
    assert ["optim.epochs", "4", "2", "2"] in page.rows
    assert not [row for row in page.rows if row[:1] in (["out"], ["data"], ["seed"])]


def test_self_contained_small_and_repeatable(written: tuple[str, list[str]], page: Page, tmp_path: Path) -> None:
    html = written[0]
    assert len(html.encode()) < 5_000_000
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(value.startswith("data:image/") for value in links)
    assert not re.search(r"url\(|@import|https?://", html)
    assert all(attributes["alt"] for attributes in page.images)


def test_the_same_run_gives_the_same_page(written: tuple[str, list[str]], root: Path, tmp_path: Path) -> None:
    write_report(root, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == written[0]


def test_bags_show_the_packed_bytes_and_frame_other_classes(page: Page, root: Path) -> None:
    dataset = open_dataset(root / "train")
    members = random_bags(len(dataset), 3, 0)
    anchors = [int((i + 0.5) * len(dataset) / 8) for i in range(8)]
    rows = [[anchor, *members[anchor].tolist()] for anchor in anchors]
    shown = [a for a in page.images if a["alt"].startswith(("anchor", "member"))]
    assert len(shown) == 2 * 8 * 4
    for attributes, index in zip(shown, [i for row in rows for i in row], strict=False):
        assert base64.b64decode(attributes["src"].split(",")[1]) == dataset.encoded(index).tobytes()
    other = [bool(dataset.labels[i] != dataset.labels[row[0]]) for row in rows for i in row]
    assert any(other)
    assert ["other" in a["class"].split() for a in shown] == other + [False] * len(other)
    purity = 100 * np.mean(dataset.labels[members] == dataset.labels[:, None])
    assert f"random bags: purity {purity:.1f} %" in page.words
    assert "label bags: purity 100.0 %" in page.words


def test_bags_are_described_beside_chance(page: Page, root: Path) -> None:
    labels = open_dataset(root / "train").labels
    n, members = len(labels), label_bags(labels, 3, 0)
    used = np.bincount(members.ravel(), minlength=n)
    sizes = np.bincount(labels)
    chance = 100 * (sizes * (sizes - 1)).sum() / (n * (n - 1))
    (row,) = [row for row in page.rows if row[0] == "label bags" and len(row) == 9]
    assert row[1:4] == ["100.0", f"{chance:.1f}", str(used.max())]
    assert row[5:7] == [f"{100 * (used == 0).mean():.2f}", f"{100 * (1 - 3 / (n - 1)) ** (n - 1):.2f}"]
    other = random_bags(n, 3, 0)
    common = 100 * np.mean([len(set(a) & set(b)) / 3 for a, b in zip(members.tolist(), other.tolist(), strict=True)])
    (picture,) = [a for a in page.images if a["alt"].startswith("Share of images by the number of bags")]
    assert f"random bags and label bags {common:.1f} %" in picture["alt"]
    drawn = base64.b64decode(picture["src"].split(",")[1]).decode()
    assert drawn.count("<!-- 100.0 -->") == 2
    assert drawn.count(f"<!-- {common:.1f} -->") == 2
    assert f"by chance {300 / (n - 1):.2f} %" in page.words


def test_views_are_those_of_the_run(root: Path) -> None:
    """The pictures of views 1 and 2 equal the pixels that a distillation at batch 64 gets at its first step."""
    dataset = open_dataset(root / "train")
    plan = Plan(dataset.sizes, 64, AUGMENT, 3, views=(2, 1), bags=random_bags(len(dataset), 3, 0))
    device = torch.device("cpu")
    batch = next(training_batches(dataset, plan, World(0, 1, device, 1), start=0, stop=1))
    rows = view_rows(dataset, AUGMENT, 3, 5, 4)
    assert [len(row) for row in rows] == [5] * 5
    mean, std = (np.array(values) for values in (AUGMENT.mean, AUGMENT.std))
    for view in range(2):
        tensors = augmenter(AUGMENT, torch.float32)(batch.crops[0][view], batch.params(0, view))
        for i, row in enumerate(rows):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(row[1 + view].uri.split(",")[1]))))
            expected = 255 * (tensors[i].permute(1, 2, 0).double().numpy() * std + mean)
            assert np.abs(pixels - expected).max() <= 0.51
    encoded = dataset.encoded(int(plan.permutation(0)[0])).tobytes()
    assert base64.b64decode(rows[0][0].uri.split(",")[1]) == encoded


def test_a_photograph_becomes_a_thumbnail_and_a_small_png_stays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, shape, file in (("a", (600, 800, 3), "big.jpg"), ("b", (12, 12, 3), "small.png")):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(generator.integers(0, 256, shape, np.uint8)).save(tmp_path / "images" / name / file)
    pack_folder(tmp_path / "images", tmp_path / "packed")
    dataset = open_dataset(tmp_path / "packed")
    big, small = photograph(dataset, 0, "big"), photograph(dataset, 1, "small")
    assert Image.open(io.BytesIO(base64.b64decode(big.uri.split(",")[1]))).size == (96, 72)
    assert len(big.uri) < 20_000
    assert not big.pixelated
    assert small.uri.startswith("data:image/png;base64,")
    assert base64.b64decode(small.uri.split(",")[1]) == dataset.encoded(1).tobytes()
    assert small.pixelated


def test_curves_count_student_passes(root: Path) -> None:
    one = load(root).arms["knn"][1]
    found = curve(one)
    assert found.loss_x.tolist() == [128 * (step + 1) for step in range(32)]
    assert np.allclose(found.loss, 5 - 0.01 * np.arange(32))
    assert (found.knn_x.tolist(), found.knn.tolist()) == ([4096], [0.91])


def test_smoothing_is_a_centred_mean() -> None:
    values = np.random.default_rng(1).normal(size=9)
    expected = [values[max(0, i - 1) : i + 2].mean() for i in range(9)]
    assert np.allclose(smooth(values, 3), expected)
    assert np.allclose(smooth(values, 1), values)
    assert np.allclose(smooth(np.ones(2), 50), 1)


def test_one_seed_says_so_in_words(tmp_path: Path, digits: Path) -> None:
    root = write_recipe(tmp_path, digits, {"no teacher": [(0.6, 0.9, 0.9)], "knn": [(0.55, 0.9, 0.9)]})
    assert summary_lines(load(root))[-1] == (
        "kNN bags minus no teacher: few-label -5.0 points: one seed; kNN +0.0 points: one seed"
    )
    few = compare(*load(root).arms.values(), "fewshot")
    assert few is not None
    assert (relation(few), evidence(few)) == ("5.0 points below", "one seed, so the noise is not known")


def test_unequal_passes_are_flagged_and_names_are_escaped(tmp_path: Path, digits: Path) -> None:
    """Also the other ways round: no bags, and arms that the comparison does not know."""
    strange = '<b>"$x_&\\frac'
    folder = Folder(tmp_path, digits)
    folder.arm("no teacher", [(0.5, 0.9, 0.9), (0.5, 0.9, 0.9)], 1)
    folder.arm(strange, [(0.5, 0.9, 0.9), (0.5, 0.9, 0.9)], 1)
    write_report(folder.close("<script>alert(1)</script>"), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    found = Page(html)
    assert "<script" not in html
    assert "<b>" not in html
    assert "Distillation report: <script>alert(1)</script>" in found.words
    assert [row[5] for row in found.rows if row[0] == strange] == ["2,048"]
    assert "The student passes differ between runs" in found.words
    assert "so the gain over no teacher is not known" in found.words
    assert "This recipe made no bags." in found.words


def test_without_dali_the_section_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    write_report(root, tmp_path / "report.html")
    words = Page((tmp_path / "report.html").read_text()).words
    assert "No views can be shown here: NVIDIA DALI is needed" in words
    assert "pip install nvidia-dali-cuda130" in words


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def started_only(root: Path) -> None:
    write_json(root / "students" / "1-0" / "stage.json", {"key": "k", "kind": "distill", "name": "distill knn 0"})


def no_linear(root: Path) -> None:
    rewrite(root / "eval" / "1-0" / "results.json", lambda results: results.pop("linear"))


def other_weights(root: Path) -> None:
    rewrite(root / "students" / "1-0" / "stage.json", lambda stage: stage["figures"].update(weights="new"))


def other_run(root: Path) -> None:
    rewrite(root / "eval" / "1-0" / "config.json", lambda config: config.update(run="runs/none"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no recipe": (
        lambda root: (root / "recipe.json").unlink(),
        r"no recipe\.json in it\); type `bingo run digits",
    ),
    "not JSON": (lambda root: (root / "recipe.json").write_text("{"), r"recipe\.json is not valid JSON"),
    "not a recipe": (lambda root: write_json(root / "recipe.json", {"a": 1}), r"not a recipe written by `bingo run`"),
    "a list": (lambda root: write_json(root / "recipe.json", [1]), r"not a recipe written by `bingo run`"),
    "unknown stage": (
        lambda root: rewrite(root / "recipe.json", lambda recipe: recipe["arms"].update(knn=["eval lost"])),
        r"names no stage for eval lost",
    ),
    "missing stage": (
        lambda root: shutil.rmtree(root / "eval" / "1-0"),
        r"1 of 5 stages are not finished \(eval knn 0\); type `bingo run digits --out",
    ),
    "started stage": (started_only, r"1 of 5 stages are not finished \(distill knn 0\)"),
    "no linear": (no_linear, r"results\.json has no linear accuracy; delete .* and type `bingo run digits` again"),
    "other weights": (other_weights, r"eval knn 0 holds the results of other weights than distill knn 0 made"),
    "other run": (other_run, r"eval knn 0 evaluates runs/none, which no stage trained"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_refused_with_the_old_report_intact(case: str, tmp_path: Path, digits: Path) -> None:
    root = write_recipe(tmp_path, digits, {"no teacher": [(0.5, 0.9, 0.9)], "knn": [(0.6, 0.9, 0.9)]})
    damage, message = DAMAGE[case]
    damage(root)
    (root / "report.html").write_text("old")
    with pytest.raises(UserError, match=message):
        write_report(root, root / "report.html")
    assert (root / "report.html").read_text() == "old"


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_missing_extra_is_named(module: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape("pip install 'bingo-distill[report]'")):
        write_report(root, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
