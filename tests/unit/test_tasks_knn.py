from pathlib import Path

import numpy as np
import pytest
import torch

from cgh_bench.errors import UserError
from cgh_bench.metrics import class_balanced_accuracy, top_accuracy
from cgh_bench.neighbours import neighbours
from cgh_bench.tasks.knn import KNN, vote_weights, votes


def test_four_points_by_hand() -> None:
    # Two neighbours at similarity .9 and .8 of class 1 against one at .95 of class 0: with T = .1 class 1 wins.
    similarity = np.array([[0.95, 0.9, 0.8, 0.1]], np.float32)
    labels = torch.tensor([[0, 1, 1, 2]])
    scores = votes(vote_weights(similarity, 0.1), labels, 3)
    expected = np.exp((np.array([0.95, 0.9, 0.8, 0.1]) - 0.95) / 0.1)
    np.testing.assert_allclose(scores[0].numpy(), [expected[0], expected[1] + expected[2], expected[3]], rtol=1e-5)
    assert scores.argmax() == 0
    assert votes(vote_weights(similarity, 0.2), labels, 3).argmax() == 1


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
    scores = votes(vote_weights(similarity, 0.07), torch.tensor(labels[row]), 3)
    assert scores.argmax(dim=1).tolist() == loop_knn(bank, labels, queries, k, 3)


def test_no_temperature_overflows() -> None:
    weights = vote_weights(np.array([[1.0, 0.5], [-0.2, -0.9]], np.float32), 1e-4)
    assert weights.tolist() == [[1, 0], [1, 0]]


def test_accuracies_by_hand() -> None:
    scores = torch.tensor([[3.0, 2, 1], [1, 1, 1], [0, 5, 1], [9, 1, 2]])
    truth = torch.tensor([0, 2, 2, 1])
    assert top_accuracy(scores, truth, 1) == 0.25
    assert top_accuracy(scores, truth, 2) == 0.5  # an equal score of an earlier class ranks before
    assert top_accuracy(scores, truth, 5) == 1
    assert class_balanced_accuracy(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 2])) == pytest.approx(1 / 3)


def test_bad_settings_and_missing_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="above zero"):
        KNN(k=0)
    with pytest.raises(UserError, match="--data FOLDER"):
        KNN().data_fingerprint(tmp_path)
