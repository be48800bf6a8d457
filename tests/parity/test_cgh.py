"""A step of CGH against an independent float64 version of it: terms, crossing, order of events, hand-over."""

import copy
import dataclasses
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.networks.base import without_memory
from cgh_bench.pretrain.methods.cgh import Cgh

SMALL = Timm("test_resnet", (("zero_init_last", False),))
TINY = Cgh(dim_global=12, dim_hyper=10, hidden=16, queue_length=40, momentum=0.9, handover_epochs=2.0, bn_groups=1)


def build(config, seed=0):
    """The networks in float64, so that what differs is the formulas; similarities and losses stay in float32."""
    torch.manual_seed(seed)
    method = config.build(SMALL).train()
    method.student.double()
    method.teacher.double()
    return method


def batch(seed=0, b=8, side=33):
    generators = [torch.Generator().manual_seed(100 * seed + i) for i in range(2)]
    return [torch.randn(b, 3, side, side, generator=g, dtype=torch.float64) for g in generators]


@torch.no_grad()
def embed(student, images):
    """The two embeddings in float64, from the modules' own weights, by the formulas of the paper."""
    maps = copy.deepcopy(student).backbone.pyramid(images)
    pooled = maps["layer4"].mean(dim=(2, 3))
    h, w = maps["layer4"].shape[-2:]
    coarse = F.interpolate(maps["layer3"], (h, w), mode="bilinear", align_corners=False)
    stacked = torch.cat([coarse, maps["layer4"]], dim=1)
    convolution, norm = student.hyper_branch.project[0], student.hyper_branch.project[1]
    mixed = torch.einsum("oc,bchw->bohw", convolution.weight[:, :, 0, 0], stacked)
    mean, var = mixed.mean(dim=(0, 2, 3), keepdim=True), mixed.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
    hyper = (scale * (mixed - mean) / (var + norm.eps).sqrt() + shift).relu().mean(dim=(2, 3))
    out = []
    for first, _, second in ((*student.global_head,), (*student.hyper_branch.head,)):
        x = pooled if not out else hyper
        y = (x @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
        out.append(y / y.norm(dim=1, keepdim=True))
    return out


def expected_terms(student, teacher, queue_global, queue_hyper, config, a):
    """Every term by loops over images and queue."""
    queue_global, queue_hyper = queue_global.double(), queue_hyper.double()

    def softmax(vector, queue, tau):
        weights = [torch.dot(vector, row).div(tau).exp() for row in queue]
        return [w / sum(weights) for w in weights]

    def cross_entropy(targets, predictions):
        return -sum(p * q.log() for p, q in zip(targets, predictions, strict=True))

    def mean(values):
        return float(sum(values) / len(values))

    both = list(zip(student[0], student[1], teacher[0], teacher[1], strict=True))
    terms = {
        "relation_global": (a / 2)
        * mean(
            [cross_entropy(softmax(th, queue_hyper, 0.08), softmax(sg, queue_global, 0.1)) for sg, _, _, th in both]
        ),
        "relation_hyper": (a / 2)
        * mean(
            [cross_entropy(softmax(tg, queue_global, 0.04), softmax(sh, queue_hyper, 0.08)) for _, sh, tg, _ in both]
        ),
    }
    if a < 1:
        for name, index, queue in (("infonce_global", 0, queue_global), ("infonce_hyper", 1, queue_hyper)):
            pairs = zip(student[index], teacher[index], strict=True)
            right = [softmax(z, torch.cat([k[None], queue]), 0.2)[0] for z, k in pairs]
            terms[name] = (1 - a) * mean([-r.log() for r in right])
    return terms


@pytest.mark.parametrize("epoch", [0.0, 0.5, 1.9, 2.0, 7.0])
def test_each_term_of_a_step_equals_the_loops(epoch):
    method = build(TINY)
    views = batch()
    student, teacher = embed(method.student, views[1]), embed(method.teacher.network, views[0])
    queues = method.queues["global"].clone(), method.queues["hyper"].clone()
    wanted = expected_terms(student, teacher, *queues, TINY, min(1.0, epoch / 2))
    got = method(views, epoch)
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        assert got[name].item() == pytest.approx(value, rel=5e-6, abs=1e-6), name


def test_handover_is_linear_and_total_weight_is_continuous():
    terms = {epoch: build(TINY)(batch(), epoch) for epoch in (0.0, 1.0, 1.999999, 2.0)}
    assert terms[0.0]["relation_global"].item() == 0
    assert terms[1.0]["infonce_global"].item() == pytest.approx(terms[0.0]["infonce_global"].item() / 2, rel=1e-5)
    assert terms[1.0]["relation_hyper"].item() == pytest.approx(terms[2.0]["relation_hyper"].item() / 2, rel=1e-5)
    near, after = (sum(terms[epoch].values()).item() for epoch in (1.999999, 2.0))
    assert near == pytest.approx(after, rel=1e-4)


def test_a_zero_handover_starts_with_the_relations():
    assert set(build(replace(TINY, handover_epochs=0.0))(batch(), 0.0)) == {"relation_global", "relation_hyper"}


def test_the_teacher_follows_before_its_pass_and_the_queue_is_written_after_the_loss():
    method = build(TINY)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    sum(method(batch(0), 3.0).values()).backward()
    optimizer.step()  # the student has moved; the teacher follows in the next step, and only then

    expected_teacher = copy.deepcopy(method.teacher.network)
    student = dict(method.student.named_parameters())
    with torch.no_grad():
        for name, parameter in expected_teacher.named_parameters():
            parameter.copy_(0.9 * parameter + 0.1 * student[name])
    views = batch(1)
    teacher, queues = (
        embed(expected_teacher, views[0]),
        {n: method.queues[n].clone() for n in ("global", "hyper")},
    )
    wanted = expected_terms(embed(method.student, views[1]), teacher, *queues.values(), TINY, 1.0)
    method.begin_step(1, 3)
    got = method(views, 3.0)
    assert {n: v.item() for n, v in got.items()} == pytest.approx(wanted, rel=5e-6)
    torch.testing.assert_close(method.queues["global"][8:16], teacher[0].float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(method.queues["hyper"][8:16], teacher[1].float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(method.queues["global"][16:], queues["global"][16:], rtol=0, atol=0)


def test_gradients_reach_every_parameter_of_the_student_and_none_of_the_teacher():
    for epoch in (0.5, 3.0):
        method = build(TINY)
        sum(method(batch(), epoch).values()).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.student.parameters())
        assert all(p.grad is None for p in method.teacher.parameters())


def test_the_teacher_keeps_batchnorm_statistics_of_its_own_passes():
    method = build(TINY)
    method(batch(), 0.5)
    name = "backbone.bn1.running_mean"
    student, teacher = method.student.state_dict()[name], method.teacher.network.state_dict()[name]
    assert not torch.equal(student, torch.zeros_like(student)) and not torch.equal(student, teacher)


OTHER = {
    "dim_global": 16,
    "dim_hyper": 16,
    "hidden": 24,
    "stages": ("layer2", "layer4"),
    "queue_length": 48,
    "momentum": 0.5,
    "student_global_temperature": 0.2,
    "teacher_global_temperature": 0.1,
    "student_hyper_temperature": 0.2,
    "teacher_hyper_temperature": 0.2,
    "infonce_temperature": 0.5,
    "handover_epochs": 9.0,
    "bn_groups": 2,
    "shuffled_bn": False,
    "split_hyper_bn": False,
    "contexts": ("hyper",),
    "crossed": False,
    "centre_momentum": 0.5,
}


def losses_of_two_steps(config):
    method = build(config).float()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for step in range(2):
        method.begin_step(step, 3)
        loss = sum(method([view.float() for view in batch(step)], 1.0).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_every_field_of_the_configuration_is_read():
    """The released code has fields that change nothing; here each one must move the loss."""
    assert set(OTHER) == {field.name for field in dataclasses.fields(Cgh)}
    published, split = losses_of_two_steps(TINY), losses_of_two_steps(replace(TINY, bn_groups=2))
    for name, value in OTHER.items():
        of_groups = name in ("split_hyper_bn", "shuffled_bn")
        start, base = (replace(TINY, bn_groups=2), split) if of_groups else (TINY, published)
        changed = losses_of_two_steps(replace(start, **{name: value}))
        assert max(abs(a - b) for a, b in zip(base, changed, strict=True)) > 1e-4, name


def test_published_sizes():
    """Counted on the authors' code: 23.508 M backbone, 33.998 M with the global head, 16.786 M hypercolumn branch."""
    with without_memory():
        student = Cgh(bn_groups=1, queue_length=1).build(ResNet("resnet50")).student
    million = {
        name: sum(p.numel() for p in module.parameters()) / 1e6
        for name, module in (
            ("backbone", student.backbone),
            ("head", student.global_head),
            ("hyper", student.hyper_branch),
        )
    }
    assert million["backbone"] == pytest.approx(23.508, abs=5e-4)
    assert million["backbone"] + million["head"] == pytest.approx(33.998, abs=1e-3)
    assert million["hyper"] == pytest.approx(16.786, abs=5e-4)


def test_published_values():
    assert dataclasses.asdict(Cgh()) == {
        "dim_global": 512,
        "dim_hyper": 512,
        "hidden": 4096,
        "stages": ("layer3", "layer4"),
        "queue_length": 131_072,
        "momentum": 0.999,
        "student_global_temperature": 0.1,
        "teacher_global_temperature": 0.04,
        "student_hyper_temperature": 0.08,
        "teacher_hyper_temperature": 0.08,
        "infonce_temperature": 0.2,
        "handover_epochs": 5.0,
        "bn_groups": 8,
        "shuffled_bn": True,
        "split_hyper_bn": True,
        "contexts": ("global", "hyper"),
        "crossed": True,
        "centre_momentum": None,
    }
