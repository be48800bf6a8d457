"""`animal_scenes`: what its generator promises, and that its files are what the frameworks read."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from cgh_bench.core.errors import UserError
from cgh_bench.data.demo import composition, scenes
from cgh_bench.data.demo.composition import Scene, SceneSettings, compose, contrast, tidy
from cgh_bench.data.demo.photographs import FOLDERS, PHOTOGRAPHS, photographs
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.demo.silhouettes import CLASSES, silhouettes

FEW = SceneSettings(train_scenes=20, val_scenes=20)
GOLDEN_FEW = "90dc2c18f572b1f3"
GOLDEN_ALL = "9544d3fa9ec3c5fe"


@pytest.fixture(scope="module")
def composed() -> dict[str, list[Scene]]:
    return {split: list(compose(split, FEW)) for split in ("train", "val")}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "set", FEW)


def every(composed: dict[str, list[Scene]]) -> list[Scene]:
    return composed["train"] + composed["val"]


def test_each_number_of_animals_and_each_class_occurs_equally_often(composed):
    for split in composed.values():
        assert np.bincount([len(scene.labels) for scene in split]).tolist() == [0, 5, 5, 5, 5]
        assert np.bincount(np.concatenate([scene.labels for scene in split])).tolist() == [5] * 10


def test_every_animal_stands_out(composed):
    """Measured apart from the code: how far the two pixels outside the visible outline are from the mean inside.

    Pixel by pixel: a dark ground on one side and a bright neighbour on the other may have any mean.
    """
    for scene in every(composed):
        for number, mask in enumerate(scene.masks(), start=1):
            assert contrast(scene, number) >= FEW.min_contrast
            inside = mask & ~ndimage.binary_erosion(mask, iterations=2)
            outside = ndimage.binary_dilation(mask, iterations=2) & ~mask
            colour = scene.image[inside].astype(float).mean(0)
            assert np.linalg.norm(scene.image[outside] - colour, axis=1).mean() > FEW.min_contrast / 2


def test_every_animal_is_large_whole_and_without_specks(composed):
    for scene in every(composed):
        assert scene.masks().any(0).sum() == (scene.owner > 0).sum()
        for mask in scene.masks():
            assert mask.sum() >= FEW.min_visible_pixels
            parts, count = ndimage.label(mask, np.ones((3, 3)))
            areas = np.bincount(parts.ravel())[1:]
            assert count >= 1
            assert areas.min() >= FEW.min_part * areas.max()


def test_scenes_differ(composed):
    assert len({scene.image.tobytes() for scene in every(composed)}) == 40


def test_contrast_is_the_distance_of_colours_to_the_nearest_neighbour():
    owner = np.zeros((40, 40), np.uint8)
    owner[10:30, 10:20] = 1
    owner[10:30, 20:30] = 2
    colours = np.array([[0, 0, 0], [90, 0, 0], [90, 40, 0]], np.uint8)
    scene = Scene(colours[owner], owner, np.array([0, 1]))
    assert contrast(scene, 1) == pytest.approx(40)
    assert contrast(Scene(colours[np.minimum(owner, 1)], np.minimum(owner, 1), np.array([0])), 1) == pytest.approx(90)


def test_tidy_drops_specks_and_keeps_what_is_large():
    mask = np.zeros((20, 20), bool)
    mask[2:8, 2:8] = mask[12:16, 12:16] = mask[18, 1] = True
    kept = tidy(mask, 0.1)
    assert kept[2:8, 2:8].all()
    assert kept[12:16, 12:16].all()
    assert not kept[18, 1]
    assert tidy(mask, 0.9).sum() == 36


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(SceneSettings) if "_scenes" not in f.name])
def test_every_setting_changes_the_scenes(field: str):
    few = SceneSettings(val_scenes=6)
    value = getattr(few, field)
    stricter = {"min_visible_share": 0.99, "min_visible_pixels": 500, "min_part": 0.5, "min_contrast": 120.0}
    loose = dataclasses.replace(few, min_visible_share=0.3, max_hole=0.2, min_contrast=10.0)
    other = stricter.get(field, (value[0] + 5, value[1] - 5) if isinstance(value, tuple) else type(value)(value * 0.6))
    start = loose if field in ("min_visible_pixels", "min_part", "max_hole") else few
    changed = compose("val", dataclasses.replace(start, **{field: other}))
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(compose("val", start), changed, strict=False))


def test_boxes_are_the_extents_of_the_masks_and_masks_decode_to_the_scenes(written, composed):
    """To those of another time: scenes are always the same."""
    for split, expected in composed.items():
        coco = COCO(str(written / split / "annotations.json"))
        assert [category["name"] for category in coco.loadCats(range(1, 11))] == list(CLASSES)
        assert len(coco.imgs) == len(expected)
        for image, scene in zip(coco.loadImgs(sorted(coco.imgs)), expected, strict=True):
            annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
            assert [a["category_id"] for a in annotations] == (scene.labels + 1).tolist()
            stored = np.asarray(Image.open(written / split / "images" / image["file_name"]))
            assert np.array_equal(stored, scene.image)
            for annotation, mask in zip(annotations, scene.masks(), strict=True):
                assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
                compressed = coco.annToRLE(annotation)
                assert annotation["area"] == coco_mask.area(compressed) == mask.sum()
                assert annotation["bbox"] == coco_mask.toBbox(compressed).tolist()
                assert annotation["iscrowd"] == 0


def test_semantic_maps_agree_with_the_instances(written):
    for split in ("train", "val"):
        coco = COCO(str(written / split / "annotations.json"))
        for image in coco.imgs.values():
            stored = Image.open(written / split / "masks" / image["file_name"])
            assert stored.mode == "L"
            expected = np.zeros((128, 128), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
                expected[coco.annToMask(annotation) > 0] = annotation["category_id"]
            assert np.array_equal(np.asarray(stored), expected)


def test_meta_says_what_it_is(written):
    meta = json.loads((written / "meta.json").read_text())
    assert meta["name"] == "animal_scenes"
    assert meta["fingerprint"] == GOLDEN_FEW
    assert meta["classes"] == list(CLASSES)
    assert meta["counts"]["val"] == {"scenes": 20, "animals": dict.fromkeys(CLASSES, 5)}
    assert {p["file"] for p in meta["sources"]["photographs"]} == {p.file for p in PHOTOGRAPHS}
    assert "MIT" in meta["sources"]["silhouettes"]


@pytest.mark.slow
def test_the_whole_set_is_pinned(tmp_path):
    meta = json.loads((write_scenes(tmp_path / "set") / "meta.json").read_text())
    assert meta["fingerprint"] == GOLDEN_ALL
    assert meta["counts"]["train"] == {"scenes": 1500, "animals": dict.fromkeys(CLASSES, 375)}


TINY = SceneSettings(train_scenes=2, val_scenes=1)


def test_a_complete_set_is_used_again_and_a_damaged_or_other_one_made_anew(tmp_path, monkeypatch):
    out = write_scenes(tmp_path / "set", TINY)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    write_scenes(out, TINY)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    good = (out / "val/images/000001.png").read_bytes()
    (out / "val/images/000001.png").write_bytes(good[:-9])
    write_scenes(out, TINY)
    assert (out / "val/images/000001.png").read_bytes() == good
    (out / "train/masks/000002.png").unlink()
    write_scenes(out, TINY)
    assert (out / "train/masks/000002.png").exists()
    write_scenes(out, dataclasses.replace(TINY, seed=9))
    assert (out / "val/images/000001.png").read_bytes() != good
    monkeypatch.setattr(scenes, "GENERATOR_VERSION", scenes.GENERATOR_VERSION + 1)
    inode = (out / "meta.json").stat().st_ino
    write_scenes(out, dataclasses.replace(TINY, seed=9))
    assert (out / "meta.json").stat().st_ino != inode
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_used_and_a_foreign_one_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    assert (write_scenes(tmp_path / "empty", TINY) / "meta.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"mine contains files other"):
        write_scenes(tmp_path / "mine", TINY)
    assert (tmp_path / "mine/thesis.tex").read_text() == "x"
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file contains files other"):
        write_scenes(tmp_path / "file", TINY)


def test_several_who_start_together_make_the_scenes_once(tmp_path, monkeypatch):
    made = []
    plain = scenes._write_split
    monkeypatch.setattr(
        scenes, "_write_split", lambda folder, content: made.append(folder.name) or plain(folder, content)
    )
    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(lambda _: write_scenes(tmp_path / "set", TINY), range(3)))) == 1
    assert sorted(made) == ["train", "val"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "_meta", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "set", TINY)
    assert list(tmp_path.iterdir()) == []


def test_no_photograph_is_in_both_splits_and_each_has_a_licence():
    files = {split: {p.file for p in PHOTOGRAPHS if p.split == split} for split in ("train", "val")}
    assert not files["train"] & files["val"]
    assert len({p.sha256 for p in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    assert len(files["val"]) >= 3
    accepted = {"CC0", "CC BY 2.0", "public domain", "no known copyright restrictions"}
    assert {p.licence for p in PHOTOGRAPHS} <= accepted
    assert all(p.source and p.package in FOLDERS for p in PHOTOGRAPHS)


def test_every_photograph_is_listed_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    for photograph in PHOTOGRAPHS:
        row = next(line for line in page.splitlines() if f"`{photograph.file}`" in line)
        assert photograph.split in row
        assert photograph.licence in row
        assert photograph.source in row


def test_scenes_use_the_photographs_and_silhouettes_of_their_split_only(monkeypatch):
    asked = set()
    for name, function in (("photographs", photographs), ("silhouettes", silhouettes)):
        monkeypatch.setattr(
            composition, name, lambda split, name=name, function=function: asked.add((name, split)) or function(split)
        )
    list(compose("val", TINY))
    assert asked == {("photographs", "val"), ("silhouettes", "val")}


def test_photographs_are_large_enough_and_a_changed_one_is_refused(monkeypatch):
    for split in ("train", "val"):
        assert all(min(p.size) >= 2 * FEW.side for p in photographs(split))
    other = dataclasses.replace(PHOTOGRAPHS[0], sha256="0" * 64)
    monkeypatch.setattr("cgh_bench.data.demo.photographs.PHOTOGRAPHS", (other,))
    with pytest.raises(UserError, match=r"astronaut\.png is not the expected image.*pip install"):
        photographs.__wrapped__("train")
