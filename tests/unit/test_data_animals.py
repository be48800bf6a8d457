"""`animals`: pinned content, the promises of its generator, and that every number of it counts."""

import dataclasses

import numpy as np
import pytest
import torch

from cgh_bench.core.errors import UserError
from cgh_bench.data import catalog, load
from cgh_bench.data.demo import animals as module
from cgh_bench.data.demo.animals import SETTINGS, AnimalsSettings, animals, render
from cgh_bench.data.demo.silhouettes import CLASSES, Silhouettes, silhouettes

GOLDEN = {"train": "adbb5b8c8c595a39", "val": "645e7687ba90ca30"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_content_is_pinned(split):
    """Results carry this fingerprint: when it changes, old numbers are of another data set."""
    images = load("animals", split)
    assert images.fingerprint == GOLDEN[split]
    assert images.name == f"animals/{split}"
    assert images.classes == CLASSES
    assert len(images) == {"train": 7716, "val": 2000}[split]
    assert images.pixels.nbytes < 40e6


def test_an_image_is_rgb_and_grey():
    image = load("animals", "val").image(7)
    assert image.shape == (3, 48, 48)
    assert image.dtype == torch.uint8
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    image[:] = 0  # a user's own copy
    assert load("animals", "val").image(7).any()


def test_the_ground_is_the_same_constant_in_every_image():
    """No image can be told from another by its ground: nothing but the animal differs from one grey level."""
    pixels = load("animals", "val").pixels
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    assert (np.median(border, axis=1) == SETTINGS.ground).all()
    assert pixels.min() == SETTINGS.ground


def test_every_animal_is_bright_and_mostly_inside():
    pixels, shapes = load("animals", "val").pixels, silhouettes("val").images
    assert pixels.reshape(len(pixels), -1).max(1).min() > SETTINGS.ground + 100
    expected = (shapes > 127).mean((1, 2)) * SETTINGS.size[0] ** 2
    assert ((pixels > SETTINGS.ground + 30).mean((1, 2)) > 0.6 * expected).all()


def plain(**changes: object) -> AnimalsSettings:
    """Settings that do nothing: as large as the picture, upright, not shaded."""
    still = {"size": (1.0, 1.0), "stretch": 1.0, "outside": 0.0, "rotation_degrees": 0.0, "mirrored": 0.0}
    return AnimalsSettings(**{**still, "level": (1.0, 1.0), "ground": 0, "relief": 0.0, "side": 28, **changes})


MIDDLE = np.full(7, 0.5)


def test_without_changes_a_picture_is_the_silhouette():
    silhouette = silhouettes("val").images[0]
    assert np.abs(render(silhouette, MIDDLE, plain()).astype(int) - silhouette).max() <= 1


def test_mirrored():
    silhouette = silhouettes("val").images[0]
    picture = render(silhouette, MIDDLE, plain(mirrored=1.0))
    assert np.abs(picture.astype(int) - silhouette[:, ::-1]).max() <= 1


def extent(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Middle (x, y), width and height of what is bright."""
    rows, columns = np.flatnonzero((picture > 127).any(1)), np.flatnonzero((picture > 127).any(0))
    return (
        (columns[0] + columns[-1]) / 2,
        (rows[0] + rows[-1]) / 2,
        columns[-1] - columns[0] + 1,
        rows[-1] - rows[0] + 1,
    )


def test_poses_do_what_their_names_say():
    square = np.zeros((28, 28), np.uint8)
    square[7:21, 7:21] = 255
    assert extent(render(square, MIDDLE, plain(side=112))) == (55.5, 55.5, 56, 56)
    assert extent(render(square, MIDDLE, plain(side=112, size=(0.5, 0.5)))) == (55.5, 55.5, 28, 28)
    corner = np.array([0.5, 0.5, 0.0, 1.0, 0.5, 0.5, 0.5])
    x, y, *_ = extent(render(square, corner, plain(side=112, size=(0.5, 0.5))))
    assert (x, y) == (27.5, 83.5)
    wide = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0])
    *_, width, height = extent(render(square, wide, plain(side=112, stretch=1.44)))
    assert (width, height) == pytest.approx((56 * 1.2, 56 / 1.2), abs=1.5)
    turned = render(square, np.array([0.5, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]), plain(side=112, rotation_degrees=45.0))
    # One pixel of the silhouette is four here: the resampling rounds the corners off by up to that.
    assert extent(turned)[2:] == pytest.approx((56 * 2**0.5, 56 * 2**0.5), abs=4)
    assert (turned > 127).sum() == pytest.approx(56 * 56, rel=0.02)


def test_the_rim_is_darker_than_the_inside():
    square = np.zeros((28, 28), np.uint8)
    square[4:24, 4:24] = 255
    picture = render(square, MIDDLE, plain(relief=0.4))
    assert picture[14, 14] > picture[14, 5] + 20
    assert picture[0, 0] == 0


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(AnimalsSettings)])
def test_every_setting_changes_the_images(field: str, monkeypatch: pytest.MonkeyPatch):
    few = Silhouettes(silhouettes("val").images[:20], silhouettes("val").labels[:20])
    monkeypatch.setattr(module, "silhouettes", lambda split: few)
    value = getattr(SETTINGS, field)
    other = tuple(0.9 * v for v in value) if isinstance(value, tuple) else type(value)(value * 2)
    changed = animals.__wrapped__("val", dataclasses.replace(SETTINGS, **{field: other}))
    assert changed.fingerprint != animals.__wrapped__("val", SETTINGS).fingerprint


def test_the_catalogue_has_both_sets():
    entries = catalog()
    assert {name: entry.kind for name, entry in entries.items()}.items() >= {
        ("animals", "classification"),
        ("animal_scenes", "detection"),
    }
    assert all(entry.description and entry.source for entry in entries.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("animal", "unknown dataset 'animal'; did you mean animals"),
        ("animal_scenes", "images for detection, not class labels"),
        ("no/such/folder", "no folder 'no/such/folder'; expected one with train/CLASS/"),
    ],
)
def test_other_names(name: str, message: str):
    with pytest.raises(UserError, match=message):
        load(name, "train")


def test_another_split():
    with pytest.raises(UserError, match="unknown split 'test'; known: train, val"):
        load("animals", "test")


@pytest.mark.filterwarnings("error")
def test_labels_become_tensors_without_a_warning():
    assert torch.from_numpy(load("animals", "val").labels).dtype == torch.int64
