"""The silhouettes: read without running code, deduplicated, split so that nothing nearly equal is in both splits."""

import gzip
import hashlib
import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cgh_bench.core.errors import UserError
from cgh_bench.core.pickles import unpickle_numpy
from cgh_bench.data.demo import silhouettes as module
from cgh_bench.data.demo.silhouettes import CLASSES, read, silhouettes

SPEC = importlib.util.spec_from_file_location(
    "silhouette_split", Path(__file__).parents[2] / "tools" / "silhouette_split.py"
)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def hashes(images: np.ndarray) -> set[bytes]:
    return {hashlib.sha256(image.tobytes()).digest() for image in images}


def test_the_package_is_what_the_documentation_says():
    images, labels = read()
    assert images.shape == (10000, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [1000] * 10
    assert len(hashes(images)) == 10000 - 284


def test_the_stored_split_is_what_the_tool_makes():
    assert tool.split() == module.SPLIT_FILE.read_text(encoding="ascii")


def test_no_silhouette_twice_and_none_in_both_splits():
    train, val = silhouettes("train"), silhouettes("val")
    assert (len(train.images), len(val.images)) == (7716, 2000)
    assert len(hashes(train.images) | hashes(val.images)) == 9716
    assert np.bincount(val.labels).tolist() == [200] * 10
    assert np.bincount(train.labels, minlength=len(CLASSES)).min() > 600


def test_every_unique_silhouette_keeps_its_label():
    images, labels = read()
    given = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for split in ("train", "val"):
        chosen = silhouettes(split)
        assert [given[image.tobytes()] for image in chosen.images] == chosen.labels.tolist()


def test_no_near_duplicate_is_in_both_splits():
    """Counted apart from the code: any train silhouette, of any class, against a sample of val, as is and mirrored."""
    train = (silhouettes("train").images > 127).reshape(7716, -1).astype(np.float32)
    val = silhouettes("val").images[::8] > 127
    masks = np.concatenate([val, val[:, :, ::-1]]).reshape(500, -1).astype(np.float32)
    shared = train @ masks.T
    assert (shared / (train.sum(1)[:, None] + masks.sum(1) - shared)).max() < tool.NEAR_DUPLICATE_IOU


def test_near_duplicates_are_grouped_also_when_mirrored_or_moved_or_in_a_chain(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    first = np.zeros((28, 28), np.uint8)
    first[5:20, 4:18] = 255
    first[8:12, 18:22] = 255
    mirrored, moved, other = first[:, ::-1].copy(), np.roll(first, (1, -1), (0, 1)), rng.permutation(first.ravel())
    touched = moved.copy()
    touched[6, 6:12] = 0
    images = np.stack([first, other.reshape(28, 28), mirrored, moved, touched])
    groups = tool.near_duplicate_groups(images, np.zeros(5, np.int64))
    assert len({groups[i] for i in (0, 2, 3, 4)}) == 1
    assert groups[1] != groups[0]
    assert len(set(tool.near_duplicate_groups(images, np.arange(5)))) == 5
    monkeypatch.setattr(tool, "NEAR_DUPLICATE_IOU", 0.999)
    groups = tool.near_duplicate_groups(images, np.zeros(5, np.int64))
    assert groups[0] == groups[2] == groups[3] != groups[4]


@pytest.mark.parametrize(("name", "value"), [("SPLIT_SEED", 1), ("VAL_PER_CLASS", 100)])
def test_every_number_of_the_split_counts(monkeypatch: pytest.MonkeyPatch, name: str, value: float):
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(0, 2, (600, 7, 7)), np.ones((4, 4))).astype(np.uint8) * 255
    labels = np.arange(600) % 2

    def split() -> list[bool]:
        return tool.choose_val(labels, tool.near_duplicate_groups(images, labels)).tolist()

    before = split()
    monkeypatch.setattr(tool, name, value)
    assert split() != before


def test_the_arrays_cannot_be_changed_by_a_user_of_them():
    with pytest.raises(ValueError, match="read-only"):
        silhouettes("val").images[0] = 0


class Malicious:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def test_a_malicious_pickle_in_place_of_the_data_is_refused_without_running(tmp_path: Path):
    witness = tmp_path / "ran"
    for name in module.SHA256:
        (tmp_path / name).write_bytes(gzip.compress(pickle.dumps(Malicious(witness))))
    with pytest.raises(UserError, match=r"SHA-256 differs.*pip install"):
        read(tmp_path)
    assert not witness.exists()


def test_the_unpickler_alone_refuses_it_too(tmp_path: Path):
    witness = tmp_path / "ran"
    with pytest.raises(UserError, match="mkdir"):
        unpickle_numpy(pickle.dumps(Malicious(witness)), tmp_path)
    assert not witness.exists()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"animal_data_version_3\.gz"):
        read(tmp_path)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install animal-shape-mnist==0.39"):
        read()
