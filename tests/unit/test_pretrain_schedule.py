"""Learning rate, parameter groups and the order of the data: functions of recipe and step alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.checkpoint import Preprocessing
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages
from cgh_bench.pretrain.augmentation import finish
from cgh_bench.pretrain.batches import Batches, loader
from cgh_bench.pretrain.methods.random_init import RandomInit
from cgh_bench.pretrain.optimisation import learning_rate, optimizer
from cgh_bench.pretrain.recipe import Recipe, find
from cgh_bench.pretrain.views import Augment, Views

RECIPE = Recipe(
    method=RandomInit(),
    architecture=ResNet("resnet18"),
    views=Views((Augment(size=8, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0), Augment(size=8, flip=0.5))),
    data="none",
    epochs=4,
    batch_size=3,
    base_lr=0.8,
    warmup_epochs=1,
)


def numbered(n=11):
    """Image i is of the one grey level i."""
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 8, 8))
    return GreyImages("numbered/train", ("a",), np.zeros(n, np.int64), "0" * 16, pixels)


def seen(batches, steps):
    return [(batches[step].views[0][:, 0, 4, 4] * 255).round().int().tolist() for step in steps]


def test_the_rate_rises_from_zero_and_falls_by_half_a_cosine():
    peak = 0.8 * 3 / 256
    assert learning_rate(RECIPE, 0) == 0 and learning_rate(RECIPE, 0.25) == pytest.approx(peak / 4)
    assert learning_rate(RECIPE, 1) == pytest.approx(peak) and learning_rate(RECIPE, 2.5) == pytest.approx(peak / 2)
    assert learning_rate(RECIPE, 2) == pytest.approx(peak * (1 + math.cos(math.pi / 3)) / 2)
    assert learning_rate(RECIPE, 4) == pytest.approx(0, abs=1e-12)
    assert learning_rate(replace(RECIPE, warmup_epochs=0), 0) == peak
    assert learning_rate(replace(RECIPE, batch_size=6), 1) == pytest.approx(2 * peak)


def test_norms_and_biases_do_not_decay_wherever_they_are():
    """Also the norm of a shortcut, which the released code's test of names overlooks."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.Linear(4, 2), nn.Linear(2, 2))
    network[3].requires_grad_(False)
    decaying, other = optimizer(replace(RECIPE, weight_decay=0.3), network).param_groups
    assert decaying["weight_decay"] == 0.3 and other["weight_decay"] == 0
    assert [id(p) for p in decaying["params"]] == [id(network[0].weight), id(network[2].weight)]
    assert {p.ndim for p in other["params"]} == {1} and len(other["params"]) == 4


def test_momentum_is_the_first_beta_of_adamw():
    adamw = optimizer(replace(RECIPE, optimizer="adamw", momentum=0.8), nn.Linear(2, 2))
    assert type(adamw) is torch.optim.AdamW and adamw.param_groups[0]["betas"] == (0.8, 0.999)
    sgd = optimizer(replace(RECIPE, momentum=0.8), nn.Linear(2, 2))
    assert type(sgd) is torch.optim.SGD and sgd.param_groups[0]["momentum"] == 0.8


def test_an_epoch_has_each_image_at_most_once_and_epochs_differ():
    batches = Batches(RECIPE, numbered())
    assert len(batches) == 4 * 3 and batches.per_epoch == 3
    epochs = [[i for batch in seen(batches, range(3 * e, 3 * e + 3)) for i in batch] for e in range(4)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set().union(*epochs) == set(range(11)), "what one epoch leaves out another has"


def test_a_step_is_the_same_whenever_it_is_asked_for():
    one, two = Batches(RECIPE, numbered()), Batches(RECIPE, numbered())
    late = [view.clone() for view in one[7].views]
    for _ in loader(two, 0):
        pass
    assert all(torch.equal(a, b) for a, b in zip(late, two[7].views, strict=True))
    assert seen(Batches(replace(RECIPE, seed=1), numbered()), [0]) != seen(one, [0])
    rest = [[view.tolist() for view in batch.views] for batch in loader(one, 9)]
    assert rest == [[view.tolist() for view in one[step].views] for step in (9, 10, 11)]


def test_the_loader_leaves_the_global_generator_alone():
    """Else a resumed run would shuffle the teacher's batch in another way."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(loader(Batches(RECIPE, numbered()), 0)))
    assert torch.equal(before, torch.get_rng_state())


def test_views_of_a_step_differ_from_each_other_and_between_steps(monkeypatch):
    same = replace(RECIPE, views=Views((RECIPE.views.augments[1],) * 2), batch_size=11)
    noise = np.random.default_rng(0).integers(0, 255, (11, 8, 8)).astype(np.uint8)
    batches = Batches(same, replace(numbered(), pixels=noise))
    first, second = batches[0].views, batches[1].views
    assert not torch.equal(*first) and not torch.equal(first[0], second[0])


@pytest.mark.parametrize("side", [8, 40])
def test_views_that_are_only_cut_are_finished_as_those_made_at_once(side):
    """Small images are sampled at once, larger ones cut one by one; a GPU's second half is the same code."""
    strong = Augment(size=12, rotation_degrees=20, jitter=0.8, brightness=0.4, saturation=0.4, grey=0.5, blur=0.5)
    recipe = replace(RECIPE, views=Views((strong, replace(strong, solarize=0.5))))
    noise = np.random.default_rng(0).integers(0, 255, (11, side, side)).astype(np.uint8)
    whole, cut = (Batches(recipe, replace(numbered(), pixels=noise), for_gpu=gpu) for gpu in (False, True))
    for augment, view, half in zip(recipe.views.augments, whole[1].views, cut[1].views, strict=True):
        assert half.pixels.dtype == torch.uint8
        torch.testing.assert_close(finish(augment, half), view, rtol=0, atol=0)


def test_processes_share_out_the_same_global_batch(monkeypatch):
    recipe = replace(RECIPE, batch_size=6)
    whole = Batches(recipe, numbered())[1].views
    parts = []
    for rank in range(2):
        monkeypatch.setattr(dist, "world_size", lambda: 2)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        parts.append(Batches(recipe, numbered())[1].views)
    for one, two in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(two), rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", [{"epochs": -1}, {"batch_size": 0}, {"warmup_epochs": -1.0}])
def test_impossible_recipes_are_refused(change):
    with pytest.raises(UserError, match="must be at least"):
        replace(RECIPE, **change)


def test_the_published_recipe_has_its_published_numbers():
    recipe = find("cgh_r50_in1k_200ep")
    assert (recipe.epochs, recipe.warmup_epochs, recipe.batch_size, recipe.base_lr) == (200, 5, 256, 0.05)
    assert (recipe.momentum, recipe.weight_decay, recipe.preprocessing) == (0.9, 1e-4, Preprocessing())
    weak, strong = recipe.views.augments
    assert (weak.size, weak.crop_area, weak.flip, weak.jitter, weak.blur) == (224, (0.2, 1.0), 0.5, 0, 0)
    assert (strong.jitter, strong.brightness, strong.contrast, strong.saturation, strong.hue) == (
        0.8,
        0.4,
        0.4,
        0.4,
        0.1,
    )
    assert (strong.grey, strong.blur, strong.blur_sigma, strong.crop_area) == (0.2, 0.5, (0.1, 2.0), (0.2, 1.0))
    assert learning_rate(recipe, 5) == 0.05
