import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cgh_bench.frozen import probe
from cgh_bench.frozen.probe import minimise

DECAYS = (1e-3, 1e-2, 0.1, 1.0)


def clusters(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    features = rng.normal(size=(n, dim)) + 0.5 * rng.normal(size=(classes, dim))[labels]
    return (3 + 2 * features).astype(np.float32), labels


@pytest.mark.parametrize("rows_per_pass", [64, 16_384])
def test_every_head_is_scikit_learns_optimum(rows_per_pass: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ROWS_PER_PASS", rows_per_pass)
    features, labels = clusters(400, 12, 5)
    task = probe.problem(features, labels, np.arange(400))
    heads = probe.fit(task, DECAYS, torch.zeros(len(DECAYS), 13, 5), 500, 1e-6)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    for decay, head in zip(DECAYS, heads, strict=True):
        best = LogisticRegression(C=1 / (decay * 400), tol=1e-10, max_iter=10_000).fit(standardised, labels)
        expected = np.concatenate([best.coef_.T, best.intercept_[None]])
        centred = [w - w.mean(axis=1, keepdims=True) for w in (head.numpy(), expected)]
        np.testing.assert_allclose(centred[0], centred[1], atol=2e-3)
        predicted, logits = probe.judge(task, head[None], 0)
        np.testing.assert_array_equal(predicted[:, 0].numpy(), best.predict(standardised))
        assert torch.equal(logits.argmax(dim=1), predicted[:, 0])


def test_a_head_does_not_depend_on_its_companions() -> None:
    features, labels = clusters(200, 6, 3)
    task = probe.problem(features, labels, np.arange(200))
    together = probe.fit(task, DECAYS, torch.zeros(len(DECAYS), 7, 3), 300, 1e-6)
    alone = probe.fit(task, DECAYS[1:2], torch.zeros(1, 7, 3), 300, 1e-6)
    torch.testing.assert_close(together[1], alone[0], atol=1e-3, rtol=1e-3)


def test_a_feature_that_never_varies_is_ignored() -> None:
    features, labels = clusters(100, 4, 3)
    constant = np.concatenate([features, np.full((100, 1), 7.3, np.float32)], axis=1)
    task = probe.problem(constant, labels, np.arange(100))
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
        return (gap * gradient).sum(dim=1) / 2, gradient

    found = minimise(objective, torch.zeros(3, 8, dtype=torch.float64), 200, 1e-8)
    torch.testing.assert_close(found, target, atol=1e-6, rtol=0)
