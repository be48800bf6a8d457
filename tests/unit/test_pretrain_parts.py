"""Queues, momentum encoder, split and shuffled BatchNorm, and the checks of batch and view size."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint, identity
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.methods.cgh import Cgh
from cgh_bench.pretrain.methods.moco_v2 import MocoV2
from cgh_bench.pretrain.methods.ressl import Ressl
from cgh_bench.pretrain.parts import (
    AlignedQueues,
    MomentumEncoder,
    check_batch,
    encode_globally,
    mlp,
    split_batchnorm,
    unit,
)


@settings(max_examples=80, deadline=None)
@given(length=st.integers(1, 17), counts=st.lists(st.integers(1, 17), max_size=12))
def test_queues_stay_aligned_and_hold_the_newest(length, counts):
    queues = AlignedQueues(length, left=1, right=2)
    queues["left"].fill_(-1)
    queues["right"].fill_(-1)
    slots = [-1] * length  # a plain list as the reference
    at = sample = 0
    for count in (min(c, length) for c in counts):
        ids = torch.arange(sample, sample + count, dtype=torch.float32)
        queues.enqueue(left=ids[:, None], right=torch.stack([ids, 1000 + ids], dim=1))
        for i in range(count):
            slots[at] = sample + i
            at = (at + 1) % length
        sample += count
        left, right = queues["left"][:, 0].tolist(), queues["right"]
        assert left == slots and right[:, 0].tolist() == slots
        written = [s for s in slots if s >= 0]
        assert sorted(written) == list(range(max(0, sample - length), sample))
        assert right[:, 1].tolist() == [1000 + s if s >= 0 else -1 for s in slots]
    assert queues.pointer == at


def test_queues_begin_as_unit_vectors_and_survive_a_state_dict():
    queues = AlignedQueues(10, keys=4)
    torch.testing.assert_close(queues["keys"].norm(dim=1), torch.ones(10))
    queues.enqueue(keys=torch.ones(7, 4))
    other = AlignedQueues(10, keys=4)
    other.load_state_dict(queues.state_dict())
    assert other.pointer == 7 and torch.equal(other["keys"], queues["keys"])
    other.enqueue(keys=torch.zeros(5, 4))
    assert other["keys"][:2].abs().max() == 0 and other["keys"][7:].abs().max() == 0 and other["keys"][2:7].min() == 1


def test_writing_one_queue_alone_is_refused():
    queues = AlignedQueues(10, left=4, right=4)
    with pytest.raises(AssertionError):
        queues.enqueue(left=torch.ones(2, 4))
    with pytest.raises(ValueError, match="unpack"):
        queues.enqueue(left=torch.ones(2, 4), right=torch.ones(3, 4))


@pytest.mark.parametrize("momentum", [0.0, 0.99, 0.999, 1.0])
def test_the_momentum_encoder_is_an_exponential_moving_average_of_parameters(momentum):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    momentum_encoder = MomentumEncoder(student)
    expected = [p.detach().double() for p in student.parameters()]
    statistics = copy.deepcopy(momentum_encoder.network[1].running_mean)
    for _ in range(50):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(torch.randn_like(p))
        student(torch.randn(8, 3))  # moves the student's running statistics, which the momentum_encoder must not copy
        momentum_encoder.follow(student, momentum)
        expected = [
            momentum * e + (1 - momentum) * p.detach().double()
            for e, p in zip(expected, student.parameters(), strict=True)
        ]
    for mine, e in zip(momentum_encoder.network.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.double(), e, rtol=1e-5, atol=1e-5)
        assert not mine.requires_grad
    assert torch.equal(momentum_encoder.network[1].running_mean, statistics)


def test_split_batchnorm_is_one_batchnorm_a_part():
    torch.manual_seed(0)
    images = torch.randn(12, 3, 4, 4)
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5))
    with torch.no_grad():
        network[1].weight.uniform_()
        network[1].bias.uniform_()
    alone = copy.deepcopy(network)
    parts = [copy.deepcopy(network) for _ in range(3)]
    split_batchnorm(network, 3)
    assert network.state_dict().keys() == alone.state_dict().keys()
    expected = torch.cat([part(images[4 * i : 4 * i + 4]) for i, part in enumerate(parts)])
    torch.testing.assert_close(network(images), expected)
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(part[1], name) for part in parts]).mean(dim=0)
        torch.testing.assert_close(getattr(network[1], name), mean)
    alone.load_state_dict(network.state_dict())
    torch.testing.assert_close(network.eval()(images), alone.eval()(images))


def test_one_group_leaves_plain_batchnorm():
    network = nn.Sequential(nn.BatchNorm2d(5))
    split_batchnorm(network, 1)
    assert type(network[0]) is nn.BatchNorm2d


@pytest.mark.parametrize("processes, here", [(1, 8), (2, 4), (8, 1)])
def test_groups_are_parts_of_the_whole_batch_on_any_number_of_processes(monkeypatch, processes, here):
    """Eight groups of 32 in one process are what eight processes have: the published 8 × 32."""
    monkeypatch.setattr(dist, "world_size", lambda: processes)
    network = nn.Sequential(nn.BatchNorm2d(2))
    split_batchnorm(network, 8)
    assert getattr(network[0], "groups", 1) == here
    check_batch(256, 8, 256)


def test_groups_that_do_not_divide_into_the_processes_are_refused(monkeypatch):
    monkeypatch.setattr(dist, "world_size", lambda: 16)
    with pytest.raises(UserError, match="8 BN groups do not divide into 16 processes; set method.bn_groups=16"):
        check_batch(256, 8, 256)
    check_batch(256, 1, 256)


def test_split_batchnorm_survives_a_copy():
    network = nn.Sequential(nn.BatchNorm2d(2))
    split_batchnorm(network, 2)
    momentum_encoder = MomentumEncoder(network)
    images = torch.cat([torch.zeros(2, 2, 1, 1), torch.ones(2, 2, 1, 1)])
    assert momentum_encoder(images).abs().max() == 0, "each half is constant, so its own statistics make it zero"


def test_shuffling_mixes_the_batch_and_puts_the_rows_back():
    torch.manual_seed(0)
    seen = []

    def network(images):
        seen.append(images[:, 0].tolist())
        return images * 2, images + 1

    rows = torch.arange(16.0)[:, None]
    doubled, next_ = encode_globally(network, rows, True)
    assert torch.equal(doubled, rows * 2) and torch.equal(next_, rows + 1)
    assert seen[0] != rows[:, 0].tolist() and sorted(seen[0]) == rows[:, 0].tolist()
    drawn = torch.get_rng_state()
    doubled, next_ = encode_globally(network, rows, False)
    assert torch.equal(doubled, rows * 2) and torch.equal(next_, rows + 1)
    assert seen[1] == rows[:, 0].tolist() and torch.equal(torch.get_rng_state(), drawn), "as it is"


@pytest.mark.parametrize(
    "config",
    [
        Cgh(dim_global=4, dim_hyper=4, hidden=4, queue_length=16, bn_groups=2),
        MocoV2(dim=4, hidden=4, queue_length=16, bn_groups=2),
        Ressl(dim=4, hidden=4, queue_length=16, bn_groups=2),
    ],
    ids=lambda config: type(config).__name__,
)
def test_shuffled_batchnorm_is_a_field_whose_default_leaves_records_as_they_were(config):
    """Without it the teacher's BatchNorm groups are the student's: equal views of equal networks, equal embeddings."""
    without = replace(config, shuffled_bn=False)
    assert "shuffled_bn" not in identity(config) and fingerprint(without) != fingerprint(config)
    images = torch.randn(8, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for each, same in ((config, False), (without, True)):
        torch.manual_seed(0)
        method = each.build(ResNet("resnet18")).train()
        student, _, queues = method.children()
        mine = student(images)
        mine = mine[0] if isinstance(mine, tuple) else unit(mine)
        method([images, images], 0.0)
        assert torch.allclose(queues[queues.names[0]][:8], mine, atol=1e-5) == same


def test_a_head_is_two_layers_with_biases():
    head = mlp(4, 6, 3)
    assert [tuple(p.shape) for p in head.parameters()] == [(6, 4), (6,), (3, 6), (3,)]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((64, 1, 63), "larger than the queue of 63.*queue_length"),
        ((60, 8, 128), "batch_size 60 does not divide into 8 BN groups; use a multiple of 8"),
        ((8, 8, 128), "batch_size 8 leaves 1 image in each of 8 BN groups.*batch_size=16"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        check_batch(*arguments)
    check_batch(64, 8, 64)


def test_a_view_too_small_for_the_hypercolumn_is_refused():
    method = Cgh(dim_global=4, dim_hyper=4, hidden=4, queue_length=16, bn_groups=1).build(ResNet("resnet18"))
    with pytest.raises(UserError, match="layer4 is 1x1, at least 2x2 is needed; set views.augments.0.size"):
        method([torch.zeros(4, 3, 32, 32)] * 2, 0.0)
