"""Losses of unit embeddings against long queues, without ever holding a (B, K) matrix.

The queue is read in chunks of rows; log-sum-exp and softmax-weighted mean are accumulated with a running maximum
(Milakov and Gimelshein, arXiv 1805.02867). The weighted mean is the gradient, so that backward does not read the queue
again, which may have changed.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

NUMBERS_AT_ONCE = {"cpu": 2**18, "cuda": 2**23}
"""Logits of a chunk: on a CPU they should stay in its cache, on a GPU a few large kernels beat many small ones."""


class Softmax(NamedTuple):
    """A distribution over K queued images: softmax((keys · embedding - centre) / temperature)."""

    embeddings: Tensor
    """(B, D') unit rows."""
    keys: Tensor
    """(K, D') unit rows."""
    temperature: float
    centre: Tensor | None = None
    """(K,)"""


class SoftMean(NamedTuple):
    """What is known of the distributions of B embeddings after one pass over the queue."""

    logsumexp: Tensor
    """(B,) of the logits."""
    mean: Tensor
    """(B, D), the mean of the queue's rows, weighted by the distribution."""


@torch.no_grad()
def soft_means(rows: Tensor, asked: Sequence[Softmax]) -> list[SoftMean]:
    """Every distribution's mean of the same `rows` (K, D), all by one pass; exact to float32 rounding."""
    assert all(len(each.keys) == len(rows) for each in asked), "the queues are not aligned"
    ends = accumulate((len(each.embeddings) for each in asked), initial=0)
    places = [slice(*pair) for pair in pairwise(ends)]
    total = places[-1].stop
    kind = "cpu" if rows.device.type == "cpu" else "cuda"  # on `meta`, memory is planned for a GPU
    at_once = min(len(rows), max(1, NUMBERS_AT_ONCE[kind] // total))
    buffer, peak = rows.new_empty(total, at_once), rows.new_full((total, 1), -torch.inf)
    mass, weighted = rows.new_zeros(total, 1), rows.new_zeros(total, rows.shape[1])
    with torch.autocast(kind, enabled=False):
        scaled = [each.embeddings.float() / each.temperature for each in asked]
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            chunk = rows[part]
            weights = buffer[:, : len(chunk)]
            for each, embeddings, place in zip(asked, scaled, places, strict=True):
                torch.mm(embeddings, each.keys[part].T, out=weights[place])
                if each.centre is not None:
                    weights[place] -= each.centre[part] / each.temperature
            higher = torch.maximum(peak, weights.amax(dim=1, keepdim=True))
            decay, peak = (peak - higher).exp_(), higher
            weights.sub_(peak).exp_()
            mass.mul_(decay).add_(weights.sum(dim=1, keepdim=True))
            weighted.mul_(decay).addmm_(weights, chunk)
    logsumexp, mean = (peak + mass.log()).squeeze(1), weighted.div_(mass)
    return [SoftMean(logsumexp[place], mean[place]) for place in places]


class _Known(torch.autograd.Function):
    """Values (B,) whose gradient in the student's embeddings (B, D) is known: `slope` (B, D)."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, values: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].unsqueeze(1) * slope, None, None


def relational(student: Tensor, temperature: float, own: SoftMean, target: SoftMean) -> Tensor:
    """Cross entropy of teacher's and student's distributions over the same K queued images; mean over the batch.

        p = softmax(B t / τ_t),   L = -Σ_j p_j log softmax(A z / τ_s)_j = LSE(A z / τ_s) - z·(Σ_j p_j A_j) / τ_s

    The second form, with gradient for `student` alone. Source: ReSSL (arXiv 2107.09282, eq. 4 to 6), crossed between
    two contexts in CGH (arXiv 2308.13392).

    Args:
        student: z, (B, D) unit rows.
        temperature: τ_s.
        own: LSE(A z / τ_s) and its mean of the student's queue A (K, D).
        target: the mean of A by the teacher's distribution p.
    """
    student = student.float()
    values = own.logsumexp - (student.detach() * target.mean).sum(dim=1) / temperature
    losses: Tensor = _Known.apply(student, values, (own.mean - target.mean) / temperature)
    return losses.mean()


def contrastive(student: Tensor, positive: Tensor, temperature: float, own: SoftMean) -> Tensor:
    """InfoNCE with queued negatives: (K+1)-way cross entropy whose right answer is `positive`; mean over the batch.

    Source: MoCo, arXiv 1911.05722, eq. 1. `student` and `positive` are (B, D) unit rows; `own` is of the queue.
    """
    student = student.float()
    right = (student * positive.float()).sum(dim=1) / temperature
    others = _Known.apply(student, own.logsumexp, own.mean / temperature)
    return (torch.logaddexp(right, others) - right).mean()


def relation(
    student: Tensor,
    student_queue: Tensor,
    teacher: Tensor,
    teacher_queue: Tensor,
    temperatures: tuple[float, float],
    centre: Tensor | None = None,
) -> Tensor:
    """See `relational`; of one student and one teacher.

    Args:
        student: z, (B, D) unit rows.
        student_queue: A, (K, D), embeddings of the student's kind.
        teacher: t, (B, D') unit rows, no gradient.
        teacher_queue: B, (K, D'), embeddings of the teacher's kind; row j is of the same image as row j of A.
        temperatures: τ_s, τ_t.
        centre: (K,), subtracted from the teacher's similarities before they are divided by τ_t.
    """
    asked = Softmax(student, student_queue, temperatures[0]), Softmax(teacher, teacher_queue, temperatures[1], centre)
    return relational(student, temperatures[0], *soft_means(student_queue, asked))


def infonce(student: Tensor, positive: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """See `contrastive`; `queue` (K, D)."""
    (own,) = soft_means(queue, [Softmax(student, queue, temperature)])
    return contrastive(student, positive, temperature, own)
