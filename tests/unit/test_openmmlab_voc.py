"""VOC's boxes and its AP of eleven points, against plain loops."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("mmdet")

from cgh_bench.core.saved import load_arrays
from cgh_bench.outcomes.detection import judged
from cgh_bench.transfer_configs.contract import curves, matches
from cgh_bench.transfer_configs.openmmlab.voc import ElevenPointAP, VocBoxes

CLASSES = ("bird", "cow")


def iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def eleven_points(images, label: int, threshold: float) -> float:
    """The development kit's VOCevaldet, image by image: `images` has (objects, detections) of each, in plain tuples."""
    detections = [(score, i, box) for i, (_, found) in enumerate(images) for box, c, score in found if c == label]
    objects = [[(box, hard) for box, c, hard in truth if c == label] for truth, _ in images]
    positives = sum(not hard for of_image in objects for _, hard in of_image)
    taken, right, wrong, curve = set(), 0, 0, []
    for _, image, box in sorted(detections, key=lambda d: -d[0]):
        overlaps = [iou(box, other) for other, _ in objects[image]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= threshold:
            if objects[image][best][1]:
                continue
            right, wrong = (right, wrong + 1) if (image, best) in taken else (right + 1, wrong)
            taken.add((image, best))
        else:
            wrong += 1
        curve.append((right / positives, right / (right + wrong)))
    return 100 * sum(max([p for r, p in curve if r >= recall], default=0.0) for recall in np.arange(0.0, 1.1, 0.1)) / 11


def random_images(seed: int):
    """Objects, some difficult, and detections near them and elsewhere, with distinct scores."""
    generator = np.random.default_rng(seed)

    def box(near=None):
        corner = generator.uniform(0, 60, 2) if near is None else np.array(near[:2]) + generator.normal(0, 3, 2)
        size = (
            generator.uniform(15, 40, 2) if near is None else np.array(near[2:]) - near[:2] + generator.normal(0, 3, 2)
        )
        return tuple((*corner, *(corner + np.maximum(size, 2))))

    images = []
    for _ in range(6):
        truth = [(box(), int(generator.integers(2)), bool(generator.random() < 0.25)) for _ in range(4)]
        found = [(box(near), c, float(generator.random())) for near, c, _ in truth for _ in range(2)]
        images.append((truth, [*found, (box(), 0, float(generator.random())), (box(), 1, float(generator.random()))]))
    return images


def arrays(boxes) -> np.ndarray:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def evaluate(images, work: Path) -> dict[str, float]:
    metric = ElevenPointAP(str(work))
    metric.dataset_meta = {"classes": CLASSES}
    results = []
    for number, (truth, found) in enumerate(images):
        easy, hard = ([t for t in truth if t[2] is kind] for kind in (False, True))
        annotation = {
            "bboxes": arrays([t[0] for t in easy]),
            "labels": np.array([t[1] for t in easy], dtype=np.int64),
            "bboxes_ignore": arrays([t[0] for t in hard]),
            "labels_ignore": np.array([t[1] for t in hard], dtype=np.int64),
        }
        detections = [np.array([(*b, s) for b, c, s in found if c == label]).reshape(-1, 5) for label in (0, 1)]
        results.append((f"00000{number}", annotation, detections))
    return metric.compute_metrics(results)


def test_detections_are_judged_as_by_voc_for_detectron2_too():
    boxes = np.array([[10.0, 10, 29, 29], [40, 40, 59, 59]])
    found = [(0, 0.9, boxes[1]), (0, 0.8, boxes[0] + [0, 0, 0, 8]), (0, 0.7, boxes[0]), (1, 0.6, boxes[0])]
    got = matches.of_voc(found, [(boxes, np.array([False, True])), (np.zeros((0, 4)), np.zeros(0, bool))], (0.5, 0.75))
    assert got.found.tolist() == [[False, False], [True, False], [False, True], [False, False]]
    assert got.ignored.tolist() == [[True, True], [False, False], [False, False], [False, False]]
    assert (got.objects, got.image) == ([1, 0], [0, 0, 0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_ap_is_that_of_plain_loops(seed, tmp_path):
    images = random_images(seed)
    metrics = evaluate(images, tmp_path)
    expected = np.array([[eleven_points(images, c, 0.5 + 0.05 * k) for c in (0, 1)] for k in range(10)])
    assert metrics["box_AP"] == pytest.approx(expected.mean(), abs=1e-4)
    assert metrics["box_AP50"] == pytest.approx(expected[0].mean(), abs=1e-4)
    assert metrics["box_AP75"] == pytest.approx(expected[5].mean(), abs=1e-4)
    assert metrics["box_AP.cow"] == pytest.approx(expected[:, 1].mean(), abs=1e-4)
    assert 0 < metrics["box_AP75"] < metrics["box_AP50"] < 100
    found = judged("x/val", "", load_arrays(tmp_path / matches.FILE), "VOC2007", ["box_AP", "box_AP50", "box_AP75"])
    assert found.metrics() == pytest.approx({name: metrics[name] for name in found.measures})
    twice = evaluate([images[0], *images], tmp_path)  # an image that is drawn twice is as one more
    drawn = found.measure("box_AP", np.array([[2, 1, 1, 1, 1, 1]]))
    assert drawn == pytest.approx(twice["box_AP"], abs=1e-4)
    evaluate(images, tmp_path)
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert [100 * np.mean(kept[iou][::10]) for iou in ("0.5", "0.75")] == pytest.approx(
        [metrics["box_AP50"], metrics["box_AP75"]],
        abs=5,  # which of two neighbours 0.3 is depends on how it was added up
    )


def test_curves_are_those_of_plain_loops():
    recall, precision = np.sort(np.random.default_rng(0).random(40)), np.random.default_rng(1).random(40)
    expected = [max(precision[recall >= at], default=0.0) for at in curves.RECALLS]
    assert curves.at_recalls(recall, precision) == pytest.approx(expected)


def test_nothing_found_is_ap_0(tmp_path):
    metrics = evaluate([(truth, []) for truth, _ in random_images(0)], tmp_path)
    assert set(metrics.values()) == {0}
    assert (tmp_path / "predictions.json").read_text() == "[]"


@pytest.mark.parametrize("test_mode", [False, True])
def test_boxes_are_as_wide_as_their_pixels_and_the_difficult_are_trained_on(test_mode):
    text = """<annotation><object><name>bird</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>3</ymin>
    <xmax>10</xmax><ymax>4</ymax></bndbox></object></annotation>"""
    data = VocBoxes(ann_file="", lazy_init=True, test_mode=test_mode)
    data.cat2label = {"bird": 2}
    (instance,) = data._parse_instance_info(ElementTree.ElementTree(ElementTree.fromstring(text)))
    assert instance["bbox"] == [0, 2, 10, 4]  # ten pixels wide, two high
    assert instance["ignore_flag"] == int(test_mode)
