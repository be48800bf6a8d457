"""Random crops beside the untouched images, for the cached linear probe."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_images import toy_data, toy_pair

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair
from cgh_bench.data.transform import AS_IS, Crop, EvalTransform
from cgh_bench.evaluation import protocol_id
from cgh_bench.frozen import search
from cgh_bench.frozen.crops import in_all_views, with_crops
from cgh_bench.frozen.features import extract
from cgh_bench.frozen.metrics import accuracy
from cgh_bench.frozen.selection import Grid, hold_out
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.linear import Linear

CROP = Crop(32, (0.5, 1.0))
TOY = Linear("toy", AS_IS, views=2, crop=CROP)


@pytest.fixture(scope="module")
def backbone() -> Checkpoint:
    return random_checkpoint("resnet18")


def run(task: Linear, backbone: Checkpoint, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return {"metrics": task.run(backbone, toy_data(), Folders(folder, folder / "cache"), 0)} | json.loads(
        (folder / "grid.json").read_text()
    )


def test_the_first_view_is_the_image_and_the_others_are_crops_of_it() -> None:
    images, _ = toy_pair()
    transform = EvalTransform(40, 32)
    views = with_crops(images, transform, CROP, 2)
    assert len(views) == 120
    assert torch.equal(AS_IS(views.image(7)), transform(images.image(7)))
    assert views.labels.tolist() == 3 * images.labels.tolist()
    state = torch.get_rng_state()
    crops = [views.image(index) for index in (47, 87, 48)]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(crop, views.image(index)) for crop, index in zip(crops, (47, 87, 48), strict=True))
    assert not torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], views.image(7))
    assert views.called(87) == "number 7, view 2"


def test_each_setting_is_another_set() -> None:
    images, val = toy_pair()
    made = [
        with_crops(images, AS_IS, CROP, 2),
        with_crops(images, AS_IS, CROP, 3),
        with_crops(images, AS_IS, Crop(32), 2),
        with_crops(images, EvalTransform(40, 32), CROP, 2),
        with_crops(val, AS_IS, CROP, 2),
    ]
    assert len({views.fingerprint for views in made}) == 5


@given(images=st.integers(2, 50), count=st.integers(0, 5), seed=st.integers(0, 9))
def test_no_image_is_on_both_sides_in_any_view(images: int, count: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(images)
    fitted, held = np.sort(order[: images // 2]), order[images // 2 :]
    rows = in_all_views(fitted, images, count)
    assert len(set(rows.tolist())) == len(fitted) * (1 + count)
    assert set((rows % images).tolist()) == set(fitted.tolist())
    assert not set((rows % images).tolist()) & set(held.tolist())


def test_held_out_images_are_held_out_in_all_views_and_val_is_untouched(
    backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    choose = search.choose
    monkeypatch.setattr(search, "choose", lambda *given: (seen.append(given), choose(*given))[1])
    run(replace(TOY, weight_decays=(1e-3, 1e-2)), backbone, tmp_path)
    (train, val, (fitted, held), *_), (images, val_images) = seen[0], toy_pair()
    assert (len(train.features), len(fitted), len(held)) == (120, 108, 4)
    assert held.max() < 40  # judged untouched
    assert not set((fitted % 40).tolist()) & set(held.tolist())
    assert np.array_equal(train.labels[fitted], images.labels[fitted % 40])
    plain = extract(backbone, val_images, AS_IS, "layer4", tmp_path / "other")
    np.testing.assert_array_equal(val.features, plain.features)
    whole = extract(backbone, images, AS_IS, "layer4", tmp_path / "other")
    np.testing.assert_allclose(train.features[:40], whole.features, rtol=1e-4, atol=1e-5)
    assert np.abs(train.features[40:80] - whole.features).max() > 0.01


def test_without_views_nothing_has_changed(backbone: Checkpoint, tmp_path: Path) -> None:
    none = replace(TOY, views=0, weight_decays=(1e-3, 1e-2))
    images, val = toy_pair()
    banks = [extract(backbone, some, AS_IS, "layer4", tmp_path / "cache/features") for some in (images, val)]
    grid = Grid(none.weight_decays, none.iterations, none.tolerance)
    expected = search.choose(*banks, hold_out(images, 0.1, 0), grid, accuracy)
    found = run(none, backbone, tmp_path)
    assert (found["held_out_top1"], found["val_top1"]) == (expected.held_out, expected.val)
    assert len(list((tmp_path / "cache/features").glob("*/features.npy"))) == 2
    assert protocol_id("t", Linear("toy", AS_IS)) == protocol_id("t", Linear("toy", AS_IS, views=0))
    assert len({protocol_id("t", task) for task in (Linear("toy", AS_IS), none, TOY, replace(TOY, views=3))}) == 4


def test_the_plan_counts_the_views(backbone: Checkpoint, tmp_path: Path) -> None:
    lines = TOY.plan(backbone, toy_data(), Folders(tmp_path, tmp_path))
    assert lines[0].startswith("features layer4 of toy/train in 3 views: 120 images, 0.00 GB on disk, up to ")
    assert lines[1].startswith("features layer4 of toy/val: 24 images, ")
    assert lines[2].startswith("fit: 12 classifiers of 512 × 4 on 120 rows, ")
    assert lines[2].endswith("(two fits of at most 300 iterations), at most 16 MB of memory")
    assert not list(tmp_path.iterdir())


def test_a_multi_label_dataset_is_refused() -> None:
    train, val = (replace(images, labels=np.eye(4, dtype=np.int64)[images.labels]) for images in toy_pair())
    for views in (0, 2):
        with pytest.raises(UserError, match="multi-label"):
            replace(TOY, views=views).check(DataPair("several", train, val))


def test_impossible_views(backbone: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="views -1 must not be below 0"):
        replace(TOY, views=-1)
    with pytest.raises(UserError, match=r"^crops of 224x224 pixels do not match images of 32x32; set crop.size"):
        run(replace(TOY, crop=Crop()), backbone, tmp_path)
