"""Our views of a JPEG are drawn from the distribution of the usual pipeline's: moments and quantiles agree."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from data_path import usual_transforms

from cgh_bench.pretrain.augmentation import DRAWS
from cgh_bench.pretrain.recipe import find

N = 400


def picture():
    """Colours that change smoothly, so that place, size, mirror and colour of a view all show in its statistics."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)


def statistics(views):
    """(N, 8): of each view (N, 3, S, S), mean and deviation, colourfulness, left against right, top against bottom,
    sharpness, and the quantiles of its brightness."""
    grey = views.mean(dim=1)
    half = views.shape[-1] // 2
    return torch.stack(
        [
            grey.mean(dim=(1, 2)),
            grey.std(dim=(1, 2)),
            (views.amax(dim=1) - views.amin(dim=1)).mean(dim=(1, 2)),
            (grey[:, :, :half] - grey[:, :, half:]).mean(dim=(1, 2)),
            (grey[:, :half] - grey[:, half:]).mean(dim=(1, 2)),
            grey.diff(dim=2).abs().mean(dim=(1, 2)).log(),
            grey.flatten(1).quantile(0.05, dim=1),
            grey.flatten(1).quantile(0.95, dim=1),
        ],
        dim=1,
    )


@pytest.mark.parametrize("which", [0, 1], ids=["weak", "strong"])
def test_views_are_distributed_as_the_usual_pipelines(which):
    """Kolmogorov and Smirnov's largest distance between two samples, below what chance gives once in 10,000 runs."""
    recipe = find("cgh_r50_in1k_200ep")
    augment, image = replace(recipe.views.augments[which], size=64), picture()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    ours = augment([pixels] * N, torch.rand(N, DRAWS, generator=torch.Generator().manual_seed(0)))

    random.seed(0)
    torch.manual_seed(1)
    transform = usual_transforms()[which]
    transform.transforms[0].size = (64, 64)
    theirs = torch.stack([transform(image) for _ in range(N)])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.preprocessing.mean, recipe.preprocessing.std))
    # Rounded: a view without colour has exactly none here, and a rounding error of it there.
    mine, its = (statistics(views).round(decimals=4) for views in (ours, theirs * std + mean))
    for column in range(mine.shape[1]):
        grid = torch.cat([mine[:, column], its[:, column]]).sort().values
        a, b = (torch.searchsorted(s[:, column].sort().values, grid, right=True) / N for s in (mine, its))
        assert float((a - b).abs().max()) < 2.23 * (2 / N) ** 0.5, f"statistic {column}"
