import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, GreyImages
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.metrics import (
    average_precisions,
    average_precisions_11_points,
    class_balanced_accuracy,
    rank,
    true_ranks,
    vote_weights,
    without_self,
)
from cgh_bench.frozen.neighbours import neighbours
from cgh_bench.tasks.base import Folders, ImageTask
from cgh_bench.tasks.knn import KNN
from cgh_bench.tasks.knn_approximate import KNNApproximate
from cgh_bench.tasks.knn_few_shot import KNNFewShot
from cgh_bench.tasks.knn_grid import KNNGrid
from cgh_bench.tasks.knn_leave_one_out import LeaveOneOut
from cgh_bench.tasks.knn_multi_label import KNNMultiLabel, shares
from cgh_bench.tasks.ridge_few_shot import RidgeFewShot, ridge


def test_four_points_by_hand() -> None:
    # Two neighbours at similarity .9 and .8 of class 1 against one at .95 of class 0: with T = .2 class 1 wins.
    similarity = np.array([[0.95, 0.9, 0.8, 0.1]], np.float32)
    expected = np.exp((np.array([0.95, 0.9, 0.8, 0.1]) - 0.95) / 0.1)
    np.testing.assert_allclose(vote_weights(similarity, 0.1)[0].numpy(), expected, rtol=1e-5)
    labels, truth = np.array([[0, 1, 1, 2]]), np.array([2])
    ranked = rank(similarity, labels, truth, 3, ([1, 2, 4], [0.04, 0.2]))
    assert {point: int(answer.predicted) for point, answer in ranked.items()} == {
        (1, 0.04): 0,
        (2, 0.04): 0,
        (4, 0.04): 0,
        (1, 0.2): 0,
        (2, 0.2): 0,
        (4, 0.2): 1,
    }
    # With four neighbours class 2 is last of three; with fewer it has no vote, and all three are before it.
    assert [int(answer.true_rank) for answer in ranked.values()] == [3, 3, 2] * 2
    assert ranked[4, 0.2].metrics() == {"top1": 0, "class_balanced": 0}


def test_a_class_without_a_vote_is_not_among_the_first_five() -> None:
    similarity, labels, truth = np.ones((6, 1), np.float32), np.full((6, 1), 5), np.arange(6)
    ranked = rank(similarity, labels, truth, 6, ([1], [0.07]))[1, 0.07]
    assert ranked.metrics() == pytest.approx({"top1": 100 / 6, "top5": 100 / 6, "class_balanced": 100 / 6})
    # A vote that is too small to be told from none still is one.
    ranked = rank(np.array([[1, 0.5]], np.float32), np.array([[0, 4]]), np.array([4]), 6, ([2], [1e-4]))[2, 1e-4]
    assert ranked.metrics() == {"top1": 0, "top5": 100, "class_balanced": 0}


@pytest.mark.parametrize(("classes", "reported"), [(4, False), (5, False), (6, True)])
def test_top5_needs_more_than_five_classes(classes: int, reported: bool) -> None:
    truth = np.arange(classes)
    ranked = rank(np.ones((classes, 1), np.float32), truth[:, None], truth, classes, ([1], [0.07]))[1, 0.07]
    assert ("top5" in ranked.metrics()) == reported


def loop_knn(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int, classes: int) -> list[int]:
    answers = []
    for query in queries.astype(np.float64):
        cosines = [b @ query / (np.linalg.norm(b) * np.linalg.norm(query)) for b in bank.astype(np.float64)]
        nearest = sorted(range(len(bank)), key=lambda i: (-cosines[i], i))[:k]
        scores = [sum(np.exp(cosines[i] / 0.07) for i in nearest if labels[i] == c) for c in range(classes)]
        answers.append(int(np.argmax(scores)))
    return answers


@pytest.mark.parametrize(("n", "q", "k"), [(50, 7, 5), (50, 1, 200), (3, 4, 20)])
def test_equals_loops_also_with_few_queries_and_large_k(n: int, q: int, k: int) -> None:
    rng = np.random.default_rng(n + q)
    bank, queries = rng.normal(size=(n, 8)).astype(np.float32), rng.normal(size=(q, 8)).astype(np.float32)
    labels = rng.integers(0, 3, n)
    similarity, row = neighbours(bank, queries, k)
    truth = rng.integers(0, 3, q)
    ranked = rank(similarity, labels[row], truth, 3, ([1, k], [0.07]))
    for some in (1, k):
        assert ranked[some, 0.07].predicted.tolist() == loop_knn(bank, labels, queries, some, 3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), copies=st.integers(2, 4))
