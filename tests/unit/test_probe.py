from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax as softmax_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cgh_bench.frozen import metrics, probe, search
from cgh_bench.frozen.features import FeatureBank
from cgh_bench.frozen.lbfgs import minimise
from cgh_bench.frozen.selection import Grid

DECAYS = (1e-6, 1e-3, 1e-2, 0.1, 1.0, 10.0)


def clusters(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    features = rng.normal(size=(n, dim)) + 0.5 * rng.normal(size=(classes, dim))[labels]
    return (3 + 2 * features).astype(np.float32), labels


@pytest.mark.parametrize("rows_per_pass", [64, 16_384])
def test_every_head_is_scikit_learns_optimum(rows_per_pass: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ROWS_PER_PASS", rows_per_pass)
    features, labels = clusters(400, 12, 5)
    task = probe.problem(features, labels, 5, np.arange(400))
    heads, converged = probe.fit(task, DECAYS, 300, 1e-9)
    assert converged.all()
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    for decay, head in zip(DECAYS, heads, strict=True):
        best = LogisticRegression(C=1 / (decay * 400), tol=1e-10, max_iter=10_000).fit(standardised, labels)
        expected = np.concatenate([best.coef_.T, best.intercept_[None]])
        centred = [w - w.mean(axis=1, keepdims=True) for w in (head.numpy(), expected)]
        np.testing.assert_allclose(centred[0], centred[1], atol=2e-3)
        predicted, logits = probe.judge(task, head[None], 0)
        np.testing.assert_array_equal(predicted[:, 0].numpy(), best.predict(standardised))
        assert torch.equal(logits.argmax(dim=1), predicted[:, 0])


def test_the_optimum_is_found_where_it_is_far_away() -> None:
    """Few images of many features that vary in few directions: they can be told apart, and weak decays take long."""
    draw = np.random.default_rng(1)
    inner, labels = clusters(300, 20, 5)
    features = (inner @ (draw.normal(size=(20, 60)) * np.geomspace(1, 0.02, 20)[:, None])).astype(np.float32)
    task = probe.problem(features, labels, 5, np.arange(300))
    heads, converged = probe.fit(task, (1e-6, 1e-4), 300, 1e-6)
    assert converged.all()
    standardised = (features.astype(np.float64) - features.mean(axis=0)) / features.std(axis=0)

    def objective(weights: np.ndarray, bias: np.ndarray, decay: float) -> float:
        return log_loss(labels, softmax_of(standardised @ weights + bias, axis=1)) + decay / 2 * float(
            (weights**2).sum()
        )

    for decay, head in zip((1e-6, 1e-4), heads.double().numpy(), strict=True):
        best = LogisticRegression(C=1 / (decay * 300), tol=1e-9, max_iter=20_000, solver="newton-cg")
        best.fit(standardised, labels)
        least = objective(best.coef_.T, best.intercept_, decay)
        assert objective(head[:-1], head[-1], decay) == pytest.approx(least, rel=2e-4)
        same = (standardised @ head[:-1] + head[-1]).argmax(axis=1) == best.predict(standardised)
        assert same.mean() > 0.99


def bank(features: np.ndarray, labels: np.ndarray) -> FeatureBank:
    return FeatureBank(features, labels, tuple("abc"), "")


def test_the_strongest_of_tied_decays_is_chosen_and_what_has_not_converged_is_said() -> None:
    features, labels = clusters(90, 4, 3)
    features[:, 0] += 100 * labels  # so easy that every decay is right
    train, val, split = bank(features[:60], labels[:60]), bank(features[60:], labels[60:]), np.arange(60)
    for decays, index in (((1e-3, 1e-2, 1e-4), 1), ((1e-4, 1e-2), 1)):
        choice = search.choose(train, val, (split[:40], split[40:]), Grid(decays, 300, 1e-6), metrics.accuracy)
        assert choice.held_out == [100.0] * len(decays)
        assert choice.index == index
        assert choice.share_converged == 100
    choice = search.choose(train, val, (split[:40], split[40:]), Grid((1e-6, 10.0), 12, 1e-6), metrics.accuracy)
    assert choice.converged == [False, True]
    assert choice.share_converged == 50


def test_a_path_comes_to_the_same_optimum() -> None:
    features, labels = clusters(600, 20, 6)
    features[:, 3] = 7.3  # never varies
    classes, (fitted, held) = tuple("abcdef"), np.split(np.arange(400), [300])
    train, val = (FeatureBank(features[rows], labels[rows], classes, "") for rows in (slice(400), slice(400, 600)))
    exact, along = (
        search.choose(train, val, (fitted, held), Grid(DECAYS, 300, 1e-8, path), metrics.accuracy)
        for path in (False, True)
    )
    assert (along.index, along.converged) == (exact.index, [True] * len(DECAYS))
    assert along.val[along.index] == exact.val[exact.index]
    torch.testing.assert_close(along.scores, exact.scores, atol=2e-3, rtol=1e-3)


def test_a_classifier_of_one_standardisation_is_the_same_of_another() -> None:
    features, labels = clusters(100, 5, 3)
    features[:, 2] = 1.0
    some, every = (probe.problem(features, labels, 3, np.arange(rows)) for rows in (60, 100))
    heads, _ = probe.fit(some, (1e-2, 1.0), 100, 1e-6)
    _, before = probe.judge(some, heads, 1)
    _, after = probe.judge(replace(every, rows=some.rows), search.standardised_as(every, heads, some), 1)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_labels_of_val_change_no_choice() -> None:
    features, labels = clusters(300, 8, 3)
    rows = np.arange(200)
    train, choices = bank(features[:200], labels[:200]), []
    for seen in (labels[200:], np.random.default_rng(0).permutation(labels[200:])):
        for path in (False, True):
            grid = Grid((1e-4, 1e-2, 1.0), 100, 1e-6, path)
            choices.append(
                search.choose(train, bank(features[200:], seen), (rows[:150], rows[150:]), grid, metrics.accuracy)
            )
    for one, other in zip(choices[:2], choices[2:], strict=True):
        assert (one.index, one.held_out) == (other.index, other.held_out)
        assert torch.equal(one.scores, other.scores)
        assert one.val != other.val


def test_a_head_does_not_depend_on_its_companions() -> None:
    features, labels = clusters(200, 6, 3)
    task = probe.problem(features, labels, 3, np.arange(200))
    together, _ = probe.fit(task, DECAYS, 300, 1e-6)
    alone, _ = probe.fit(task, DECAYS[1:2], 300, 1e-6)
    torch.testing.assert_close(together[1], alone[0], atol=1e-3, rtol=1e-3)


def test_a_feature_that_never_varies_is_ignored() -> None:
    features, labels = clusters(100, 4, 3)
    constant = np.concatenate([features, np.full((100, 1), 7.3, np.float32)], axis=1)
    task = probe.problem(constant, labels, 3, np.arange(100))
    assert torch.equal(task.read(np.arange(5))[0][:, 4], torch.zeros(5))


def test_quadratics_are_solved_each_at_its_own_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    scale = torch.tensor([1.0, 100.0, 1e4], dtype=torch.float64)
    hessians = scale[:, None, None] * (factors @ factors.mT + torch.eye(8, dtype=torch.float64))
    target = torch.randn(3, 8, generator=generator, dtype=torch.float64)

    def objective(points: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gap = points - target[which]
        gradient = (hessians[which] @ gap[:, :, None])[:, :, 0]
        return (gap * gradient).sum(dim=1) / 2 + 1, gradient

    def unknown(values: torch.Tensor, which: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return vectors

    found, done = minimise(objective, torch.zeros(3, 8, dtype=torch.float64), 200, 1e-12, unknown)
    assert done.all()
    torch.testing.assert_close(found, target, atol=1e-6, rtol=0)
