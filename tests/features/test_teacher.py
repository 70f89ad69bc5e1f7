"""Networks of others as teachers: heads from principal components, from a seed, and their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.config import DistillConfig, KeysConfig, TeacherConfig
from bingo.errors import UserError
from bingo.features.extract import load_features
from bingo.features.teacher import orthogonal, principal_components
from bingo.files import read_sealed
from bingo.flags import stage_of
from bingo.models import Encoder, load_encoder, save_encoder
from bingo.models.heads import Head
from bingo.stages import Stage, run_stage
from tests.support.cached_keys import ALONE, SMALL
from tests.support.ranks import finish, start_ranks


def make(**settings: object) -> tuple[Encoder, str]:
    config = TeacherConfig(**{"augment": SMALL, **settings})  # type: ignore[arg-type]
    run_stage(Stage("teacher", "teacher", config))
    return load_encoder(config.out)


def test_principal_components_are_those_of_a_singular_value_decomposition() -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 6)) @ np.diag([5, 4, 3, 2, 1, 0.5]) + 7
    mean, components, variances = principal_components(rows)
    _, values, expected = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(variances, values**2 / len(rows), rtol=1e-9)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(components.abs(), np.abs(expected), atol=1e-9)
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()


def test_keys_are_the_principal_components_of_the_features(
    digits: Path, teacher: Path, bags: Path, tmp_path: Path
) -> None:
    """Their content hash is the network's own, so bags of its features are bags of the teacher: distillation runs."""
    features = bags.parent / "features"
    own, content = load_encoder(teacher)
    plain, same = make(model=teacher, out=tmp_path / "pca", head="pca", features=features, dim=8)
    assert (same, plain.form, plain.name) == (content, Head("L", (8,)), own.name)
    rows = torch.from_numpy(load_features(features, ALONE)[0].astype(np.float64))
    mean, components, variances = principal_components(rows.numpy())
    keys = plain.head.double()(rows)
    torch.testing.assert_close(keys, (rows - mean) @ components[:8].T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(keys.var(0, correction=0), variances[:8], rtol=1e-3, atol=1e-9)
    record = read_sealed(tmp_path / "pca" / "teacher.json")
    assert record["from"] == content
    assert record["variance"] == pytest.approx(float(variances[:8].sum() / variances.sum()), abs=1e-6)
    white, _ = make(model=teacher, out=tmp_path / "white", head="pca", features=features, dim=8, whiten=True)
    torch.testing.assert_close(
        white.head.double()(rows).var(0, correction=0), torch.ones(8).double(), rtol=1e-3, atol=0
    )

    words = f"--data {digits / 'train'} --teacher {tmp_path / 'pca'} --bags {bags} --out {tmp_path / 'student'} "
    words += "--student tiny --objective paper --contrast.dim 8 --contrast.hidden 16 --contrast.queue 100 "
    words += "--optim.epochs 1 --optim.batch 512 --runtime.threads 1"
    stage = stage_of("distill", words.split())
    assert stage.config.augment.size == 16, "images are seen as the teacher's network sees them"
    run_stage(stage)
    assert load_encoder(tmp_path / "student")[0].dim == 8


def test_orthogonal_directions_are_a_function_of_the_seed(teacher: Path, tmp_path: Path) -> None:
    first, content = make(model=teacher, out=tmp_path / "a", head="orthogonal", dim=5, seed=3)
    weight = first.head.state_dict()["0.weight"]
    torch.testing.assert_close(weight @ weight.T, torch.eye(5), rtol=0, atol=1e-6)
    assert torch.equal(weight, orthogonal(5, first.feature_dim, 3))
    assert not torch.equal(weight, orthogonal(5, first.feature_dim, 4))
    assert content == load_encoder(teacher)[1]


def test_its_own_head_stays(teacher: Path, tmp_path: Path) -> None:
    found, content = make(model=teacher, out=tmp_path / "own")
    own, hashed = load_encoder(teacher)
    assert (found.form, content) == (own.form, hashed)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(found.eval()(images), own.eval()(images))


def test_what_cannot_be_made(digits: Path, teacher: Path, bags: Path, config: DistillConfig, tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "model.pt"
    bare.parent.mkdir()
    torch.manual_seed(0)
    save_encoder(bare, Encoder("tiny-8", head=Head()))
    features, out = bags.parent / "features", tmp_path / "out"
    headless = r"bare/model.pt has no projection head to give keys: make a teacher of it with `bingo teacher --model "
    for settings, told in (
        ({"model": bare}, headless),
        (
            {"model": bare, "head": "pca", "features": features, "dim": 8},
            "holds features of another network than .*bare",
        ),
        (
            {"model": teacher, "head": "pca", "features": features, "dim": 64},
            "--dim 64 is more than the 32 features of",
        ),
        ({"model": teacher, "head": "orthogonal", "dim": 33}, "--dim 33 is more than the 32 features of"),
        (
            {"model": teacher, "head": "pca", "features": features, "arch": "tiny"},
            "--arch is for checkpoints of others",
        ),
    ):
        with pytest.raises(UserError, match=told):
            make(out=out, **settings)
    with pytest.raises(UserError, match=r"--head pca needs features: give --features DIR \(made by `bingo features`\)"):
        TeacherConfig(model=teacher, out=out, head="pca")
    with pytest.raises(UserError, match=headless):
        run_stage(Stage("keys", "keys", KeysConfig(digits / "train", bare, tmp_path / "keys", augment=SMALL)))
    with pytest.raises(UserError, match=headless):
        run_stage(Stage("distill", "distill", replace(config, keys=None, teacher=bare, out=tmp_path / "student")))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--model m --out o --head pac", "--head: 'pac' is not allowed; did you mean 'pca'?"),
        ("--model m --out o --dim 64", "--dim is used with --head pca or orthogonal only: leave it out"),
        ("--model m --out o --head orthogonal --whiten", "--whiten is used with --head pca only: leave it out"),
        ("--model m --out o --head pca --seed 1 --features f", "--seed is used with --head orthogonal only"),
        ("--out o", "missing: --model"),
        (
            "--model m --out o --head orthogonal --dim 0",
            "dim=0 is not allowed: it must be between 1 and 8192",
        ),
    ],
)
def test_wrong_words(words: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        stage_of("teacher", words.split())
    assert told in str(caught.value)


# A rank whose node has other files than the rest under the same names.
RANK = """
import os, sys
from pathlib import Path
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.errors import UserError
from bingo.features.alike import load_same
os.chdir(Path(sys.argv[1], os.environ["RANK"]))
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
with world(Runtime(device="cpu", threads=1)) as peers:
    try:
        print(load_same(Path("model.pt"), 16, peers, head=True)[1])
    except UserError as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
def test_a_rank_that_sees_another_head_of_the_same_network(teacher: Path, tmp_path: Path) -> None:
    """Both files have the content hash of the network that they were made of."""
    found = [make(model=teacher, out=tmp_path / "made" / s, head="orthogonal", dim=8, seed=int(s)) for s in "01"]
    assert found[0][1] == found[1][1]
    for rank in "01":
        (tmp_path / rank).mkdir()
        (tmp_path / rank / "model.pt").write_bytes((tmp_path / "made" / rank / "model.pt").read_bytes())
    results = finish(start_ranks([tmp_path], 2, ("-c", RANK)))
    assert [code for code, _ in results] == [0, 0], results
    for _, text in results:
        told = text.splitlines()[-1]
        assert told.startswith("TransientError: the ranks do not see the same: the head of model.pt is "), text


def test_features_are_the_keys_of_a_teacher_without_a_head(teacher: Path, digits: Path, tmp_path: Path) -> None:
    """A network that has no head is refused as it is, and taken once `bingo teacher` has said so."""
    own, content = load_encoder(teacher)
    bare, same = make(model=teacher, out=tmp_path / "bare", head="none")
    assert (same, bare.form, bare.dim) == (content, Head(), own.feature_dim)
    images = torch.rand(4, 3, 16, 16)
    bare.eval(), own.eval()
    with torch.no_grad():
        torch.testing.assert_close(bare(images), torch.nn.functional.normalize(own.features(images), dim=1))
    keys = KeysConfig(digits / "train", tmp_path / "bare", tmp_path / "keys", views=1, augment=SMALL)
    assert run_stage(Stage("keys", "keys", keys))["figures"]["dim"] == own.feature_dim
    with pytest.raises(UserError, match="has no projection head to give keys"):
        run_stage(Stage("keys", "keys", replace(keys, teacher=tmp_path / "bare" / "model.pt", out=tmp_path / "other")))