def test_copies_of_the_bank_change_nothing_with_as_many_times_the_neighbours(seed: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    bank, queries = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    labels, truth = rng.integers(0, 4, 40), rng.integers(0, 4, 9)
    once, often = (
        rank(s, np.tile(labels, n)[row], truth, 4, ([5 * n], [0.07]))[5 * n, 0.07]
        for n, (s, row) in ((n, neighbours(np.tile(bank, (n, 1)), queries, 5 * n)) for n in (1, copies))
    )
    assert once.predicted.tolist() == often.predicted.tolist()
    assert once.true_rank.tolist() == often.true_rank.tolist()


def test_no_chunk_of_the_queries_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    similarity = -np.sort(-rng.uniform(-1, 1, (50, 30)).astype(np.float32), axis=1)
    labels, truth = rng.integers(0, 7, (50, 30)), rng.integers(0, 7, 50)
    whole = rank(similarity, labels, truth, 7, ([3, 30], [0.1]))
    monkeypatch.setattr("cgh_bench.frozen.metrics.QUERIES_PER_VOTE", 7)
    parts = rank(similarity, labels, truth, 7, ([3, 30], [0.1]))
    assert all(whole[point].true_rank.tolist() == parts[point].true_rank.tolist() for point in whole)


def test_an_image_is_not_its_own_neighbour() -> None:
    similarity = np.array([[1, 0.9, 0.8], [1, 1, 1], [1, 0.5, 0.2]], np.float32)
    row = np.array([[0, 4, 5], [7, 8, 9], [3, 2, 1]])  # the second is missing from its own: it has equals enough
    others, numbers = without_self(similarity, row, np.array([0, 10, 2]))
    assert numbers.tolist() == [[4, 5], [7, 8], [3, 1]]
    np.testing.assert_array_equal(others, np.array([[0.9, 0.8], [1, 1], [1, 0.2]], np.float32))


def test_no_temperature_overflows() -> None:
    weights = vote_weights(np.array([[1.0, 0.5], [-0.2, -0.9]], np.float32), 1e-4)
    assert weights[:, 0].tolist() == [1, 1]
    assert (weights[:, 1] > 0).all() and (weights[:, 1] < 1e-300).all()


def test_an_index_that_found_nothing_is_not_right() -> None:
    """As an approximate index does whose cells near the image are empty: -inf for each neighbour that is missing."""
    similarity = np.array([[-np.inf, -np.inf], [0.5, -np.inf]], np.float32)
    assert vote_weights(similarity, 0.07).tolist() == [[0, 0], [1, 0]]
    ranked = rank(similarity, np.array([[0, 0], [2, 0]]), np.array([2, 2]), 3, ([2], [0.07]))[2, 0.07]
    assert ranked.true_rank.tolist() == [3, 0]


def test_accuracies_by_hand() -> None:
    scores = torch.tensor([[3.0, 2, 1], [1, 1, 1], [0, 5, 1], [9, 1, 2]])
    truth = torch.tensor([0, 2, 2, 1])
    assert true_ranks(scores[:, None], truth)[:, 0].tolist() == [0, 2, 1, 2]  # of equals the earlier class is first
    assert class_balanced_accuracy(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 2])) == pytest.approx(1 / 3)


