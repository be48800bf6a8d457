"""Losses of unit embeddings against long queues, without ever holding a (B, K) matrix.

The queue is read in chunks of rows; log-sum-exp and softmax-weighted mean are accumulated with a running maximum
(Milakov and Gimelshein, arXiv 1805.02867). The weighted mean is the gradient, so that backward does not read the queue
again, which may have changed.
"""

from typing import Any

import torch
from torch import Tensor

ROWS_PER_CHUNK = 2048


class _SoftMean:
    """Running log-sum-exp of logits (B, K) and softmax-weighted mean (B, D) of K rows."""

    def __init__(self, queries: Tensor, width: int) -> None:
        self.peak = queries.new_full((len(queries), 1), -torch.inf)
        self.total = queries.new_zeros(len(queries), 1)
        self.weighted = queries.new_zeros(len(queries), width)

    def add(self, logits: Tensor, rows: Tensor) -> None:
        """Add a chunk: `logits` (B, k), which are overwritten, of `rows` (k, D)."""
        peak = torch.maximum(self.peak, logits.amax(dim=1, keepdim=True))
        decay = (self.peak - peak).exp_()
        weights = logits.sub_(peak).exp_()
        self.total.mul_(decay).add_(weights.sum(dim=1, keepdim=True))
        self.weighted.mul_(decay).addmm_(weights, rows)
        self.peak = peak

    def logsumexp(self) -> Tensor:
        return (self.peak + self.total.log()).squeeze(1)

    def mean(self) -> Tensor:
        return self.weighted / self.total


class _QueueLogSumExp(torch.autograd.Function):
    """log Σ_j exp(z·row_j / τ) for each z; its gradient in z is the softmax-weighted mean of the rows over τ."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, rows: Tensor, temperature: float) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            running = _SoftMean(student, rows.shape[1])
            for chunk in torch.split(rows, ROWS_PER_CHUNK):
                running.add((student @ chunk.T).div_(temperature), chunk)
            ctx.save_for_backward(running.mean().div_(temperature))
            return running.logsumexp()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].unsqueeze(1) * slope, None, None


class _Relation(torch.autograd.Function):
    """See `relation`; without the mean over the batch."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        queues: tuple[Tensor, Tensor],
        taus: tuple[float, float],
        centre: Tensor | None,
    ) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            of_student, of_teacher = (_SoftMean(student, queues[0].shape[1]) for _ in range(2))
            for start in range(0, len(queues[0]), ROWS_PER_CHUNK):
                rows, teacher_rows = (queue[start : start + ROWS_PER_CHUNK] for queue in queues)
                of_student.add((student @ rows.T).div_(taus[0]), rows)
                similarities = teacher @ teacher_rows.T
                if centre is not None:
                    similarities -= centre[start : start + ROWS_PER_CHUNK]
                of_teacher.add(similarities.div_(taus[1]), rows)
            target = of_teacher.mean()
            ctx.save_for_backward((of_student.mean() - target).div_(taus[0]))
            return of_student.logsumexp() - (student * target).sum(dim=1) / taus[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].unsqueeze(1) * slope, None, None, None, None


def relation(
    student: Tensor,
    student_queue: Tensor,
    teacher: Tensor,
    teacher_queue: Tensor,
    temperatures: tuple[float, float],
    centre: Tensor | None = None,
) -> Tensor:
    """Cross entropy between the teacher's and the student's distributions over the same K queued images.

        p = softmax(B t / τ_t),   L = -Σ_j p_j log softmax(A z / τ_s)_j = LSE(A z / τ_s) - z·(Σ_j p_j A_j) / τ_s

    The second form, its mean over the batch, with gradient for `student` alone; exact to float32 rounding. Extra
    memory is a chunk of (B, 2048) and four (B, D), whatever K is. Source: ReSSL (arXiv 2107.09282, eq. 4 to 6), crossed
    between two contexts in CGH (arXiv 2308.13392).

    Args:
        student: z, (B, D) unit rows.
        student_queue: A, (K, D), embeddings of the student's kind.
        teacher: t, (B, D') unit rows, no gradient.
        teacher_queue: B, (K, D'), embeddings of the teacher's kind; row j is of the same image as row j of A.
        temperatures: τ_s, τ_t.
        centre: (K,), subtracted from the teacher's similarities before they are divided by τ_t.
    """
    assert len(student_queue) == len(teacher_queue), "the queues are not aligned"
    queues = (student_queue, teacher_queue)
    losses: Tensor = _Relation.apply(student.float(), teacher.float(), queues, temperatures, centre)
    return losses.mean()


def infonce(student: Tensor, positive: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE with queued negatives: (K+1)-way cross entropy whose right answer is `positive`; mean over the batch.

    Source: MoCo, arXiv 1911.05722, eq. 1. `student` and `positive` (B, D) unit rows, `queue` (K, D).
    """
    student, positive = student.float(), positive.float()
    right = (student * positive).sum(dim=1) / temperature
    others = _QueueLogSumExp.apply(student, queue, temperature)
    return (torch.logaddexp(right, others) - right).mean()
