"""Retrieval: ranks by hand and beside scikit-learn, a gallery that is the queries, and nothing to find."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score
from toy_images import toy_data

from cgh_bench import outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair
from cgh_bench.data.transform import AS_IS, IMAGENET_KNN, EvalTransform
from cgh_bench.frozen.features import extract
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.retrieval import Retrieval, average_precision, ranking


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([0, 2, 4])) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(np.array([9])) == pytest.approx(0.1)


def test_equal_images_rank_in_their_order_and_a_query_is_not_its_own_answer() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0], [2, 0]], np.float32)
    assert [order.tolist() for order in ranking(rows, rows[:1], False)] == [[0, 2, 3, 1]]
    found = [order.tolist() for order in ranking(rows, rows, True)]
    assert found == [[2, 3, 1], [0, 2, 3], [0, 3, 1], [0, 2, 1]]


def test_the_metrics_are_scikit_learns_and_every_query_is_kept(tmp_path: Path) -> None:
    backbone, data = random_checkpoint("test_resnet"), toy_data()
    task = Retrieval("toy", AS_IS)
    task.check(data)
    metrics = task.run(backbone, data, Folders(tmp_path, tmp_path / "cache"), 0)
    train, val = (
        extract(backbone, part, AS_IS, "layer4", tmp_path / "cache/features") for part in (data.train, data.val)
    )
    unit = [bank.features / np.linalg.norm(bank.features, axis=1, keepdims=True) for bank in (train, val)]
    similarity = unit[1] @ unit[0].T
    right = train.labels[None] == val.labels[:, None]
    theirs = [average_precision_score(truth, scores) for truth, scores in zip(right, similarity, strict=True)]
    assert metrics["mAP"] == pytest.approx(100 * np.mean(theirs), abs=1e-3)
    nearest = np.take_along_axis(right, similarity.argmax(axis=1)[:, None], axis=1)
    assert metrics["R@1"] == pytest.approx(100 * nearest.mean())
    assert metrics["R@1"] <= metrics["R@5"] <= metrics["R@10"] and metrics["R@1"] <= metrics["MRR"] <= 100
    kept = outcomes.load(tmp_path)
    assert kept.metrics() == pytest.approx(metrics)
    each = kept.each("mAP")
    assert each is not None and each / 100 == pytest.approx(theirs, abs=1e-3)
    assert next(iter(kept.to_csv().splitlines())) == "image,target,weight,mAP,R@1,R@5,R@10,MRR"
    lines = (tmp_path / "queries.csv").read_text().splitlines()
    assert len(lines) == 1 + len(data.val)
    precisions = [float(line.split(",")[2]) for line in lines[1:]]
    assert precisions == sorted(precisions)
    among = Retrieval("toy", AS_IS, gallery="others")
    among.check(data)
    assert 0 < among.run(backbone, data, Folders(tmp_path, tmp_path / "cache"), 0)["mAP"] < 100
    (planned,) = among.effort(backbone, data)
    assert planned.startswith("ranking: 24 images for each of 24 queries, at most ")


def test_nothing_to_find_is_refused() -> None:
    data = toy_data(4, 4)
    with pytest.raises(UserError, match="has an image of its class"):
        Retrieval("toy", AS_IS, gallery="others").check(data)
    apart = DataPair("toy", replace(data.train, labels=np.array([0, 0, 1, 1])), replace(data.val, labels=np.full(4, 3)))
    with pytest.raises(UserError, match="has an image of its class"):
        Retrieval("toy", AS_IS).check(apart)


def test_folders_of_queries_and_gallery_and_one_of_classes(tmp_path: Path) -> None:
    for path in (
        *(
            f"{part}.png"
            for part in ("gallery/cat/1", "gallery/cow/2", "query/cat/3", "query/dog/4", "one/a/5", "one/b/6")
        ),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 90).save(tmp_path / path)
    task = Retrieval(str(tmp_path), IMAGENET_KNN)
    data = task.load_data(tmp_path)
    assert data.train.classes == ("cat", "cow", "dog") == data.val.classes
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0, 1], [0, 2])
    metrics = Retrieval("", EvalTransform(32, 32)).run(
        random_checkpoint("test_resnet"), data, Folders(tmp_path / "run", tmp_path), 0
    )
    assert metrics["R@5"] == 100 and len(outcomes.load(tmp_path / "run").images) == 1  # a dog is nowhere
    one = Retrieval(str(tmp_path / "one"), gallery="others")
    whole = one.load_data(tmp_path)
    assert len(whole.val) == 2
    with pytest.raises(UserError, match="has an image of its class"):
        one.check(whole)
    with pytest.raises(UserError, match="train/CLASS"):
        Retrieval(str(tmp_path / "one")).load_data(tmp_path)
