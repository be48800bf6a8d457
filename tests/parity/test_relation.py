"""The chunked losses against plain loops in float64, their gradients, their size at full scale, their memory."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cgh_bench.pretrain import relation as module
from cgh_bench.pretrain.relation import infonce, relation


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def relation_by_loops(student, queue_a, teacher, queue_b, tau_student, tau_teacher):
    """Cross entropy of two softmaxes over the queue, one number at a time."""
    losses = []
    for z, t in zip(student.double(), teacher.double(), strict=True):
        s = [sum(float(x) * float(y) for x, y in zip(z, a, strict=True)) / tau_student for a in queue_a.double()]
        p = [sum(float(x) * float(y) for x, y in zip(t, b, strict=True)) / tau_teacher for b in queue_b.double()]
        total_s, total_p = (math.log(math.fsum(map(math.exp, logits))) for logits in (s, p))
        losses.append(-math.fsum(math.exp(b - total_p) * (a - total_s) for a, b in zip(s, p, strict=True)))
    return math.fsum(losses) / len(losses)


def infonce_by_loops(student, positive, queue, tau):
    losses = []
    for z, k in zip(student.double(), positive.double(), strict=True):
        logits = [float((z * row).sum()) / tau for row in [k, *queue.double()]]
        losses.append(math.log(math.fsum(map(math.exp, logits))) - logits[0])
    return math.fsum(losses) / len(losses)


CASES = [(1, 1, 2, 0.1, 0.1), (3, 7, 4, 0.1, 0.04), (4, 29, 8, 0.08, 0.08), (2, 64, 5, 0.5, 0.01), (5, 30, 3, 1.0, 2.0)]


@pytest.mark.parametrize("numbers", [1, 40, 2**20])
@pytest.mark.parametrize("case", CASES)
def test_relation_equals_the_loops(monkeypatch, numbers, case):
    b, k, d, tau_student, tau_teacher = case
    monkeypatch.setitem(module.NUMBERS_AT_ONCE, "cpu", numbers)
    student, teacher = unit(b, d), unit(b, d + 1, seed=1)  # the two contexts may differ in width
    queue_a, queue_b = unit(k, d, seed=2), unit(k, d + 1, seed=3)
    got = relation(student, queue_a, teacher, queue_b, (tau_student, tau_teacher))
    wanted = relation_by_loops(student, queue_a, teacher, queue_b, tau_student, tau_teacher)
    assert float(got) == pytest.approx(wanted, rel=2e-6, abs=2e-6)


@pytest.mark.parametrize("numbers", [1, 40, 2**20])
@pytest.mark.parametrize("case", CASES)
def test_infonce_equals_the_loops(monkeypatch, numbers, case):
    b, k, d, tau, _ = case
    monkeypatch.setitem(module.NUMBERS_AT_ONCE, "cpu", numbers)
    student, positive, queue = unit(b, d), unit(b, d, seed=1), unit(k, d, seed=2)
    got = infonce(student, positive, queue, tau)
    assert float(got) == pytest.approx(infonce_by_loops(student, positive, queue, tau), rel=2e-6, abs=2e-6)


def plain_relation(student, queue_a, teacher, queue_b, tau_student, tau_teacher):
    target = (teacher @ queue_b.T / tau_teacher).softmax(dim=1)
    return -(target * (student @ queue_a.T / tau_student).log_softmax(dim=1)).sum(dim=1).mean()


def test_the_gradient_of_the_relation_is_autograds(monkeypatch):
    monkeypatch.setitem(module.NUMBERS_AT_ONCE, "cpu", 600)
    student, teacher, queue_a, queue_b = unit(6, 16), unit(6, 16, seed=1), unit(333, 16, seed=2), unit(333, 16, seed=3)
    z32, z64 = student.clone().requires_grad_(), student.double().requires_grad_()
    (3 * relation(z32, queue_a, teacher, queue_b, (0.1, 0.08))).backward()
    (3 * plain_relation(z64, queue_a.double(), teacher.double(), queue_b.double(), 0.1, 0.08)).backward()
    torch.testing.assert_close(z32.grad.double(), z64.grad, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_infonce_is_autograds(monkeypatch):
    monkeypatch.setitem(module.NUMBERS_AT_ONCE, "cpu", 600)
    student, positive, queue = unit(6, 16), unit(6, 16, seed=1), unit(333, 16, seed=2)
    z32, z64 = student.clone().requires_grad_(), student.double().requires_grad_()
    infonce(z32, positive, queue, 0.2).backward()
    logits = torch.cat([(z64 * positive).sum(dim=1, keepdim=True), z64 @ queue.double().T], dim=1) / 0.2
    F.cross_entropy(logits, torch.zeros(6, dtype=torch.long)).backward()
    torch.testing.assert_close(z32.grad.double(), z64.grad, rtol=1e-5, atol=1e-6)


def test_the_queue_may_change_between_forward_and_backward():
    student, teacher, queue = unit(4, 8).requires_grad_(), unit(4, 8, seed=1), unit(32, 8, seed=2)
    loss = relation(student, queue, teacher, queue, (0.1, 0.08)) + infonce(student, teacher, queue, 0.2)
    (wanted,) = torch.autograd.grad(loss, student, retain_graph=True)
    queue.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], wanted, rtol=0, atol=0)


def test_neither_teacher_nor_queues_get_a_gradient():
    student, teacher, queue = (unit(4, 8, seed=s).requires_grad_() for s in range(3))
    relation(student, queue, teacher, queue, (0.1, 0.08)).backward()
    assert student.grad is not None and teacher.grad is None and queue.grad is None


def test_autocast_does_not_touch_the_similarities():
    student, teacher, queue = unit(4, 8), unit(4, 8, seed=1), unit(64, 8, seed=2)
    exact = relation(student, queue, teacher, queue, (0.1, 0.04)), infonce(student, teacher, queue, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        under = relation(student, queue, teacher, queue, (0.1, 0.04)), infonce(student, teacher, queue, 0.2)
    assert [float(x) for x in under] == [float(x) for x in exact]


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that any operation returned (a view's own size, not its storage's)."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def test_no_tensor_of_batch_times_queue_is_made(monkeypatch):
    monkeypatch.setitem(module.NUMBERS_AT_ONCE, "cpu", 4096)
    b, k, d = 32, 4096, 4
    student, teacher, queue = unit(b, d).requires_grad_(), unit(b, d, seed=1), unit(k, d, seed=2)
    with LargestTensor() as largest:
        (relation(student, queue, teacher, queue, (0.1, 0.04)) + infonce(student, teacher, queue, 0.2)).backward()
    assert largest.numbers < b * k / 4


def test_initial_values_at_full_size():
    """Independent unit vectors, D = 512, K = 131,072: the values that the published recipe starts from."""
    k, d, b = 131_072, 512, 32
    queue_global, queue_hyper = unit(k, d, seed=1), unit(k, d, seed=2)
    student_global, student_hyper, teacher_global, teacher_hyper = (unit(b, d, seed=s) for s in range(3, 7))
    assert float(infonce(student_global, teacher_global, queue_global, 0.2)) == pytest.approx(11.79, abs=0.1)
    of_global = relation(student_global, queue_global, teacher_hyper, queue_hyper, (0.1, 0.08))
    of_hyper = relation(student_hyper, queue_hyper, teacher_global, queue_global, (0.08, 0.04))
    assert float(of_global) == pytest.approx(11.88, abs=0.02)
    assert float(of_hyper) == pytest.approx(11.94, abs=0.02)
