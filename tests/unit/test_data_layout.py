"""The layouts of published data sets, shown on miniatures of them."""

import json
import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data import dense, ground_truth
from cgh_bench.data import layout as data_layout
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.layout import SUBSET, Checked, Layout
from cgh_bench.data.segmented import load_segmented

MAKERS = {
    "coco": miniatures.coco,
    "coco_keypoints": miniatures.coco_keypoints,
    "lvis": miniatures.lvis,
    "voc0712": miniatures.voc,
    "voc2012_aug": miniatures.voc,
    "cityscapes": miniatures.cityscapes,
    "cityscapes_inst": miniatures.cityscapes,
    "ade20k": miniatures.ade20k,
}
ONE_OF_EACH = {  # an image and an annotation of the first part
    "coco": ("train2017/000001.png", "annotations/instances_train2017.json"),
    "coco_keypoints": ("train2017/000001.png", "annotations/person_keypoints_train2017.json"),
    "lvis": ("train2017/000001.png", "annotations/lvis_v1_train.json"),
    "voc0712": ("VOC2007/JPEGImages/train_000001.jpg", "VOC2007/Annotations/train_000001.xml"),
    "voc2012_aug": ("VOC2012/JPEGImages/train_000001.jpg", "VOC2012/SegmentationClass/train_000001.png"),
    "cityscapes": (
        "leftImg8bit/train/zurich/zurich_000000_000001_leftImg8bit.png",
        "gtFine/train/zurich/zurich_000000_000001_gtFine_labelTrainIds.png",
    ),
    "cityscapes_inst": (
        "leftImg8bit/train/zurich/zurich_000000_000001_leftImg8bit.png",
        "gtFine/val/zurich/zurich_000000_000001_gtFine_instanceIds.png",
    ),
    "ade20k": ("images/training/000001.jpg", "annotations/training/000001.png"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """All miniatures below one root."""
    root = tmp_path_factory.mktemp("made")
    scenes = write_scenes(root / "scenes", miniatures.TINY)
    for make in dict.fromkeys(MAKERS.values()):
        make(scenes, root)
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    """A copy, to be broken."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def layout(name: str) -> Layout:
    return dense.layouts()[name]


def look(name: str, root: Path, cache: Path | None = None) -> Checked:
    return data_layout.check(name, layout(name), root, cache)


def check(name: str, root: Path, cache: Path | None = None) -> tuple[str, str]:
    """The fingerprints of train and val of a set that is as it should be."""
    found = look(name, root, cache)
    assert found.problems == []
    return found.train, found.val


def problem(name: str, root: Path) -> str:
    """The one problem of a set."""
    (said,) = look(name, root).problems
    return said


def test_every_layout_has_a_miniature():
    others = {"coco20k"}  # of val alone: see test_tasks_discovery.py
    assert set(MAKERS) == set(ONE_OF_EACH) == set(dense.layouts()) - others


@pytest.mark.parametrize("name", MAKERS)
def test_a_complete_set_has_one_fingerprint(name, made):
    assert check(name, made) == check(name, made)
    assert len({check(other, made) for other in MAKERS}) == len(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_a_set_that_is_absent(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"{name} is not complete: there is no folder {tmp_path}.*to get it, unpack"):
        dense.locate(name, tmp_path)


@pytest.mark.parametrize("kind", [0, 1], ids=["image", "annotation"])
@pytest.mark.parametrize("name", MAKERS)
def test_half_unpacked_or_without_its_counterpart(name, kind, root):
    path = root / layout(name).folder / ONE_OF_EACH[name][kind]
    path.unlink()
    said = look(name, root).problems
    assert len(said) == 1 and path.name in said[0] and "missing" in said[0] and "\n" not in said[0]


@pytest.mark.parametrize("name", MAKERS)
def test_fewer_images_than_published_must_be_meant(name, root):
    (root / layout(name).folder / SUBSET).unlink()
    found = look(name, root)
    assert f"{layout(name).parts[0].count} were published" in found.problems[0] and SUBSET in found.problems[0]
    assert len(found.problems) == len(layout(name).parts) and not found.subset


@pytest.mark.parametrize("name", [n for n, (_, annotation) in ONE_OF_EACH.items() if annotation.endswith("png")])
def test_another_map_is_another_fingerprint(name, root):
    before = check(name, root)
    path = root / layout(name).folder / ONE_OF_EACH[name][1]
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    assert check(name, root) != before


@pytest.mark.parametrize("name", MAKERS)
def test_another_image_of_the_same_name_and_size_is_another_fingerprint(name, root, tmp_path):
    before = check(name, root, tmp_path / "cache")
    path = root / layout(name).folder / ONE_OF_EACH[name][0]
    with Image.open(path) as image:
        pixels = 255 - np.asarray(image)
    Image.fromarray(pixels).save(path)
    after = check(name, root, tmp_path / "cache")
    assert after[0] != before[0] and after[1] == before[1], "val is as it was"


def test_a_map_counts_by_its_pixels_and_a_list_by_its_names(root):
    before = check("voc2012_aug", root)
    path = root / layout("voc2012_aug").folder / ONE_OF_EACH["voc2012_aug"][1]
    with Image.open(path) as image:
        image.save(path, compress_level=0)
    listed = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    listed.write_text("\n".join(reversed(listed.read_text().split())))
    assert check("voc2012_aug", root) == before


def test_another_annotation_is_another_fingerprint(root):
    before = check("coco", root), check("voc0712", root)
    path = root / "coco/annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    path = root / "VOCdevkit/VOC2007/Annotations/val_000001.xml"
    path.write_text(path.read_text().replace("<xmin>", "<xmin>1"))
    after = check("coco", root), look("voc0712", root)
    assert after[0][1] != before[0][1] and after[0][0] == before[0][0], "train is as it was"
    assert after[1].val != before[1][1] and after[1].train == before[1][0]


def test_other_classes(root):
    path = root / "coco/annotations/instances_train2017.json"
    document = json.loads(path.read_text())
    document["categories"] = document["categories"][:-1]
    path.write_text(json.dumps(document))
    assert f"{path} has 79 classes, 80 are expected; they differ in ['toothbrush']" in problem("coco", root)
    path = root / "VOCdevkit/VOC2012/Annotations/train_000003.xml"
    path.write_text(path.read_text().replace("<object><name>", "<object><name>grey ", 1))
    assert f"{path} names the class 'grey " in problem("voc0712", root)


def drop(lists: str, key: str):
    return lambda document: [item.pop(key, None) for item in document[lists]]


@pytest.mark.parametrize(
    ("name", "split", "change", "expected"),
    [
        ("coco_keypoints", "train", drop("annotations", "keypoints"), "annotation 1 has not x, y and visibility of 17"),
        ("coco_keypoints", "val", drop("annotations", "num_keypoints"), "and num_keypoints"),
        (
            "coco_keypoints",
            "val",
            lambda document: [item.update(num_keypoints=0) for item in document["annotations"]],
            "has no keypoint in any of 4 images",
        ),
        ("lvis", "train", drop("images", "neg_category_ids"), "has no coco_url, or no neg_category_ids or not_exh"),
        ("lvis", "train", drop("images", "coco_url"), "image 1 has no coco_url"),
        ("lvis", "train", drop("categories", "frequency"), "category 1 has no name, or no frequency r, c, f"),
        ("lvis", "val", lambda document: document["categories"].pop(), "has 1202 categories; LVIS v1 has 1203"),
        ("lvis", "val", drop("annotations", "segmentation"), "annotation 1 has no polygons"),
        (
            "lvis",
            "val",
            lambda document: [item.update(category_id=1) for item in document["annotations"]],
            "has no object of a rare or frequent class, whose AP is reported",
        ),
    ],
)
def test_what_keypoints_and_lvis_need_beyond_cocos_form(name, split, change, expected, root):
    (part,) = (part for part in layout(name).parts if part.split == split)
    path = root / "coco" / part.annotations
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    said = look(name, root).problems
    assert expected in said[0] and said[0].startswith(str(path)) and "\n" not in said[0]


def test_moved_keypoints_are_other_content(root):
    before, path = check("coco_keypoints", root), root / "coco/annotations/person_keypoints_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["keypoints"][0] += 1
    path.write_text(json.dumps(document))
    after = check("coco_keypoints", root)
    assert after[0] != before[0] and after[1] == before[1]


def test_what_lvis_looked_for_in_an_image_is_content(root):
    before, path = check("lvis", root), root / "coco/annotations/lvis_v1_val.json"
    document = json.loads(path.read_text())
    document["images"][0]["neg_category_ids"].append(9)
    path.write_text(json.dumps(document))
    after = check("lvis", root)
    assert after[0] == before[0] and after[1] != before[1]
    shown = ground_truth.objects("lvis", dense.Located(root, *after))
    assert shown.file is None, "COCO's rules are not LVIS's"
    assert all((shown.images / entry["file_name"]).is_file() for entry in shown.shown)


def test_files_that_are_cut_short(root):
    path = root / "coco/annotations/instances_train2017.json"
    text = path.read_text()
    path.write_text(text[: text.index('"categories"') + 40])
    assert f"{path} is cut short" in problem("coco", root)
    path.write_text(f"{text}\n")
    assert check("coco", root)
    path.write_text("")
    assert f"{path} is missing or empty" in problem("coco", root)
    path = root / "VOCdevkit/VOC2007/Annotations/train_000002.xml"
    path.write_text(path.read_text()[:50])
    assert f"{path} is not valid XML" in problem("voc0712", root)


@pytest.mark.parametrize(
    ("old", "new"),
    [("bndbox", "box"), ("<xmin>", "<xmin>n"), ("<xmin>", "<xmin>nan"), ("ymax", "ymost")],
    ids=["no box", "no number", "nan", "no corner"],
)
def test_objects_without_a_box(old, new, root):
    path = root / "VOCdevkit/VOC2007/Annotations/train_000002.xml"
    path.write_text(path.read_text().replace(old, new))
    for said in look("voc0712", root).problems:
        assert str(path) in said and "xmin, ymin, xmax, ymax" in said and "\n" not in said
    assert look("voc0712", root).problems


SEGMENTED = [("voc2012_aug", 21, 0), ("ade20k", 150, 1), ("cityscapes", 19, 0)]


@pytest.mark.parametrize(("name", "classes", "first"), SEGMENTED)
def test_maps_become_classes(name, classes, first, made, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(made))
    pair = load_segmented(name, tmp_path / "cache")
    assert (len(pair.train), len(pair.val), len(pair.train.classes)) == (8, 4, classes)
    image, truth = pair.val.both(0)
    drawn = np.asarray(Image.open(pair.val.paths[0][1])).astype(int)
    assert image.shape[1:] == truth.shape
    # In ADE20K 0 is no class, and the first class has 1.
    assert (truth == np.where(drawn < first, 255, drawn - first)).all()


def test_a_set_of_boxes_has_no_maps(made, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(made))
    with pytest.raises(UserError, match="voc0712 has no segmentation maps"):
        load_segmented("voc0712", tmp_path / "cache")
