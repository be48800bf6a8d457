"""Shapes of values that change over a training run."""

import math


def half_cosine(done: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov and Hutter, arXiv 1608.03983), when a share `done` of it is over."""
    return 0.5 * (1 + math.cos(math.pi * done))
