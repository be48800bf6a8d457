"""Images that are there twice, or almost, in one set or in two: by what pixels or a network say of them."""

from pathlib import Path

import numpy as np

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data.image_set import Images
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.neighbours import shared_neighbours
from cgh_bench.frozen.whole_images import Whole


def duplicates(
    images: Images, others: Images | None, checkpoint: Checkpoint, size: int, least: float, cache: Path
) -> list[tuple[int, int, float]]:
    """Each of the `images` whose most similar one of the `others` is as similar as `least`: both numbers, and how much.

    Args:
        images: those that are looked for.
        others: those that they are looked for among; None: among themselves, each pair once.
        checkpoint: whose global feature is compared; `control:pixels` has the image, averaged to 16 x 16.
        size: pixels a side that all are squashed to first.
        least: the cosine from which two count as one.
        cache: features are kept here.

    Returns:
        The most similar first.
    """
    whole = Whole(checkpoint, EvalTransform(resize=size, crop=size, squash=True), (1.0,), False, cache)
    mine = whole.extract(images)
    theirs = mine if others is None else whole.extract(others)
    similarity, row = shared_neighbours(np.asarray(theirs), np.asarray(mine), 1 if others else 2)
    if others is None:  # an image is its own nearest, unless one before it is equal
        own = row[:, :1] == np.arange(len(row))[:, None]
        similarity, row = (np.where(own, found[:, 1:], found[:, :1]) for found in (similarity, row))
    found = [(n, int(row[n, 0]), float(similarity[n, 0])) for n in np.flatnonzero(similarity[:, 0] >= least).tolist()]
    if others is None:
        found = [(*pair, cosine) for pair, cosine in {(min(a, b), max(a, b)): cosine for a, b, cosine in found}.items()]
    return sorted(found, key=lambda pair: -pair[2])