def average_precision_by_loops(scores: list[float], truth: list[int], points: int = 0) -> float:
    ordered = [right for _, right in sorted(zip(scores, truth, strict=True), reverse=True)]
    precision = [sum(ordered[: n + 1]) / (n + 1) for n in range(len(ordered))]
    if not points:
        return sum(p for p, right in zip(precision, ordered, strict=True) if right) / sum(ordered)
    recall = [sum(ordered[: n + 1]) / sum(ordered) for n in range(len(ordered))]
    steps = [
        max((p for p, r in zip(precision, recall, strict=True) if r >= t - 1e-9), default=0)
        for t in (step / (points - 1) for step in range(points))
    ]
    return sum(steps) / points


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 30))
def test_average_precision_equals_loops(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.permutation(n)[:, None] / n, rng.integers(0, 2, (n, 1))
    truth[0] = 1
    expected = average_precision_by_loops(scores[:, 0].tolist(), truth[:, 0].tolist())
    eleven = average_precision_by_loops(scores[:, 0].tolist(), truth[:, 0].tolist(), 11)
    assert average_precisions(scores, truth)[0] == pytest.approx(expected)
    assert average_precisions_11_points(scores, truth)[0] == pytest.approx(eleven)


def test_what_is_not_counted_counts_nowhere() -> None:
    scores, truth = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3]]), np.array([[-1, 0], [1, 0], [0, -1]])
    assert average_precisions(scores, truth)[0] == 1
    assert np.isnan(average_precisions(scores, truth)[1])
    weights, labels = np.array([[1.0, 0.5, 0.5]]), np.array([[[1, -1], [0, -1], [-1, -1]]])
    np.testing.assert_allclose(shares(weights, labels), [[1 / 1.5, 0]])


def test_bad_settings_and_missing_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="above zero"):
        KNN(k=0)
    with pytest.raises(UserError, match="--data FOLDER"):
        KNN().load_data(tmp_path)


@pytest.fixture(scope="module")
def backbone() -> Checkpoint:
    return random_checkpoint("test_resnet")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "run").mkdir()
    return Folders(tmp_path / "run", tmp_path / "cache")


def toy(name: str = "toy", count: int = 12) -> DataPair:
    """Three shades of grey and a little noise; the class "none" occurs nowhere in val."""
    return DataPair(name, shades(f"{name}/train", 24, name), shades(f"{name}/val", count, name, classes=3))


def shades(name: str, n: int, kind: str, classes: int = 4) -> GreyImages:
    rng = np.random.default_rng(n)
    labels = np.arange(n) % classes
    noise = rng.integers(0, 20, (n, 32, 32))
    pattern = np.indices((32, 32)).sum(axis=0)[None] * (labels[:, None, None] + 1) * 7 % 200
    pixels = (pattern + noise).astype(np.uint8)
    shown = np.eye(4, dtype=np.int64)[labels] if kind == "several" else labels
    return GreyImages(name, ("a", "b", "c", "none"), shown, name, pixels)


SINGLE_LABEL: dict[str, ImageTask] = {
    "knn": KNN("toy", AS_IS, k=3),
    "leave_one_out": LeaveOneOut("toy", AS_IS, k=3),
    "few_shot": KNNFewShot("toy", AS_IS, shots=2, repeats=3),
    "ridge": RidgeFewShot("toy", AS_IS, shots=2),
    "grid": KNNGrid("toy", AS_IS, features=("layer1", "layer4"), ks=(1, 200), selection_images=10),
    "approximate": KNNApproximate("toy", AS_IS, k=3, index="IVF2,Flat", search="nprobe=2"),
}


@pytest.mark.parametrize("name", SINGLE_LABEL)
def test_every_task_runs_also_with_one_val_image_and_absent_classes(
    name: str, backbone: Checkpoint, folders: Folders
) -> None:
    task = SINGLE_LABEL[name]
    for data in (toy(), toy("single", 1)):
        task.check(data)
        metrics = task.run(backbone, data, folders, 0)
        assert {metric.name for metric in task.METRICS if metric.always} <= metrics.keys()
        assert metrics["top1"] >= 90
        assert task.run(backbone, data, folders, 0) == metrics
        assert any("in the cache" in line for line in task.plan(backbone, data, folders))
    with pytest.raises(UserError, match="multi-label"):
        task.check(toy("several"))


def test_what_a_run_leaves_behind(backbone: Checkpoint, folders: Folders) -> None:
    KNN("toy", AS_IS, k=3).run(backbone, toy(), folders, 0)
    with (folders.run / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["train"], row["val"]) for row in rows] == [
        ("a", "6", "4"),
        ("b", "6", "4"),
        ("c", "6", "4"),
        ("none", "6", "0"),
    ]
    assert rows[3]["accuracy"] == ""
    KNNGrid("toy", AS_IS, features=("layer4",), ks=(1, 5), temperatures=(0.1,)).run(backbone, toy(), folders, 0)
    grid = json.loads((folders.run / "grid.json").read_text())
    assert [point[:3] for point in grid["points"]] == [["layer4", 1, 0.1], ["layer4", 5, 0.1]]


