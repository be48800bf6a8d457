import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

from cgh_bench.core.descent import Descent
from cgh_bench.frozen.heads import Heads
from cgh_bench.frozen.metrics import true_ranks

RATES = (0.01, 0.1, 1.0)
DECAYS = (0.0, 1e-3, 0.05)


def clusters(n: int = 60, dim: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    return torch.randn(n, dim, generator=generator) + torch.randn(classes, dim, generator=generator)[labels], labels


def first(dim: int = 6, classes: int = 4) -> torch.Tensor:
    weights = torch.randn(dim + 1, classes, generator=torch.Generator().manual_seed(1))
    weights[-1] = 0
    return weights


def heads_of(rates: tuple[float, ...], decays: tuple[float, ...], descent: Descent) -> Heads:
    return Heads(first(), torch.tensor(rates), torch.tensor(decays), descent)


def larc_by_hand(parameter: torch.Tensor, gradient: torch.Tensor, decay: float, trust: float) -> torch.Tensor:
    """What apex's LARC (clip=False) leaves in a gradient before SGD's own step."""
    p, g = parameter.norm().item(), gradient.norm().item()
    if p == 0 or g == 0:
        return gradient
    return (gradient + decay * parameter) * (trust * p / (g + p * decay + 1e-8))


def alone(rate: float, decay: float, descent: Descent, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One head by torch's own autograd and SGD."""
    features, labels = clusters()
    layer = torch.nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(first()[:-1].T)
        layer.bias.zero_()
    sgd = torch.optim.SGD(
        layer.parameters(), rate, momentum=descent.momentum, weight_decay=0 if descent.trust else decay
    )
    for step in range(steps):
        sgd.zero_grad()
        cross_entropy(layer(features), labels).backward()
        for parameter in layer.parameters() if descent.trust else ():
            parameter.grad = larc_by_hand(parameter.detach(), parameter.grad, decay, descent.trust)
        sgd.param_groups[0]["lr"] = rate * (1 - step / steps)
        sgd.step()
    return layer.weight.detach(), layer.bias.detach()


@pytest.mark.parametrize("descent", [Descent(), Descent(0.0), Descent(0.9, trust=0.02)], ids=["sgd", "plain", "lars"])
def test_every_head_ends_where_torch_takes_it_alone(descent: Descent) -> None:
    features, labels = clusters()
    heads = heads_of(RATES, DECAYS, descent)
    for step in range(12):
        heads.step(features, labels, 1 - step / 12)
    for number, (rate, decay) in enumerate(zip(RATES, DECAYS, strict=True)):
        weight, bias = alone(rate, decay, descent, 12)
        torch.testing.assert_close(heads.weights[:-1, number].T, weight, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(heads.weights[-1, number], bias, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("trust", [None, 0.02], ids=["sgd", "lars"])
def test_a_norm_without_scale_and_spared_biases_are_those_of_mae(trust: float | None) -> None:
    """By hand: torch's BatchNorm before a layer, whose bias neither decays nor is rescaled, as in util/lars.py."""
    features, labels = clusters()
    features = 5 + 3 * features
    layer, norm = torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(6, affine=False, eps=1e-6)
    with torch.no_grad():
        layer.weight.copy_(first()[:-1].T)
        layer.bias.zero_()
    momenta = [torch.zeros_like(p) for p in layer.parameters()]
    descent = Descent(0.9, trust, spare_biases=True)
    heads = Heads(
        first(), torch.tensor([0.5]), torch.tensor([0.05]), descent, torch.nn.BatchNorm1d(6, 1e-6, affine=False)
    )
    for part in (slice(0, 20), slice(20, 60), slice(10, 50)):
        layer.zero_grad()
        cross_entropy(layer(norm(features[part])), labels[part]).backward()
        heads.step(features[part], labels[part], 1.0)
        with torch.no_grad():
            for parameter, momentum in zip(layer.parameters(), momenta, strict=True):
                gradient = parameter.grad
                if parameter.ndim > 1:
                    gradient = gradient + 0.05 * parameter
                    slope = parameter.grad.norm() + 0.05 * parameter.norm()  # apex's; MAE decays nothing
                    gradient = gradient * (trust * parameter.norm() / slope) if trust else gradient
                momentum.mul_(0.9).add_(gradient)
                parameter.sub_(0.5 * momentum)
    torch.testing.assert_close(heads.weights[:-1, 0].T, layer.weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads.weights[-1, 0], layer.bias.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        heads.logits(features)[:, 0], layer(norm.eval()(features)).detach(), atol=1e-4, rtol=1e-4
    )
    again = Heads(
        first(), torch.tensor([0.5]), torch.tensor([0.05]), descent, torch.nn.BatchNorm1d(6, 1e-6, affine=False)
    )
    again.load_state_dict(heads.state_dict())
    assert torch.equal(again.logits(features), heads.logits(features))


def test_losses_are_torchs() -> None:
    features, labels = clusters()
    heads = heads_of(RATES, DECAYS, Descent())
    expected = cross_entropy(features @ first()[:-1], labels)
    torch.testing.assert_close(heads.step(features, labels, 1.0), expected.double().expand(3), rtol=1e-6, atol=0)


def test_sgd_comes_to_scikit_learns_optimum() -> None:
    features, labels = clusters()
    decay = 0.1
    heads = heads_of((0.2, 0.5), (decay, decay), Descent())
    for _ in range(800):
        heads.step(features, labels, 1.0)
    # SGD's weight decay takes the bias too: scikit-learn's intercept as one more feature.
    inputs = np.concatenate([features.numpy(), np.ones((len(features), 1))], axis=1)
    best = LogisticRegression(C=1 / (decay * len(labels)), fit_intercept=False, tol=1e-10).fit(inputs, labels.numpy())
    for number in range(2):
        np.testing.assert_allclose(heads.weights[:, number].T.numpy(), best.coef_, atol=1e-4)


def test_a_head_that_diverges_does_so_alone_and_is_never_right() -> None:
    features, labels = clusters()
    heads, sane = heads_of((1e30, 0.1), (1e10, 0.0), Descent()), heads_of((0.1,), (0.0,), Descent())
    for _ in range(20):
        heads.step(features, labels, 1.0)
        sane.step(features, labels, 1.0)
    assert not torch.isfinite(heads.weights[:, 0]).all()
    torch.testing.assert_close(heads.weights[:, 1], sane.weights[:, 0])
    wrong, right = heads.hits(features, labels, (1,))[0].tolist()
    assert wrong == 0
    assert right > 30


def test_ranks_by_hand() -> None:
    logits = torch.tensor([[[3.0, 1, 2], [0, 0, 0]], [[torch.nan] * 3, [1, 2, torch.inf]]])
    assert true_ranks(logits, torch.tensor([1, 1])).tolist() == [[2, 1], [3, 1]]


def test_hits_do_not_depend_on_the_rows_per_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters()
    heads = heads_of(RATES, DECAYS, Descent())
    whole = heads.hits(features, labels, (1, 2))
    monkeypatch.setattr("cgh_bench.frozen.heads.ROWS_PER_PASS", 7)
    assert torch.equal(heads.hits(features, labels, (1, 2)), whole)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(3)), seed=st.integers(0, 99))
def test_neither_the_order_of_heads_nor_of_images_matters(order: list[int], seed: int) -> None:
    features, labels = clusters()
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    straight = heads_of(RATES, DECAYS, Descent(trust=0.01))
    permuted = heads_of(tuple(RATES[i] for i in order), tuple(DECAYS[i] for i in order), Descent(trust=0.01))
    for _ in range(3):
        straight.step(features, labels, 1.0)
        permuted.step(features[rows], labels[rows], 1.0)
    torch.testing.assert_close(permuted.weights, straight.weights[:, order], atol=1e-6, rtol=1e-4)
