"""A step of each rival against its formula, written again from the paper, in float64; LARS against its algorithm."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cgh_bench.backbones.timm import Timm
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods.byol import Byol
from cgh_bench.pretrain.methods.dino import Dino
from cgh_bench.pretrain.methods.ressl import Ressl
from cgh_bench.pretrain.methods.simsiam import SimSiam
from cgh_bench.pretrain.methods.supervised import Supervised
from cgh_bench.pretrain.optimisation import TRUST, Lars
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.views import Augment, Views

SMALL = Timm("test_resnet", (("zero_init_last", False),))


def build(config, seed=0):
    torch.manual_seed(seed)
    return config.build(SMALL).train().double()


def images(seed, b=8, side=17):
    return torch.randn(b, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    return float(sum(x @ y / (x.norm() * y.norm()) for x, y in zip(a.detach(), b.detach(), strict=True))) / len(a)


def follow(slow, fast, momentum):
    with torch.no_grad():
        for mine, its in zip(slow.parameters(), fast.parameters(), strict=True):
            mine.copy_(momentum * mine + (1 - momentum) * its)


def descend(method, loss, rate=0.1):
    trained = [p for p in method.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            parameter.sub_(rate * gradient)


def test_ressl_is_a_cross_entropy_over_one_queue():
    method = build(Ressl(dim=6, hidden=8, queue_length=30, momentum=0.9, bn_groups=1)).float()
    copied = copy.deepcopy(method)
    method.begin_step(0, 1)
    queue = method.queue["keys"].clone()
    weak, strong = images(1).float(), images(2).float()
    z, t = (F.normalize(x, dim=1) for x in (copied.student(strong), copied.teacher(weak)))
    target = (t.double() @ queue.double().T / 0.04).softmax(dim=1)
    wanted = -(target * (z.double() @ queue.double().T / 0.1).log_softmax(dim=1)).sum(dim=1).mean()
    got = method([weak, strong], 0.0)
    assert got["relation"].item() == pytest.approx(wanted.item(), rel=1e-4)
    torch.testing.assert_close(method.queue["keys"][:8], t)
    assert torch.equal(method.queue["keys"][8:], queue[8:])


def test_simsiam_is_a_mean_of_two_cosines_and_stops_one_gradient():
    method = build(SimSiam(dim=8, predictor_hidden=4))
    copied = copy.deepcopy(method)
    one, two = images(1), images(2)
    z = [copied.student(x) for x in (one, two)]
    p = [copied.predictor(x) for x in z]
    got = method([one, two], 0.0)["cosine"]
    assert got.item() == pytest.approx(-(cosine(p[0], z[1]) + cosine(p[1], z[0])) / 2, abs=1e-6)
    method.predictor[
        -1
    ].weight.data.zero_()  # the predictions are constant: nothing is left to learn but the last layer
    copied = method([one, two], 0.0)["cosine"]
    copied.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in method.backbone.parameters())
    assert method.predictor[-1].weight.grad.abs().max() > 0


def test_three_steps_of_byol_are_those_of_the_paper():
    method = build(Byol(dim=6, hidden=8, momentum=0.8))
    online, predictor = copy.deepcopy(method.student), copy.deepcopy(method.predictor)
    target = copy.deepcopy(method.target.network)
    first, other = (network.backbone.network.conv1[0].weight for network in (target, online))
    assert not torch.equal(first, other), "from other random weights"
    assert all(mlp[-1].bias is None for mlp in (online.head, predictor))
    for step in range(3):
        views = images(2 * step), images(2 * step + 1)
        if step:  # in the code, at the end of a step, with its momentum
            follow(target, online, 1 - 0.2 * (math.cos(math.pi * (step - 1) / 4) + 1) / 2)
        p, t = [predictor(online(v)) for v in views], [target(v).detach() for v in views]
        wanted = sum(
            (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean()
            for a, b in ((p[0], t[1]), (p[1], t[0]))
        )
        method.begin_step(step, 4)
        got = method(list(views), float(step))["distance"]
        assert got.item() == pytest.approx(wanted.item(), abs=5e-5)
        descend(method, got)
        descend(nn.ModuleList([online, predictor]), wanted)


@pytest.mark.parametrize("epoch", [0.0, 5.0])
def test_dino_is_a_cross_entropy_of_pairs_with_a_centre(epoch):
    method = build(Dino(classes=12, hidden=8, bottleneck=6, momentum=0.8, frozen_epochs=1.0))
    method.centre = torch.linspace(-0.1, 0.1, 12)
    copied = copy.deepcopy(method)
    views = [images(1), images(2), images(3, side=12)]
    # As in the code, views of one size are one batch: BatchNorm sees both.
    teacher = copied.teacher(torch.cat(views[:2])).double().chunk(2)
    student = [*copied.student(torch.cat(views[:2])).double().chunk(2), copied.student(views[2]).double()]
    targets = [((t - copied.centre) / 0.04).softmax(dim=1) for t in teacher]
    pairs = [(i, j) for i in range(2) for j in range(3) if i != j]
    wanted = -sum((targets[i] * (student[j] / 0.1).log_softmax(dim=1)).sum(dim=1).mean() for i, j in pairs) / len(pairs)
    got = method(views, epoch)["cross_entropy"]
    assert got.item() == pytest.approx(wanted.item(), rel=1e-4)
    mean = torch.cat(teacher).mean(dim=0)
    torch.testing.assert_close(method.centre, (0.9 * copied.centre + 0.1 * mean).float(), rtol=0, atol=1e-6)
    frozen = method.frozen(epoch)
    assert [p.shape for p in frozen] == ([(12, 6)] if epoch < 1 else []), "DINO's classes stay for an epoch"


def test_batchnorm_sees_all_views_of_one_size_together():
    """2 and 8 times the images of a batch, as in DINO's code; and crops are bicubic there, as in BYOL's."""
    method = build(Dino(classes=12, hidden=8, bottleneck=6)).float()
    seen = {method.student: [], method.teacher.network: []}
    for network, sizes in seen.items():
        norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        norm.register_forward_hook(lambda _, inputs, __, sizes=sizes: sizes.append(len(inputs[0])))
    method([images(seed, b=4, side=17 if seed < 2 else 9).float() for seed in range(10)], 0.0)
    assert list(seen.values()) == [[2 * 4, 8 * 4], [2 * 4]]
    for recipe in ("dino_r50_in1k_100ep", "byol_r50_in1k_300ep"):
        assert {augment.interpolation for augment in find(recipe).views.augments} == {"bicubic"}


def test_the_supervised_baseline_sees_labels():
    method = build(Supervised(classes=3))
    copied = copy.deepcopy(method)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    logits = copied.student(images(1))
    wanted = -sum(float(row.log_softmax(0)[label]) for row, label in zip(logits, labels, strict=True)) / 8
    assert method([images(1)], 0.0, labels)["cross_entropy"].item() == pytest.approx(wanted, rel=1e-5)


def test_dinos_teacher_follows_with_the_momentum_of_the_step_before():
    method = build(Dino(classes=12, hidden=8, bottleneck=6, momentum=0.8))
    teacher = copy.deepcopy(method.teacher.network)
    for step in range(3):
        descend(method, sum(p.square().sum() for p in method.parameters() if p.requires_grad))
        if step:
            follow(teacher, method.student, 1 - 0.2 * (math.cos(math.pi * (step - 1) / 4) + 1) / 2)
        method.begin_step(step, 4)
        for mine, wanted in zip(method.teacher.network.parameters(), teacher.parameters(), strict=True):
            torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize(
    ("config", "views"),
    [(Ressl(), 3), (SimSiam(), 3), (Byol(), 3), (Supervised(), 3), (Dino(), 1)],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_number_of_views_is_refused(config, views):
    recipe = replace(
        find("byol_r50_in1k_300ep"), sync_bn=False, method=config, views=Views((Augment(size=48),) * views)
    )
    with pytest.raises(UserError, match=f"the recipe has {views}"):
        config.check(recipe)


def test_lars_is_sgd_on_gradients_as_long_as_a_thousandth_of_their_parameters():
    torch.manual_seed(0)
    matrix, vector, still = torch.randn(4, 3), torch.randn(4), torch.zeros(2, 2)
    ours = [nn.Parameter(x.clone()) for x in (matrix, vector, still)]
    optimizer = Lars(
        [{"params": [ours[0], ours[2]], "weight_decay": 0.1}, {"params": [ours[1]], "weight_decay": 0.0}], 0.9
    )
    momenta = [torch.zeros_like(x) for x in (matrix, vector, still)]
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.5
        gradients = [torch.randn_like(x) for x in (matrix, vector, still)]
        for parameter, gradient in zip(ours, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for i, x in enumerate((matrix, vector, still)):
            update = gradients[i]
            if i != 1:
                update = update + 0.1 * x
                ratio = TRUST * float(x.norm()) / float(update.norm()) if x.norm() > 0 else 1.0
                update = ratio * update
            momenta[i] = 0.9 * momenta[i] + update if step else update
            x.sub_(0.5 * momenta[i])
            torch.testing.assert_close(ours[i].data, x)
