"""What CGH's options compute: contexts, crossing, small crops, centres, the released code's split and decay."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cgh_bench.backbones.timm import Timm
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.networks.base import without_memory
from cgh_bench.pretrain.methods.cgh import Cgh
from cgh_bench.pretrain.optimisation import optimizer
from cgh_bench.pretrain.parts import SplitBatchNorm2d
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.relation import relation
from cgh_bench.pretrain.train import check

SMALL = Timm("test_resnet", (("zero_init_last", False),))
TINY = Cgh(dim_global=12, dim_hyper=10, hidden=16, queue_length=40, momentum=0.9, handover_epochs=0.0, bn_groups=1)


def build(config):
    torch.manual_seed(0)
    return config.build(SMALL).train()


def views(*sides):
    return [torch.randn(8, 3, s, s, generator=torch.Generator().manual_seed(s + i)) for i, s in enumerate(sides)]


def plain(z, queue, t, other, tau_s, tau_t, centre=0.0):
    target = ((t.double() @ other.double().T - centre) / tau_t).softmax(dim=1)
    return float(-(target * (z.double() @ queue.double().T / tau_s).log_softmax(dim=1)).sum(dim=1).mean())


def embeddings(config, batch):
    """Student's and teacher's of a copy, by context, and the queues as they were."""
    copied = build(config)
    mine, theirs = copied.student(batch[1]), copied.teacher(batch[0])
    queues = {c: copied.queues[c].clone() for c in config.contexts}
    return (
        copied,
        dict(zip(config.contexts, mine, strict=True)),
        dict(zip(config.contexts, theirs, strict=True)),
        queues,
    )


@pytest.mark.parametrize(
    "changes, sources",
    [
        ({}, {"global": "hyper", "hyper": "global"}),
        ({"crossed": False}, {"global": "global", "hyper": "hyper"}),
        ({"contexts": ("global",)}, {"global": "global"}),
        ({"contexts": ("hyper",)}, {"hyper": "hyper"}),
    ],
)
def test_which_context_learns_from_which(changes, sources):
    config, batch = replace(TINY, **changes), views(33, 33)
    _, mine, theirs, queues = embeddings(config, batch)
    got = build(config)(batch, 1.0)
    assert set(got) == {f"relation_{context}" for context in sources}
    student, teacher = {"global": 0.1, "hyper": 0.08}, {"global": 0.04, "hyper": 0.08}
    for c, other in sources.items():
        wanted = plain(mine[c], queues[c], theirs[other], queues[other], student[c], teacher[other]) / len(sources)
        assert got[f"relation_{c}"].item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("contexts", [("global",), ("hyper",)])
def test_one_context_has_no_idle_parameters(contexts):
    method = build(replace(TINY, contexts=contexts))
    sum(method(views(33, 33), 1.0).values()).backward()
    assert all(p.grad is not None for p in method.student.parameters())


def test_small_crops_are_averaged_into_the_global_relation():
    batch = views(33, 33, 20, 12)
    copied, mine, theirs, queues = embeddings(TINY, batch)
    crops = [copied.student(crop, ("global",))[0] for crop in batch[2:]]
    each = [plain(z, queues["global"], theirs["hyper"], queues["hyper"], 0.1, 0.08) for z in (mine["global"], *crops)]
    got, without = build(TINY)(batch, 1.0), build(TINY)(batch[:2], 1.0)
    assert got["relation_global"].item() == pytest.approx(sum(each) / 3 / 2, rel=1e-4)
    assert got["relation_hyper"].item() == pytest.approx(without["relation_hyper"].item(), rel=1e-6)
    with pytest.raises(UserError, match="for the global context"):
        check(
            replace(find("cgh_r50_in1k_200ep_multicrop"), method=replace(TINY, queue_length=256, contexts=("hyper",)))
        )


def test_centres_are_running_means_of_similarities_and_are_subtracted_a_step_later():
    config = replace(TINY, centre_momentum=0.9)
    batch = views(33, 33)
    _, _, theirs, queues = embeddings(config, batch)
    method = build(config)
    first = method(batch, 1.0)
    assert first["relation_global"].item() == pytest.approx(build(TINY)(batch, 1.0)["relation_global"].item(), rel=1e-6)
    wanted = 0.1 * (theirs["hyper"] @ queues["hyper"].T).mean(dim=0)
    torch.testing.assert_close(method.centre_hyper, wanted, rtol=1e-4, atol=1e-6)
    z, t = F.normalize(torch.randn(4, 12), dim=1), F.normalize(torch.randn(4, 10), dim=1)
    got = relation(z, queues["global"], t, queues["hyper"], (0.1, 0.08), wanted * 20)
    assert got.item() == pytest.approx(
        plain(z, queues["global"], t, queues["hyper"], 0.1, 0.08, wanted.double() * 20), rel=1e-5
    )


def test_the_strict_recipe_splits_and_decays_as_the_released_code():
    """On several GPUs without SyncBN every BatchNorm of it, the hypercolumn's too, sees one GPU's images."""
    recipe = find("cgh_r50_in1k_200ep_strict")
    small = replace(recipe.method, queue_length=8, dim_global=4, dim_hyper=4, hidden=4)
    with without_memory():
        method = small.build(recipe.architecture)
    norms = [module for module in method.student.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(type(norm), norm.groups) for norm in norms} == {(SplitBatchNorm2d, 8)}
    assert method.student.hyper_branch.project[1] in norms
    decaying = {id(p) for p in optimizer(recipe, method).param_groups[0]["params"]}
    flat = {n for n, p in method.student.named_parameters() if p.ndim <= 1 and id(p) in decaying}
    assert flat == {
        *(f"backbone.layer{i}.0.downsample.1.weight" for i in range(1, 5)),
        "hyper_branch.project.1.weight",
    }


def test_every_recipe_can_be_carried_out():
    for recipe in registered("cgh_bench.pretrain.methods", "RECIPES").values():
        check(recipe)


@pytest.mark.parametrize("name", ["cgh_r18_cifar10_200ep", "cgh_r18_stl10_200ep", "cgh_r18_tiny_imagenet_200ep"])
def test_small_sets_are_large_enough_for_a_hypercolumn(name):
    recipe = find(name)
    method = replace(recipe.method, queue_length=8, dim_global=4, dim_hyper=4, hidden=4, bn_groups=1).build(
        recipe.architecture
    )
    batch = [torch.randn(2, 3, augment.size, augment.size) for augment in recipe.views.augments]
    assert all(torch.isfinite(term) for term in method(batch, 1.0).values())


def test_nonsense_is_refused():
    for changes, words in (
        ({"contexts": ()}, "at least one context"),
        ({"contexts": ("global", "global")}, "each once"),
        ({"contexts": ("globel",)}, "did you mean global"),
        ({"centre_momentum": 1.0}, "below 1"),
    ):
        with pytest.raises(UserError, match=words):
            dataclasses.replace(TINY, **changes)
    with pytest.raises(UserError, match="unknown stage of resnet50 'layer5'; did you mean layer"):
        check(replace(find("cgh_r50_in1k_200ep"), method=Cgh(stages=("layer4", "layer5"))))
