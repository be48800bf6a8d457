"""The area under precision against recall as COCO, VOC 2007 and Cityscapes define it.

Each function takes n detections of one class, the surest first, at T IoU thresholds.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from cgh_bench.outcomes.base import Floats, Ints

Area = Callable[[Ints, Ints, int, Floats], Floats]
"""(T,) AP from the right and the wrong detections so far, (n, T) each, the objects to find, and the scores (n,)."""


def at_recalls(recalls: Floats, true: Ints, false: Ints, total: int, score: Floats) -> Floats:
    """The mean over `recalls` of the best precision at that recall or a higher one.

    Sources: pycocotools `cocoeval.py`; M. Everingham et al., The PASCAL VOC Challenge, IJCV 2010, 4.2.
    """
    precision = true / np.maximum(true + false, np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall, padded = true / total, np.vstack([precision, np.zeros((1, precision.shape[1]))])
    places = [np.searchsorted(column, recalls, side="left") for column in recall.T]
    return np.array([padded[place, column].mean() for column, place in enumerate(places)])


def trapezoids(true: Ints, false: Ints, total: int, score: Floats) -> Floats:
    """The area below straight lines between the points of all scores, from precision 1 at recall 0.

    Source: mcordts/cityscapesScripts, evalInstanceLevelSemanticLabeling.py.
    """
    last = np.flatnonzero(np.append(np.diff(score) != 0, [True] * (len(score) > 0)))  # equal scores are one point
    true, seen = true[last], (true + false)[last]
    precision = np.divide(true, seen, out=np.ones(true.shape), where=seen > 0)
    recall = np.vstack([np.zeros(true.shape[1]), true / total])
    precision = np.vstack([np.ones(true.shape[1]), precision])
    areas: Floats = ((precision[1:] + precision[:-1]) / 2 * np.diff(recall, axis=0)).sum(axis=0)
    return areas


RULES: Mapping[str, Area] = {
    "": partial(at_recalls, np.linspace(0, 1, 101, dtype=np.float64)),
    "VOC2007": partial(at_recalls, np.arange(11, dtype=np.float64) * 0.1),
    "Cityscapes": trapezoids,
}
"""COCO's rules have no name."""
