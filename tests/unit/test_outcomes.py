"""What runs keep of their answers: written, read, and made into numbers again, beside independent references."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from toy_images import toy_data, toy_pair

from cgh_bench import outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.core.saved import load_arrays
from cgh_bench.data.image_set import DataPair
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.frozen.features import GivenFeatures
from cgh_bench.frozen.metrics import average_precisions, average_precisions_11_points
from cgh_bench.outcomes.base import named_images
from cgh_bench.outcomes.classification import classification
from cgh_bench.outcomes.detection import detection, judged
from cgh_bench.outcomes.multi_label import multi_label
from cgh_bench.outcomes.segmentation import segmentation
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.clustering import Clusters
from cgh_bench.tasks.finetune import FineTune
from cgh_bench.tasks.knn import KNN
from cgh_bench.tasks.knn_few_shot import KNNFewShot
from cgh_bench.tasks.knn_grid import KNNGrid
from cgh_bench.tasks.knn_leave_one_out import LeaveOneOut
from cgh_bench.tasks.knn_multi_label import KNNMultiLabel
from cgh_bench.tasks.linear import Linear
from cgh_bench.tasks.linear_sgd import LinearSgd
from cgh_bench.tasks.logistic import LogisticRegression
from cgh_bench.tasks.svm import Svm
from cgh_bench.transfer_configs.contract import matches
from cgh_bench.transfer_configs.contract.cityscapes import of_class

CROP = Crop(16, (0.5, 1.0))
NOT_DETERMINED = {"top1_selected_on_val", "mAP_selected_on_val", "accuracy_selected_on_val", "converged"}


def counts(n: int, draws: int = 3) -> np.ndarray:
    return np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), draws)


def same(one: outcomes.Outcomes, other: outcomes.Outcomes) -> None:
    assert type(one) is type(other)
    assert (one.images, one.classes, dict(one.measures)) == (other.images, other.classes, dict(other.measures)) or (
        one.images.ids == other.images.ids and one.images.order == other.images.order
    )
    for name, array in one.arrays().items():
        assert np.array_equal(array, other.arrays()[name]), name


def multi_label_data() -> DataPair:
    train, val = toy_pair()
    marks = [np.eye(4, dtype=np.int64)[part.labels] | np.eye(4, dtype=np.int64)[0] for part in (train, val)]
    marks[1][::3, 0] = 0
    return DataPair("toy", replace(train, labels=marks[0]), replace(val, labels=marks[1]))


@pytest.mark.parametrize(
    "task",
    [
        KNN("toy", AS_IS, k=5, k_grid=(1, 5)),
        KNNGrid("toy", AS_IS, features=("layer4",), ks=(1, 5), temperatures=(0.07,)),
        LeaveOneOut("toy", AS_IS, k=5),
        KNNFewShot("toy", AS_IS, shots=2, repeats=3, k=3),
        KNNMultiLabel("toy", AS_IS, k=5),
        Linear("toy", AS_IS, weight_decays=(0.01, 1.0), held_out=0.2, iterations=20),
        LogisticRegression("toy", AS_IS, strengths=(0.01, 1.0), iterations=20),
        LogisticRegression("toy", AS_IS, strengths=(0.01, 1.0), iterations=20, metric="class_balanced"),
        LinearSgd("toy", AS_IS, crop=CROP, learning_rates=(0.1, 1.0), epochs=1, held_out=0.2),
        FineTune("toy", AS_IS, crop=CROP, epochs=1, batch_size=16),
        Svm("toy", AS_IS, costs=(1.0,), shots=(), shot_costs=(1.0,)),
        Clusters("toy", AS_IS),
    ],
    ids=lambda task: type(task).__name__,
)
def test_every_task_keeps_answers_that_give_its_numbers(
    task: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = multi_label_data() if isinstance(task, KNNMultiLabel) else toy_data()
    metrics = task.run(
        random_checkpoint("test_resnet", 0), data, Folders(tmp_path / "run", tmp_path_factory.getbasetemp()), 0
    )
    kept = outcomes.load(tmp_path / "run")
    again = kept.metrics()
    missing = set(metrics) - set(again)
    assert missing <= NOT_DETERMINED
    assert {name: again[name] for name in metrics if name in again} == pytest.approx(
        {name: value for name, value in metrics.items() if name in again}
    )
    images = data.train if isinstance(task, LeaveOneOut) else data.val
    assert (kept.images.name, kept.images.order, len(kept.images)) == (images.name, images.order, len(images))
    lines = list(csv.reader(io.StringIO(kept.to_csv())))
    assert lines[0][0] == "image" and lines[1][0] == images.called(0)


def test_classifications_are_weighed_as_if_images_were_repeated(tmp_path: Path) -> None:
    _, val = toy_pair()
    draw = np.random.default_rng(0)
    predicted, rank = draw.integers(0, 4, 24), draw.integers(0, 4, 24)
    rank = np.where(predicted == val.labels, 0, np.maximum(rank, 1))
    kept = classification(val, predicted, rank, right={"top1_k10": predicted == 0})
    kept.save(tmp_path)
    read = outcomes.load(tmp_path)
    same(kept, read)
    for row in counts(24):
        rows = np.repeat(np.arange(24), row)
        balanced = 100 * balanced_accuracy_score(val.labels[rows], predicted[rows])
        assert read.measure("class_balanced", row[None])[0] == pytest.approx(balanced)
        assert read.measure("top1", row[None])[0] == pytest.approx(100 * (rank[rows] == 0).mean())
        assert read.measure("top1_k10", row[None])[0] == pytest.approx(100 * (predicted[rows] == 0).mean())


def test_average_precision_is_that_of_the_tasks_also_of_repeated_images() -> None:
    pair, draw = multi_label_data(), np.random.default_rng(0)
    scores = draw.integers(0, 6, (24, 4)) / 5  # with ties
    target = np.where(draw.random((24, 4)) < 0.1, -1, pair.val.labels)
    kept = multi_label(pair.val, target, scores, {"mAP": "mean", "mAP_11_points": "11 points"})
    for row in [np.ones(24, np.int64), *counts(24)]:
        rows = np.repeat(np.arange(24), row)
        with np.errstate(all="ignore"):
            for name, function in (("mAP", average_precisions), ("mAP_11_points", average_precisions_11_points)):
                wanted = 100 * np.nanmean(function(scores[rows], target[rows]))
                assert kept.measure(name, row[None])[0] == pytest.approx(wanted)
    assert average_precision_score([1, 0], [0.5, 0.5]) == 0.5  # ties count together there


def test_segmentations_give_the_metrics_of_all_pixels(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    true, given = draw.integers(-1, 3, (5, 8, 8)), draw.integers(0, 3, (5, 8, 8))
    images = named_images("x/val", list("abcde"), "content")
    kept = segmentation(images, ("a", "b", "c"), zip(true, given, strict=True))
    kept.save(tmp_path)
    same(kept, outcomes.load(tmp_path))
    for row in [np.ones(5, np.int64), *counts(5)]:
        rows = np.repeat(np.arange(5), row)
        t, g = true[rows], given[rows]
        g = np.where(t < 0, -1, g)
        pairs = [((t == c) & (g == c), (t == c) | (g == c), t == c) for c in range(3)]
        wanted = {
            "mIoU": 100 * np.mean([hit.sum() / either.sum() for hit, either, _ in pairs]),
            "mAcc": 100 * np.mean([hit.sum() / there.sum() for hit, _, there in pairs]),
            "aAcc": 100 * (t == g)[t >= 0].mean(),
        }
        found = {name: float(kept.measure(name, row[None])[0]) for name in kept.measures}
        assert found == pytest.approx(wanted)
    assert kept.pixels[:, 3].sum() == (true >= 0).sum()
    with pytest.raises(ValueError, match="the map predicted for a is"):
        segmentation(images, ("a",), iter([(true[0], given[0, :4])]))


def test_detections_give_pycocotools_numbers(tmp_path: Path) -> None:
    draw, lines, annotations = np.random.default_rng(0), [], []
    for image in range(1, 9):
        for _ in range(3):
            x, y = draw.integers(0, 60, 2).tolist()
            box, category = [x, y, 20, 20], int(draw.integers(1, 3))
            crowd = int(draw.random() < 0.1)
            polygon = [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]
            common = {"image_id": image, "category_id": category}
            annotations.append({"id": len(annotations) + 1, "bbox": box, "area": 400, "iscrowd": crowd, **common})
            annotations[-1]["segmentation"] = polygon
            shift = draw.integers(-6, 7, 2).tolist()
            lines.append({**common, "bbox": [x + shift[0], y + shift[1], 20, 20], "score": float(draw.random())})
            left, top = x + shift[0], y + shift[1]
            corners = [[left, top, left + 20, top, left + 20, top + 20, left, top + 20]]
            encoded = mask.frPyObjects(corners, 99, 99)[0]
            lines[-1]["segmentation"] = {**encoded, "counts": encoded["counts"].decode()}
    truth = {
        "images": [{"id": n, "width": 99, "height": 99, "file_name": f"{n}.png"} for n in range(1, 9)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }
    paths = tmp_path / "truth.json", tmp_path / "predictions.json"
    for path, document in zip(paths, (truth, lines), strict=True):
        path.write_text(json.dumps(document))
    names = [f"{kind}_{ap}" for kind in ("box", "mask") for ap in ("AP", "AP50", "AP75")]
    kept = detection("x/val", "content", *paths, names)
    coco = COCO(str(paths[0]))
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        masks = [{key: value for key, value in line.items() if key != "bbox"} for line in lines]
        reference = COCOeval(coco, coco.loadRes(masks if kind == "segm" else lines), kind)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
        found = [kept.metrics()[f"{name}_{ap}"] for ap in ("AP", "AP50", "AP75")]
        assert found == pytest.approx((100 * reference.stats[:3]).tolist())
    kept.save(tmp_path)
    same(kept, outcomes.load(tmp_path))
    assert kept.to_csv().count("\n") == 2 * len(lines) + 1
    paths[1].write_text("[]")
    assert set(detection("x/val", "content", *paths, names).metrics().values()) == {0.0}


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        outcomes.load(tmp_path)
    _, val = toy_pair()
    classification(val, val.labels).save(tmp_path)
    whole = (tmp_path / outcomes.FILE).read_bytes()
    (tmp_path / outcomes.FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"outcomes\.npz is damaged .*again"):
        outcomes.load(tmp_path)
    with np.load(io.BytesIO(whole)) as stored:
        arrays = dict(stored)
    about = {**json.loads(arrays["about"].tobytes()), "version": 99}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(tmp_path / outcomes.FILE, **arrays)
    with pytest.raises(UserError, match="has version 99; this cgh-bench reads version 1"):
        outcomes.load(tmp_path)


def test_features_of_two_backbones_are_of_the_same_images() -> None:
    one, two = (
        GivenFeatures("x/val", ("a", "b"), np.array([0, 1]), content, np.ones((2, 3), np.float32), ("p", "q"))
        for content in ("1", "2")
    )
    assert one.order == two.order != replace(two, paths=("q", "p")).order


def test_cityscapes_instances_are_judged_as_by_its_own_tools(tmp_path: Path) -> None:
    tools = pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    draw = np.random.default_rng(0)
    given = {f"gtFine/val/a/a_{n:06}_gtFine_instanceIds.png": _instances(draw) for n in range(12)}
    args = SimpleNamespace(
        overlaps=np.arange(0.5, 1.0, 0.05), minRegionSizes=np.array([100, 1000, 1000]), instLabels=["car", "bus", "cat"]
    )
    args.distanceThs, args.distanceConfs = np.array([np.inf, 100, 50]), np.array([-np.inf, 0.5, 0.5])
    args.distanceAvailable = False
    (expected,) = tools.evaluateMatches(given, args)
    files = sorted(given)
    by_class = {
        label: of_class([given[f] for f in files], label, 100, list(args.overlaps)) for label in args.instLabels
    }
    matches.write(tmp_path, files, by_class)
    kept = judged("x/val", "", load_arrays(tmp_path / matches.FILE), "Cityscapes", ["mask_AP", "mask_AP50"])
    assert np.isnan(expected[2]).all() and 5 < 100 * np.nanmean(expected) < 95
    assert kept.metrics() == pytest.approx(
        {"mask_AP": 100 * np.nanmean(expected), "mask_AP50": 100 * np.nanmean(expected[:, 0])}
    )
    twice = {**given, "gtFine/val/a/b": given[files[0]]}
    drawn = kept.measure("mask_AP", np.array([[2, *[1] * 11]]))
    assert drawn[0] == pytest.approx(100 * np.nanmean(tools.evaluateMatches(twice, args)[0]))


def _instances(draw: np.random.Generator) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Matches of one image as cityscapesScripts holds them: groups, small instances and pixels of no class too."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"prediction": {"cat": []}, "groundTruth": {"cat": []}}
    for label in ("car", "bus"):
        truth = [
            {
                "instID": ident,
                "pixelCount": int(draw.integers(60, 900)),
                "medDist": -1,
                "distConf": 0.0,
                "matchedPred": [],
            }
            for ident in (26, 26_000, 26_001, 26_002)
        ]
        predictions = []
        for _ in range(6):
            met = draw.choice(truth)
            size = int(draw.uniform(0.8, 1.2) * met["pixelCount"])
            both = int(draw.uniform(0.6, 1) * min(size, met["pixelCount"]))
            rest = size - both
            one = {"pixelCount": size, "confidence": round(float(draw.random()), 1), "voidIntersection": rest * 2 // 3}
            met["matchedPred"].append({**one, "intersection": both})
            predictions.append({**one, "matchedGt": [{**met, "intersection": both}]})
        found["prediction"][label], found["groundTruth"][label] = predictions, truth
    return found
