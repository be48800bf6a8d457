"""Drawn pictures: colours where they belong, right and wrong told apart, missing files said."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from reporting import result

from cgh_bench.data import ground_truth
from cgh_bench.site import gallery
from cgh_bench.site.pictures import Instance, colour, data_uri, draw_classes, draw_instances, enlarge

GREY = Image.new("RGB", (32, 32), (100, 100, 100))


def decode(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_a_data_uri_holds_the_picture() -> None:
    image = decode(data_uri(GREY))
    assert image.size == (32, 32)
    assert np.abs(np.asarray(image).astype(int) - 100).max() <= 3


def test_enlarging_is_by_a_whole_factor_and_never_down() -> None:
    assert enlarge(GREY, 60).size == (64, 64)
    assert enlarge(GREY, 20).size == (32, 32)


def test_an_instance_is_drawn_where_it_is() -> None:
    mask = np.zeros((32, 32), bool)
    mask[20:30, 18:28] = True
    drawn = np.asarray(
        draw_instances(GREY, [Instance(1, (18, 20, 10, 10), mask, 0.9, ((22, 24),))], ["cat", "dog"], 128)
    )
    assert drawn.shape == (128, 128, 3)
    assert tuple(drawn[20 * 4, 18 * 4 + 12]) == colour(1)  # the box
    assert tuple(drawn[24 * 4, 22 * 4]) == colour(1)  # the keypoint
    inside = drawn[27 * 4, 25 * 4].astype(float)
    assert inside == pytest.approx(0.55 * 100 + 0.45 * np.array(colour(1)), abs=2)
    assert (drawn[:60, :60] == 100).all()


def test_background_stays_clear_and_classes_get_their_colour() -> None:
    classes = np.zeros((32, 32), np.uint8)
    classes[16:] = 3
    drawn = np.asarray(draw_classes(GREY, classes, 32)).astype(float)
    assert (drawn[:16] == 100).all()
    assert drawn[31, 0] == pytest.approx(0.38 * 100 + 0.62 * np.array(colour(2)), abs=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two images of each in train and val, each image of one grey level."""
    for split in ("train", "val"):
        for number, label in enumerate(("cat", "cat", "dog", "dog")):
            path = tmp_path / "images" / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * number + 20,) * 3).save(path)
    return tmp_path / "images"


def neighbours(root: Path, **arrays: object) -> None:
    given = {"row": [[0, 2]] * 4, "similarity": [[0.9, 0.5]] * 4, "predicted": [0, 0, 0, 1]}
    (root / "run").mkdir()
    np.savez(
        root / "run" / gallery.NEIGHBOURS, **{name: np.array(value) for name, value in {**given, **arrays}.items()}
    )


def test_neighbours_are_right_or_wrong_by_their_class(tmp_path: Path, folder: Path) -> None:
    neighbours(tmp_path)
    notes: list[str] = []
    run = result("a", 50.0, work="run", config={"data": str(folder)})
    cat, dog = gallery.queries([("A", run)], tmp_path, notes)
    assert notes == []
    assert (cat.label, dog.label) == ("cat", "dog")
    (answer,) = cat.answers
    assert (answer.row, answer.right) == ("A", 1)
    first, second = answer.neighbours
    assert (first.label, first.right, first.similarity) == ("cat", True, pytest.approx(0.9))
    assert (second.label, second.right) == ("dog", False)
    assert [neighbour.right for neighbour in dog.answers[0].neighbours] == [False, True]
    assert np.abs(np.asarray(decode(second.picture)).astype(int) - 100).max() <= 3  # train image 2 is of level 100


def test_a_missing_and_a_broken_file_are_said_and_the_rest_shown(tmp_path: Path, folder: Path) -> None:
    neighbours(tmp_path)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / gallery.NEIGHBOURS).write_bytes(b"PK\x03\x04 torn")
    config = {"data": str(folder)}
    runs = [
        (row, result("a", 50.0, work=work, config=config)) for row, work in [("A", "run"), ("B", "gone"), ("C", "torn")]
    ]
    notes: list[str] = []
    (query, _) = gallery.queries(runs, tmp_path, notes)
    assert [answer.row for answer in query.answers] == ["A"]
    assert len(notes) == 2
    assert notes[0].startswith("B: no nearest neighbours")
    assert notes[1].startswith("C: no nearest neighbours")


