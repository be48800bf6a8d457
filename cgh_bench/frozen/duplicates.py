"""Images of one set that are also in another, or almost: by what pixels or a network say of them."""

from pathlib import Path

import numpy as np

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data.image_set import ImageSet
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.features import extract
from cgh_bench.frozen.neighbours import shared_neighbours


def duplicates(
    images: ImageSet, others: ImageSet, checkpoint: Checkpoint, size: int, least: float, cache: Path
) -> list[tuple[int, int, float]]:
    """Each of the `images` whose most similar one of the `others` is as similar as `least`: both numbers, and how much.

    Args:
        images: those that are looked for.
        others: those that they are looked for among.
        checkpoint: whose global feature is compared; `control:pixels` has the image, averaged to 16 x 16.
        size: pixels a side that all are squashed to first.
        least: the cosine from which two count as one.
        cache: features are kept here.

    Returns:
        The most similar first.
    """
    squashed = EvalTransform(resize=size, crop=size, squash=True)
    mine, theirs = (extract(checkpoint, part, squashed, "layer4", cache).features for part in (images, others))
    similarity, row = shared_neighbours(np.asarray(theirs), np.asarray(mine), 1)
    found = [(n, int(row[n, 0]), float(similarity[n, 0])) for n in np.flatnonzero(similarity[:, 0] >= least).tolist()]
    return sorted(found, key=lambda pair: -pair[2])
