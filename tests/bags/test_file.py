"""Drawn bags, the bag file and what it refuses."""

import io
import json

import numpy as np
import pytest

from bingo.bags import file as bags
from bingo.errors import UserError
from tests.support.neighbours import assert_distinct_without_self

pytestmark = pytest.mark.quick


def test_label_bags_are_distinct_members_of_the_class():
    labels = np.random.default_rng(6).integers(3, 9, 400)
    found = bags.label_bags(labels, 7, seed=3)
    assert found.dtype == np.int32
    assert (labels[found] == labels[:, None]).all()
    assert_distinct_without_self(found)


def test_small_class_repeats_its_members_cyclically():
    labels = np.array([0, 1, 0, 1, 0, 0, 0, 0])
    found = bags.label_bags(labels, 6, seed=0)
    assert found[1].tolist() == [3] * 6
    assert found[3].tolist() == [1] * 6
    assert sorted(found[0, :5]) == [2, 4, 5, 6, 7]
    assert found[0, 5] == found[0, 0]
    three = bags.label_bags(np.array([0, 0, 0, 1, 1, 1, 1, 1]), 5, seed=0)[0]
    assert sorted(three[:2]) == [1, 2]
    assert three.tolist() == [three[0], three[1]] * 2 + [three[0]]


def test_draws_depend_on_seed_and_index_only():
    labels = np.repeat([0, 1], 100)
    found = bags.label_bags(labels, 5, seed=9)
    longer = bags.label_bags(np.concatenate([labels, np.repeat([1, 2], 50)]), 5, seed=9)
    assert np.array_equal(longer[:100], found[:100])
    assert not np.array_equal(bags.label_bags(labels, 5, seed=10), found)


def test_random_bags_are_distinct_and_uniform():
    n, k, seeds = 12, 4, 1500
    counts = np.zeros((n, k, n))
    for seed in range(seeds):
        found = bags.random_bags(n, k, seed)
        assert_distinct_without_self(found)
        counts[np.arange(n)[:, None], np.arange(k), found] += 1
    expected = seeds / (n - 1)
    off_diagonal = counts[np.broadcast_to(~np.eye(n, dtype=bool)[:, None], counts.shape)]
    assert np.abs(off_diagonal - expected).max() < 5 * np.sqrt(expected)


def test_random_bags_of_all_other_images_are_permutations():
    found = bags.random_bags(9, 8, seed=2)
    assert np.array_equal(np.sort(found, axis=1), [[j for j in range(9) if j != i] for i in range(9)])


