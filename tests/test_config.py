"""Settings of each stage: what does not go together is one sentence."""

from pathlib import Path
from typing import Any

import pytest

from bingo.config import BagsConfig, DistillConfig, KeysConfig
from bingo.errors import UserError

pytestmark = pytest.mark.quick


def test_knn_bags_need_features() -> None:
    with pytest.raises(UserError, match="knn bags need features: give --features DIR"):
        BagsConfig(data=Path("d"), out=Path("o"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "keys come from a teacher or from a cache, neither is given: set --teacher or --keys"),
        ({"teacher": Path("t"), "keys": Path("k")}, "both are given: set --teacher or --keys"),
        (
            {"keys": Path("k"), "objective": "coss"},
            "objective=coss needs the lengths .*: set --teacher instead of --keys",
        ),
        ({"teacher": Path("t"), "cached_negatives": "cache"}, "cached-negatives=cache needs cached keys: set --keys"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DistillConfig(data=Path("d"), out=Path("o"), bags=Path("b"), **settings)


@pytest.mark.parametrize("views", [0, 257])
def test_views_have_bounds(views: int) -> None:
    with pytest.raises(UserError, match=f"views={views} is not allowed: it must be between 1 and 256"):
        KeysConfig(data=Path("d"), teacher=Path("t"), out=Path("o"), views=views)


FEATURES = {"features": Path("f")}
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no features": ({}, "knn bags need features: give --features DIR"),
    "label by triton": ({"kind": "label", "engine": "triton"}, "--engine triton is for knn bags, not for label bags"),
    "random by faiss": ({"kind": "random", "engine": "faiss"}, "--engine faiss is for knn bags, not for random bags"),
    "k-means by triton": ({"kind": "kmeans", "engine": "triton", **FEATURES}, "--engine triton is for knn bags"),
    "k-means and lists": (
        {"kind": "kmeans", "index": "ivf", **FEATURES},
        "--index ivf is for knn bags, not for kmeans",
    ),
    "collapsed labels": ({"kind": "label", "duplicates": "collapse"}, "--duplicates collapse is for knn bags"),
    "lists by triton": ({"engine": "triton", "index": "ivf", **FEATURES}, "--index ivf is faiss's: leave out --engine"),
    "lists of an exact search": ({"nprobe": 3, **FEATURES}, "--nlist and --nprobe are settings of inverted lists"),
    "more probes than lists": ({"index": "ivf", "nlist": 4, "nprobe": 5, **FEATURES}, "--nprobe 5 is more than the 4"),
    "negative lists": ({"index": "ivf", "nlist": -1, **FEATURES}, "nlist=-1 is not allowed: it must be between 0 and"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_combinations(case: str) -> None:
    settings, message = WRONG[case]
    with pytest.raises(UserError, match=message) as caught:
        BagsConfig(data=Path("d"), out=Path("o"), **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
