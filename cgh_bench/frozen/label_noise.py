"""Images whose label may be wrong: all their nearest images carry one other label."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data.image_set import ImageSet
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.features import extract
from cgh_bench.frozen.metrics import without_self
from cgh_bench.frozen.neighbours import shared_neighbours
from cgh_bench.frozen.selection import require_one_label

Ints = NDArray[np.int64]


def contradicted(labels: Ints, neighbours: Ints) -> Ints:
    """For each image (N,) the one other label that all its neighbours (N, K) carry; -1 for the images without."""
    said = neighbours[:, 0]
    return np.where((neighbours == said[:, None]).all(axis=1) & (said != labels), said, -1)


def suspects(images: ImageSet, bank: ImageSet, checkpoint: Checkpoint, size: int, k: int, cache: Path) -> Ints:
    """What `contradicted` says of the `images` by their `k` nearest of the `bank`, (N,).

    Args:
        images: whose labels are in doubt; if they are the bank, each is compared with the others.
        bank: of the same classes.
        checkpoint: whose global feature is compared.
        size: pixels a side that all are squashed to first.
        k: neighbours.
        cache: features are kept here.

    Raises:
        UserError: a multi-label dataset.
    """
    require_one_label(bank)
    squashed = EvalTransform(resize=size, crop=size, squash=True)
    mine, theirs = (extract(checkpoint, part, squashed, "layer4", cache).features for part in (images, bank))
    if images is bank:
        found = shared_neighbours(theirs, mine, k + 1)
        _, row = without_self(*found, np.arange(len(images)))
    else:
        _, row = shared_neighbours(theirs, mine, k)
    return contradicted(images.labels, bank.labels[row])
