"""CKA and mutual neighbours against their definitions on whole matrices."""

from pathlib import Path

import command
import numpy as np
import pytest
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.frozen.similarity import cka, mutual_neighbours

RANDOM = np.random.default_rng(0)


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al., eq. 5, word by word."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    brackets = (
        np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
    )
    return float(brackets / (n * (n - 3)))


def test_cka_is_its_definition() -> None:
    x = RANDOM.normal(2, 1, (30, 7)).astype(np.float32)
    y = (x @ RANDOM.normal(size=(7, 12)) + RANDOM.normal(size=(30, 12))).astype(np.float32)
    grams = [np.asarray(part, np.float64) @ np.asarray(part, np.float64).T for part in (x, y)]
    reference = unbiased_hsic(*grams) / np.sqrt(unbiased_hsic(grams[0], grams[0]) * unbiased_hsic(grams[1], grams[1]))
    assert cka(x, y) == pytest.approx(reference, rel=1e-5)


def test_cka_knows_rotations_and_does_not_grow_with_the_width() -> None:
    x = RANDOM.normal(size=(60, 8)).astype(np.float32)
    turn, _ = np.linalg.qr(RANDOM.normal(size=(8, 8)))
    assert cka(x, (3 * x @ turn + 5).astype(np.float32)) == pytest.approx(1, abs=1e-5)
    wide = [RANDOM.normal(size=(60, 2000)).astype(np.float32) for _ in range(2)]
    assert abs(cka(*wide)) < 0.1  # the biased estimator gives 0.97
    with pytest.raises(UserError, match="are constant over images"):
        cka(x, np.ones((60, 3), np.float32))
    with pytest.raises(UserError, match="too few"):
        cka(x[:3], x[:3])


def test_mutual_neighbours_leave_out_the_image_itself() -> None:
    x, y = (RANDOM.normal(size=(20, 5)).astype(np.float32) for _ in range(2))
    expected = []
    for row in range(20):
        near = []
        for part in (x, y):
            unit = part / np.linalg.norm(part, axis=1, keepdims=True)
            order = [other for other in np.argsort(-(unit @ unit[row])) if other != row]
            near.append(set(order[:3]))
        expected.append(len(near[0] & near[1]) / 3)
    assert mutual_neighbours(x, y, 3) == pytest.approx(np.mean(expected))
    assert mutual_neighbours(x, x, 3) == 1
    equal = np.ones((9, 4), np.float32)
    assert 0 <= mutual_neighbours(equal, x[:9, :4], 3) <= 1
    with pytest.raises(UserError, match="too few"):
        mutual_neighbours(x, y, 20)


def test_the_command_compares_every_two(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for n in range(12):
            path = tmp_path / f"photos/{split}/{'ab'[n % 2]}/{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RANDOM.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    words = ("--data", "photos", "--resize", "32", "--crop", "32", "--k", "3")
    done = command.run(
        "features", "compare", "random:resnet18:0", "random:resnet18:1", "random:resnet18:0", *words, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "by chance: 27.3 %" in done.stdout
    assert "random:resnet18:0  random:resnet18:1  CKA " in done.stdout
    refused = command.run("features", "compare", "random:resnet18", *words, cwd=tmp_path)
    assert refused.returncode == 2
