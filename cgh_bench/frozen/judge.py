"""What classifiers of whole images answer, where no features are kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgh_bench.core import dist
from cgh_bench.data import ImageSet
from cgh_bench.data.image_set import workers
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.metrics import true_ranks


@dataclass(frozen=True)
class Judge:
    """Images as they are evaluated, and what classifiers answer for them."""

    images: ImageSet
    transform: EvalTransform
    batch_size: int

    @torch.no_grad()
    def answers(self, scores: Callable[[Tensor], Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        """The class that each of G classifiers predicts, and the rank of the true one: (N, G) both.

        Args:
            scores: (B, G, C) of pixels (B, 3, H, W) in [0, 1] on the device; each process looks at a part of them.
            device: where.
        """
        share = _Share(self)
        batches = math.ceil(len(share) / self.batch_size)
        processes = workers(self.images, self.batch_size * self.transform.bytes, batches)
        loader = DataLoader(share, self.batch_size, num_workers=processes)
        found = []
        for pixels, labels in loader:
            logits = scores(pixels.to(device))
            found.append(torch.stack([logits.argmax(dim=2), true_ranks(logits, labels.to(device))]).cpu())
        parts = dist.gather_shares(torch.cat(found, dim=1) if found else None)
        predicted, ranks = torch.cat([part for part in parts if part is not None], dim=1)
        return predicted, ranks


class _Share(Dataset[tuple[Tensor, int]]):
    """The part of the images that this process looks at."""

    def __init__(self, judge: Judge) -> None:
        self.images, self.transform = judge.images, judge.transform
        part = dist.share(len(self.images))
        self.rows = range(part.start, part.stop)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        return self.transform(self.images.image(row)), int(self.images.labels[row])