REFUSED = {
    "label k = N": (lambda: bags.label_bags(np.zeros(6, int), 6, 0), "k = 6 is not between 1 and 5"),
    "random k < 0": (lambda: bags.random_bags(6, -1, 0), "k = -1 is not between 1 and 5"),
    "one image": (lambda: bags.random_bags(1, 1, 0), "at least 2 images"),
    "lonely class": (lambda: bags.label_bags(np.array([4, 4, 9, 4]), 2, 0), r"class 9 has one image .*index 2"),
    "float labels": (lambda: bags.label_bags(np.zeros(4), 2, 0), "labels must be N integers"),
    "seed": (lambda: bags.random_bags(6, 2, -1), "seed = -1"),
    "purity length": (lambda: bags.bag_purity(bags.random_bags(6, 2, 0), np.zeros(5, int)), "5 labels for 6 bags"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    call, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


RECORD = {"dataset_hash": "d" * 32, "features_hash": "f" * 32, "teacher_hash": "t" * 32, "engine": "faiss", "seed": 0}
OURS = {"dataset_hash": "d" * 32, "teacher_hash": "t" * 32}


def test_bag_file_round_trip(tmp_path):
    members = bags.random_bags(40, 5, 1)
    content = bags.save_bags(tmp_path / "new" / "bags.npz", members, kind="knn", **RECORD)
    loaded = bags.load_bags(tmp_path / "new" / "bags.npz", **OURS)
    assert np.array_equal(loaded.members, members)
    assert loaded.members.dtype == np.int32
    assert (loaded.kind, loaded.k, loaded.hash) == ("knn", 5, content)
    assert {key: loaded.header[key] for key in RECORD} == RECORD
    assert loaded.header["n"] == 40
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["bags.npz"]


def test_bag_file_bytes_and_hash_follow_the_content(tmp_path):
    members = bags.random_bags(40, 5, 1)
    hashes = {}
    for name, array in {"a": members, "b": members.astype(np.int64), "c": members[:, ::-1]}.items():
        hashes[name] = bags.save_bags(tmp_path / name, array, kind="knn", **RECORD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert hashes["a"] == hashes["b"] != hashes["c"]


def test_bags_of_another_dataset_or_teacher_are_refused(tmp_path):
    for kind in ("knn", "kmeans"):
        path = tmp_path / f"{kind}.npz"
        bags.save_bags(path, bags.random_bags(9, 2, 0), kind=kind, **RECORD)
        with pytest.raises(UserError, match=f"{kind}.npz was made from another dataset"):
            bags.load_bags(path, dataset_hash="e" * 32, teacher_hash="t" * 32)
        with pytest.raises(UserError, match=f"{kind}.npz was made from another teacher"):
            bags.load_bags(path, dataset_hash="d" * 32, teacher_hash="u" * 32)
        assert bags.load_bags(path, dataset_hash="d" * 32, teacher_hash=None).kind == kind


def test_label_and_random_bags_belong_to_the_dataset_only(tmp_path):
    for kind in ("label", "random"):
        path = tmp_path / f"{kind}.npz"
        bags.save_bags(path, bags.random_bags(9, 2, 0), kind=kind, **RECORD)
        assert bags.load_bags(path, dataset_hash="d" * 32, teacher_hash="u" * 32).header["teacher_hash"] is None
        with pytest.raises(UserError, match="another dataset"):
            bags.load_bags(path, dataset_hash="e" * 32, teacher_hash=None)


def test_truncated_files_and_any_damaged_byte_are_refused_or_harmless(tmp_path):
    path = tmp_path / "bags.npz"
    bags.save_bags(path, bags.random_bags(9, 2, 0), kind="knn", **RECORD)
    whole, original = path.read_bytes(), bags.load_bags(path, **OURS)
    damaged = [whole[:length] for length in range(0, len(whole), 9)]
    damaged += [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in range(len(whole))]
    reasons = []
    for data in damaged:
        path.write_bytes(data)
        try:
            loaded = bags.load_bags(path, **OURS)
        except UserError as error:
            reasons.append(str(error))
        else:  # a time stamp or an attribute of the zip container
            assert np.array_equal(loaded.members, original.members)
            assert loaded.header == original.header
    assert all("not a whole bag file" in reason and "\n" not in reason for reason in reasons)
    assert len(reasons) > 0.8 * len(damaged)


def foreign(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def as_text(header: object) -> np.ndarray:
    return np.frombuffer(json.dumps(header).encode(), np.uint8)


def edited(most: int = 8, **changes: object) -> bytes:
    members = bags.random_bags(9, 2, 0)
    members[3, 1] = most
    header = {"format": "bingo-bags", "version": 1, "kind": "knn", "n": 9, "k": 2, "hash": bags._bags_hash(members)}
    return foreign(bags=members, header=as_text({**header, **RECORD, **changes}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a whole bag file"),
        (b"not an archive", "not a whole bag file"),
        (foreign(features=np.zeros(3)), "not a whole bag file"),
        (foreign(bags=np.zeros((3, 2), np.int32), header=np.zeros(4)), "not a whole bag file"),
        (foreign(bags=np.zeros((3, 2), np.int32), header=as_text([1, 2])), "not a whole bag file"),
        (edited(format="other"), "not that of a bag file"),
        (edited(kind="knnn"), "not that of a bag file"),
        (edited(n=10), "header says 10 images"),
        (edited(hash="0" * 32), "content hash"),
        (edited(teacher_hash=None), "names no teacher"),
        (edited(most=9), "indices 0..8, found 0..9"),
        (edited(version=2), "bag format 2, this program reads 1"),
    ],
)
def test_foreign_files_are_refused(tmp_path, data, message):
    (tmp_path / "bags.npz").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        bags.load_bags(tmp_path / "bags.npz", **OURS)
    assert "bags.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"bags.npz does not exist: type `bingo bags`"):
        bags.load_bags(tmp_path / "bags.npz", **OURS)
    with pytest.raises(UserError, match="cannot read the bag file"):
        bags.load_bags(tmp_path, **OURS)


@pytest.mark.parametrize(
    ("members", "changes", "message"),
    [
        (np.zeros((4, 2), np.int32), {"kind": "kmean"}, "did you mean 'kmeans'"),
        (np.zeros((4, 2), np.int32), {"teacher_hash": None}, "depend on the teacher"),
        (np.zeros((4, 2)), {}, "integer N×k array"),
        (np.zeros(4, np.int32), {}, "integer N×k array"),
        (np.zeros((0, 2), np.int32), {}, "integer N×k array"),
        (np.full((4, 2), 4), {}, r"indices 0..3, found 4..4"),
        (np.full((4, 2), -1), {}, r"indices 0..3, found -1..-1"),
    ],
)
def test_unsound_bags_are_not_saved_and_the_old_file_stays(tmp_path, members, changes, message):
    path = tmp_path / "bags.npz"
    bags.save_bags(path, bags.random_bags(9, 2, 0), kind="knn", **RECORD)
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        bags.save_bags(path, members, **{"kind": "knn", **RECORD, **changes})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_purity_and_in_degree():
    members = np.array([[1, 2], [0, 2], [0, 0], [0, 1]], np.int32)
    assert bags.bag_purity(members, np.array([5, 5, 6, 6])) == 2 / 8
    degree = bags.in_degree(members)
    assert degree.tolist() == [4, 2, 2, 0]
    assert degree.dtype == np.int64