def test_data_that_are_gone_are_said(tmp_path: Path) -> None:
    neighbours(tmp_path)
    notes: list[str] = []
    run = result("a", 50.0, work="run", config={"data": str(tmp_path / "gone")})
    assert gallery.queries([("A", run)], tmp_path, notes) == []
    assert len(notes) == 1
    assert notes[0].startswith("No nearest neighbours")


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Three images: two objects, none, one object."""
    val = tmp_path / "val"
    mask = np.zeros((32, 32), np.uint8, order="F")
    mask[4:12, 4:12] = 1
    runs = {"size": [32, 32], "counts": [4 * 32 + 4, 8, *[24, 8] * 7, 20 * 32 + 20]}
    assert (coco_mask.decode(coco_mask.frPyObjects(runs, 32, 32)) == mask).all()
    images, annotations = [], []
    for number, objects in enumerate((2, 0, 1), start=1):
        (val / "images").mkdir(parents=True, exist_ok=True)
        (val / "masks").mkdir(exist_ok=True)
        GREY.save(val / "images" / f"{number:06d}.png")
        Image.fromarray(mask * 2).save(val / "masks" / f"{number:06d}.png")
        images.append({"id": number, "file_name": f"{number:06d}.png"})
        annotations += [{"image_id": number, "category_id": 7, "bbox": [4, 4, 8, 8], "segmentation": runs}] * objects
    categories = [{"id": 7, "name": "dog"}, {"id": 5, "name": "cat"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (val / "annotations.json").write_text(json.dumps(coco))
    return val


@pytest.fixture
def objects(val: Path) -> ground_truth.Objects:
    return ground_truth.of_coco(val / "images", val / "annotations.json")


def test_the_scenes_shown_are_the_first_with_each_number_of_objects(objects: ground_truth.Objects) -> None:
    assert [image["id"] for image in objects.shown] == [3, 1]
    assert objects.classes == ("cat", "dog")


def test_detections_are_drawn_beside_the_truth(tmp_path: Path, objects: ground_truth.Objects) -> None:
    (tmp_path / "run").mkdir()
    encoded = coco_mask.encode(np.asfortranarray(np.eye(32, dtype=np.uint8)))
    sure = {"image_id": 3, "category_id": 5, "bbox": [4, 4, 8, 8], "score": 0.75}
    lines = [
        {**sure, "segmentation": {"size": [32, 32], "counts": encoded["counts"].decode()}},
        {**sure, "category_id": 7, "score": 0.9},
        {**sure, "score": 0.29},
        {**sure, "image_id": 2},
    ]
    (tmp_path / "run" / gallery.DETECTIONS).write_text(json.dumps(lines))
    runs = [("A", result("a", 50.0, work="run")), ("B", result("b", 50.0, work="gone"))]
    notes: list[str] = []
    first, second = gallery.detections(objects, runs, tmp_path, notes)
    assert [(p.row, p.content) for p in first] == [(gallery.TRUTH, "dog"), ("A", "dog 0.90, cat 0.75")]
    assert [p.content for p in second] == ["dog, dog", "nothing with a score of 0.3 or more"]
    assert decode(first[0].picture).size == (384, 384)
    assert len(notes) == 1
    assert notes[0].startswith("B: no detections")


def test_segmentations_are_drawn_beside_the_truth(tmp_path: Path, val: Path) -> None:
    for work, numbers in (("run", (1, 3)), ("half", (1,))):
        (tmp_path / work / gallery.SEGMENTATIONS).mkdir(parents=True)
        for number in numbers:
            classes = np.zeros((32, 32), np.uint8)
            classes[:8] = 1
            Image.fromarray(classes).save(tmp_path / work / gallery.SEGMENTATIONS / f"{number:06d}.png")
    runs = [("A", result("a", 50.0, work="run")), ("B", result("b", 50.0, work="half"))]
    notes: list[str] = []
    pairs = tuple((val / "images" / f"{n:06d}.png", val / "masks" / f"{n:06d}.png") for n in (3, 1))
    maps = ground_truth.Maps(pairs, (ground_truth.BACKGROUND, "cat", "dog"))
    first, _ = gallery.segmentations(maps, runs, tmp_path, notes)
    assert [(p.row, p.content) for p in first] == [(gallery.TRUTH, "dog 6%"), ("A", "cat 25%")]
    assert len(notes) == 1
    assert re.match(r"B: no segmentations; predictions of that run is missing or damaged .*000003\.png", notes[0])


def test_a_value_is_drawn_unless_it_is_no_class(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "map.png")
    for values, drawn, classes in (
        (("road", "car"), [1, 2, 0], ("road", "car")),
        ((ground_truth.NO_CLASS, "wall"), [0, 1, 0], ("wall",)),
        ((ground_truth.BACKGROUND, "cat"), [0, 1, 0], ("cat",)),
    ):
        maps = ground_truth.Maps((), values)
        assert maps.drawn(tmp_path / "map.png").tolist() == [drawn]
        assert maps.classes == classes


def test_what_tasks_drew_themselves_is_shown_and_what_is_damaged_is_said(tmp_path: Path) -> None:
    drawn = tmp_path / "run" / "pictures"
    drawn.mkdir(parents=True)
    Image.new("RGB", (2000, 100), (10, 200, 30)).save(drawn / "depth.png")
    (drawn / "patches.png").write_bytes(b"nothing")
    notes: list[str] = []
    found = gallery.gallery([[("A", result("a", 1.0, work="run"))]], tmp_path, tmp_path, notes)
    (sheet,) = found.sheets
    assert (sheet.row, sheet.name, sheet.size) == ("A", "depth", (768, 38))
    assert decode(sheet.picture).size == sheet.size
    assert len(notes) == 1 and "patches.png" in notes[0]
