import shutil
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages, Subset, share_of_classes, subset, workers
from cgh_bench.frozen.selection import hold_out, require_learnable


def images(labels: Any, split: str = "train", classes: tuple[str, ...] = ("a", "b", "c")) -> GreyImages:
    marks = np.array(labels, dtype=np.int64)
    pixels = np.arange(len(marks), dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return GreyImages(f"toy/{split}", classes, marks, f"f{split}", pixels)


FULL = images([0, 1, 2] * 10)


@settings(max_examples=30, deadline=None)
@given(fraction=st.floats(0.1, 0.89), seed=st.integers(0, 99))
def test_the_held_out_part_is_of_every_class_and_none_is_in_both(fraction: float, seed: int) -> None:
    fitted, held = hold_out(FULL, fraction, seed)
    assert sorted([*fitted, *held]) == list(range(30))
    assert set(FULL.labels[held]) == set(FULL.labels[fitted]) == {0, 1, 2}
    assert len(held) == int(np.ceil(fraction * 30))


def test_the_authors_own_split_is_taken_where_there_is_one() -> None:
    fitted, held = hold_out(replace(FULL, held_out=np.array([4, 2])), 0.5, 0)
    assert held.tolist() == [2, 4]
    assert len(fitted) == 28


@pytest.mark.parametrize(
    ("train", "fraction", "message"),
    [
        (images([0, 0, 1, 1]), 0.5, "class 'c' has 0 train images"),
        (images([0, 0, 1, 1, 2]), 0.5, "class 'c' has 1 train images; at least two"),
        (FULL, 0.01, r"held_out=0.01 of the 30 images .*--set held_out=0.5 always works"),
        (FULL, 0.99, "leaves fewer than one"),
    ],
)
def test_what_cannot_be_held_out(train: GreyImages, fraction: float, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        hold_out(train, fraction, 0)
    assert "\n" not in str(caught.value)


@given(counts=st.lists(st.integers(2, 5), min_size=2, max_size=9))
def test_what_the_message_advises_fits(counts: list[int]) -> None:
    """Two digits of the bounds did not."""
    train = images(np.repeat(range(len(counts)), counts), classes=tuple(map(str, range(len(counts)))))
    fitted, held = hold_out(train, 0.5, 0)
    assert set(train.labels[held]) == set(train.labels[fitted]) == set(range(len(counts)))


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (images([0, 1]), images([0, 2], "val"), r"1 classes of toy/val have no image in toy/train \(first: 'c'\)"),
        (images([[0, 1, 1]]), images([[1, 0, 0]]), "multi-label"),
    ],
)
def test_splits_that_do_not_fit(train: GreyImages, val: GreyImages, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        require_learnable(train, val)
    assert "\n" not in str(caught.value)


def test_a_class_that_only_train_has_is_no_fault() -> None:
    require_learnable(images([0, 1, 2]), images([0, 0], "val"))


def test_a_share_is_of_every_class() -> None:
    rows = share_of_classes(FULL, 0.2, 0)
    assert np.bincount(FULL.labels[rows]).tolist() == [2, 2, 2]
    assert rows.tolist() != share_of_classes(FULL, 0.2, 1).tolist()
    assert len(share_of_classes(FULL, 0.001, 0)) == 3
    assert share_of_classes(FULL, 1.0, 0).tolist() == list(range(30))


def test_a_subset_is_its_images_with_a_fingerprint_of_its_own() -> None:
    rows = np.array([5, 1])
    for part in (subset(FULL, rows, "some"), Subset("p", FULL.classes, FULL.labels[rows], FULL, rows)):
        assert [int(part.image(i)[0, 0, 0]) for i in range(2)] == [5, 1]
        assert part.labels.tolist() == [2, 1]
    prints = {subset(FULL, np.array(rows), "some").fingerprint for rows in ([5, 1], [1, 5], [1])}
    assert len({*prints, FULL.fingerprint}) == 4


@dataclass
class Files:
    name: str = "photos"
    in_memory: bool = False


def test_loaders_have_no_more_processes_than_shared_memory_takes(capsys: pytest.CaptureFixture[str]) -> None:
    free = shutil.disk_usage("/dev/shm").free
    assert workers(Files(), 1, 9) >= 1 and not capsys.readouterr().err
    assert workers(Files(), free // 3 - 2**20, 9) == 1
    assert workers(Files(), free, 9) == 0
    assert "/dev/shm" in capsys.readouterr().err
    assert workers(FULL, free, 9) == 0 and not capsys.readouterr().err
