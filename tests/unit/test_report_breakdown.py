"""What is behind a number, against small cases worked by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reporting import result

from cgh_bench import data
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.data.ground_truth import NO_CLASS, Maps
from cgh_bench.data.image_set import GreyImages
from cgh_bench.frozen import overlap
from cgh_bench.frozen.features import extract
from cgh_bench.outcomes.classification import classification
from cgh_bench.site import breakdown, charts, page
from cgh_bench.site.charts import MEASURED, Point
from cgh_bench.tasks.base import Metric
from cgh_bench.tasks.knn import KNN


def test_accuracy_by_class() -> None:
    images = GreyImages("x", ("a", "b", "never"), np.array([0, 0, 1, 1, 1]), "x", np.zeros((5, 1, 1), np.uint8))
    outcome = classification(images, np.array([0, 1, 1, 1, 0]))
    assert breakdown.accuracy_by_class(outcome) == pytest.approx({"a": 50.0, "b": 200 / 3})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken"])
def test_broken_predictions_are_noted_and_absent_ones_are_not(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "outcomes.npz").write_bytes(content)
    notes: list[str] = []
    assert breakdown.draw(result("a", 1.0, work="eval"), object(), tmp_path, tmp_path, notes) == []
    assert len(notes) == 1
    assert "outcomes.npz" in notes[0]
    assert breakdown.classification(result("a", 1.0, work=""), tmp_path, notes) is None
    assert breakdown.draw(result("a", 1.0, work="absent"), object(), tmp_path, tmp_path, notes) == []
    assert len(notes) == 1


def coco(tmp_path: Path, detections: list[dict[str, object]]) -> tuple[Path, Path]:
    """Two images of one cat each, at (10, 10) and 20 by 20 pixels; dogs are known and never there."""
    box = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "category_id": 1}
    truth = {
        "images": [{"id": 1, "width": 64, "height": 64}, {"id": 2, "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, **box}, {"id": 2, "image_id": 2, **box}],
    }
    paths = tmp_path / "annotations.json", tmp_path / "predictions.json"
    for path, document in zip(paths, (truth, detections), strict=True):
        path.write_text(json.dumps(document))
    return paths


def test_precision_and_ap_of_a_case_worked_by_hand(tmp_path: Path) -> None:
    """The surest detection is exact, the next has IoU 20·10 / (400 + 400 - 200) = 1/3: one hit of two at any threshold.

    Precision is 1 up to recall 0.5 and 0 beyond, on 51 of 101 recalls: AP 51/101 at every threshold.
    """
    exact = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9}
    beside = {"image_id": 2, "category_id": 1, "bbox": [20, 10, 20, 20], "score": 0.8}
    found = breakdown.precision(*coco(tmp_path, [exact, beside]))
    assert found.by_class() == pytest.approx({"cat": 100 * 51 / 101})
    assert found.curve(0.5)[:51].tolist() == pytest.approx([1.0] * 51)
    assert found.curve(0.75)[51:].tolist() == [0.0] * 50
    drawn = breakdown.detection_charts("t", *coco(tmp_path, [exact]), [])
    assert [chart.title for chart in drawn] == ["t: precision and recall of boxes", "t: box AP per class"]


def test_annotations_without_an_object_of_a_class_are_said(tmp_path: Path) -> None:
    """There is no mean over no class to draw."""
    truth, predictions = coco(tmp_path, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}])
    truth.write_text(truth.read_text().replace('"category_id": 1', '"category_id": 999'))
    assert breakdown.detection_charts("t", truth, predictions, notes := []) == []
    assert "no object of any of its classes" in notes[0]


def test_predictions_without_a_detection_are_said(tmp_path: Path) -> None:
    assert breakdown.detection_charts("t", *coco(tmp_path, []), notes := []) == []
    assert "no precision-recall curves; predictions.json" in notes[0]


def test_confusion_and_iou_of_a_case_worked_by_hand(tmp_path: Path) -> None:
    for folder, pixels in {"masks": [[0, 0, 1], [1, 255, 1]], "predictions": [[0, 1, 1], [1, 1, 0]]}.items():
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / folder / "x.png")
    counts = breakdown.confusion([(tmp_path / "masks/x.png", tmp_path / "predictions/x.png")], 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert overlap.iou(counts)[:2].tolist() == pytest.approx([1 / 3, 2 / 4])
    assert np.isnan(overlap.iou(counts)[2])
    pairs = ((tmp_path / "images/x.jpg", tmp_path / "masks/x.png"),)
    confusion, by_class = breakdown.segmentation_charts(
        "t", Maps(pairs, ("a", "b", "<c>")), tmp_path / "predictions", notes := []
    )
    assert confusion.figure["data"][0]["z"] == [[0.5, 0.5, 0.0], [0.333, 0.667, 0.0], [0.0, 0.0, 0.0]]
    assert confusion.figure["data"][0]["x"][2] == "&lt;c&gt;"
    assert by_class.figure["data"][0]["y"] == ["a", "b"]
    without, _ = breakdown.segmentation_charts("t", Maps(pairs, (NO_CLASS, "b", "c")), tmp_path / "predictions", notes)
    assert without.figure["data"][0]["z"] == [[1.0, 0.0], [0.0, 0.0]]  # what has no class is in no row and no column
    many = Maps(pairs, tuple(f"class {n}" for n in range(150)))
    assert [chart.title for chart in breakdown.segmentation_charts("t", many, tmp_path / "predictions", notes)] == [
        "t: IoU per class"
    ]
    (tmp_path / "predictions" / "x.png").unlink()
    assert breakdown.segmentation_charts("t", many, tmp_path / "predictions", notes) == []
    assert len(notes) == 1


def test_the_projection_keeps_far_groups_apart_and_is_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(3, 16, dtype=np.float32), 20, axis=0)
    features = groups + 0.05 * rng.normal(size=groups.shape).astype(np.float32)
    plane = breakdown.project(features)
    assert np.array_equal(plane, breakdown.project(features))
    centres = plane.reshape(3, 20, 2).mean(axis=1)
    nearest = np.linalg.norm(plane[:, None] - centres, axis=2).argmin(axis=1)
    assert nearest.tolist() == np.repeat(range(3), 20).tolist()


@pytest.mark.parametrize("architecture", ["resnet18", "vit_tiny_patch16_224"])
def test_cached_features_of_every_family_are_projected(architecture: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(8):
        for split in ("train", "val"):
            path = folder / split / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (224, 224), (30 * number,) * 3).save(path)
    weights, task = random_checkpoint(architecture), KNN(data=str(folder))
    extract(weights, data.load(str(folder), "val"), task.transform, task.feature, tmp_path / "cache" / "features")
    notes: list[str] = []
    (chart,) = breakdown.draw(result("a", 1.0, checkpoint=weights.id), task, tmp_path, tmp_path, notes)
    assert notes == []
    assert [trace["name"] for trace in chart.figure["data"]] == ["cat", "dog"]
    assert breakdown.draw(result("a", 1.0, checkpoint="other"), task, tmp_path, tmp_path, notes) == []


def test_cost_needs_two_costs_and_tells_measured_from_published() -> None:
    points = [Point("ours", 200, 60.0, MEASURED), Point("more", 400, 61.0, MEASURED)]
    assert charts.cost_chart([], Metric("top1"), points[:1]) is None
    chart = charts.cost_chart([], Metric("top1"), points)
    assert chart is not None
    assert [trace["name"] for trace in chart.figure["data"]] == [MEASURED]
    assert chart.figure["data"][0]["x"] == [200, 400]
    assert chart.caption == "Top-1 vs. pretraining cost: 2 measured results."


def test_proofs_are_shown_and_damaged_ones_noted(tmp_path: Path) -> None:
    run = result("a", 1.0, work="eval/a", checkpoint="00aa")
    (tmp_path / "eval" / "a").mkdir(parents=True)
    force = {"channel_order": "BGR", "mean_std": [103.5, 116.25, 123.7, 1.0, 1.0, 1.0]}
    said = {"given": 120, "arrived": 119, "missing": ["x"], "unfilled": [], "in_force": force}
    (tmp_path / "eval" / "a" / "loaded.json").write_text(json.dumps(said))
    certificate = {"target": "mmdet", "verdict": "same outputs", "checkpoint": {"id": "00aa"}, "tensors": 120}
    certificate |= {"read_back": "bit for bit", "stages": [{"stage": "layer4", "relative": 2e-7}]}
    (tmp_path / "a.pth.certificate.json").write_text(json.dumps(certificate))
    (tmp_path / "other.pth.certificate.json").write_text(json.dumps({**certificate, "checkpoint": {"id": "11bb"}}))
    (tmp_path / "broken.certificate.json").write_text("{")
    arrived, converted = page.proofs([run], tmp_path, tmp_path, notes := [])
    assert len(notes) == 1
    assert "broken.certificate.json" in notes[0]
    assert arrived.verdict == "119 of 120 tensors arrived, 1 missing or unfilled"
    assert arrived.details.startswith("BGR, mean and std 103.5")
    assert (converted.subject, converted.verdict) == ("a.pth for mmdet", "same outputs")
    assert "2e-07 (layer4)" in converted.details