def test_the_grid_is_the_tasks_of_its_points(backbone: Checkpoint, folders: Folders) -> None:
    KNNGrid("toy", AS_IS, features=("layer2",), ks=(2, 7), temperatures=(0.05, 1.0), selection_images=24).run(
        backbone, toy(), folders, 0
    )
    for feature, k, temperature, on_train, on_val in json.loads((folders.run / "grid.json").read_text())["points"]:
        alone = LeaveOneOut("toy", AS_IS, feature, "train", k, temperature).run(backbone, toy(), folders, 0)
        assert on_train == alone["top1"]
        assert on_val == KNN("toy", AS_IS, feature, k, (), temperature).run(backbone, toy(), folders, 0)["top1"]


def test_several_classes_an_image(backbone: Checkpoint, folders: Folders) -> None:
    metrics = KNNMultiLabel("several", AS_IS, k=3).run(backbone, toy("several"), folders, 0)
    assert min(metrics.values()) > 95
    with pytest.raises(UserError, match="use the task knn"):
        KNNMultiLabel("toy", AS_IS).check(toy())


@pytest.mark.parametrize("task", [KNNGrid("one", AS_IS), LeaveOneOut("one", AS_IS)])
def test_one_image_has_no_others(task: ImageTask) -> None:
    one = shades("one/train", 1, "one")
    with pytest.raises(UserError, match="one/train has one image; leave-one-out needs"):
        task.check(DataPair("one", one, shades("one/val", 2, "val")))


def test_splits_of_other_classes_are_refused() -> None:
    other = GreyImages("zoo/val", ("a", "b"), np.zeros(1, np.int64), "f", np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(UserError, match="train and val of zoo have different classes; only in train: c, none$"):
        DataPair("zoo", shades("zoo/train", 4, "zoo"), other)


def test_too_few_images_for_the_shots(backbone: Checkpoint, folders: Folders) -> None:
    with pytest.raises(UserError, match=r"class 'a' has 6 train images, but 7 are needed"):
        KNNFewShot("toy", AS_IS, shots=7).check(toy())
    few = KNNFewShot("toy", AS_IS, "layer1", shots=1, repeats=5).run(backbone, toy(), folders, 0)
    top1 = json.loads((folders.run / "repeats.json").read_text())["top1"]
    assert few["top1_std"] == pytest.approx(np.std(top1, ddof=1))


def test_an_approximate_index_that_cannot_be_is_one_line(backbone: Checkpoint, folders: Folders) -> None:
    for index, search, why in (
        ("IVF4096,Flat", "nprobe=1", r"on 24 rows: Number of training points \(24\) should be at least"),
        ("Nonsense", "nprobe=1", "Nonsense"),
        ("IVF2,Flat", "efSearch=1", "efSearch"),
    ):
        with pytest.raises(UserError, match=rf"^faiss cannot use index '{index}' with search '{search}' .*{why}"):
            KNNApproximate("toy", AS_IS, index=index, search=search).run(backbone, toy(), folders, 0)


@pytest.mark.parametrize(("shots", "width"), [(3, 40), (30, 8)])
def test_ridge_is_that_of_scikit_learn(shots: int, width: int) -> None:
    """In both forms: fewer images than features, and more."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), shots)
    train = (random.normal(3, 2, (len(labels), width)) + labels[:, None]).astype(np.float32)
    queries = random.normal(4, 2, (50, width)).astype(np.float32)
    mean, deviation = train.mean(axis=0, dtype=float), train.std(axis=0, dtype=float) + 1e-5
    x, asked = (np.hstack([(part - mean) / deviation, np.full((len(part), 1), 100.0)]) for part in (train, queries))
    reference = Ridge(alpha=1024, fit_intercept=False, solver="svd").fit(x, 2 * np.eye(4)[labels] - 1).predict(asked)
    np.testing.assert_allclose(ridge(train, labels, queries, 1024, 100), reference, atol=1e-6)
