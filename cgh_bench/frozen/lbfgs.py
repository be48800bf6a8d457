"""Limited-memory BFGS for many convex problems at once.

It is our own because it shares each pass over the data among all problems, which takes 0.61 of the time of solving them
one by one (benchmarks/linear.py), and because it starts from a model of the Hessian: without one, weakly regularised
problems are far from their optimum after 300 iterations.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points (A, P), which problems (A,)) to (values (A,), gradients (A, P))."""

HISTORY = 10
"""Pairs of steps and gradient changes that are kept."""
SUFFICIENT_DECREASE = 1e-4
MAX_HALVINGS = 20

Newton = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(values (A,), which problems (A,), vectors (A, P)) to the vectors times roughly the inverse Hessian, (A, P)."""


def minimise(
    objective: Objective,
    start: Tensor,
    iterations: int,
    tolerance: float,
    newton: Newton,
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise `G` independent strictly convex positive functions by limited-memory BFGS, each with its own steps.

    Every iteration evaluates all problems that have not converged in one call, so that they share the pass over the
    data. Source: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 3.1 (backtracking is
    enough here: strict convexity gives the curvature condition).

    Args:
        objective: values and gradients of the problems it is asked for.
        start: (G, P).
        iterations: at most so many.
        tolerance: a problem is done when the next step promises to lower its value by at most this share of the value
            and of how far it has fallen already, or when rounding leaves no step that lowers it.
        newton: the inverse Hessian that the algorithm starts from.
        first: the values (G,) at the beginning of the descent, if `start` is a later point of it.

    Returns:
        the points (G, P), and which of them are done (G,).
    """
    point = start.clone()
    active = torch.arange(len(start), device=start.device)
    value, gradient = objective(point, active)
    first = value.clone() if first is None else first
    steps, changes = deque[Tensor](maxlen=HISTORY), deque[Tensor](maxlen=HISTORY)
    for iteration in count():
        past = [s[active] for s in steps], [y[active] for y in changes]
        direction = _direction(gradient[active], *past, partial(newton, value[active], active))
        promised = -_dot(gradient[active], direction)[:, 0] / 2
        going = promised > tolerance * torch.minimum(value, first - value)[active]
        active, direction = active[going], direction[going]
        if not len(active) or iteration == iterations:
            break
        before, slope = point[active], gradient[active]
        moved = _backtrack(objective, point, value, gradient, active, direction)
        step, change = torch.zeros_like(point), torch.zeros_like(point)
        step[active], change[active] = point[active] - before, gradient[active] - slope
        steps.append(step)
        changes.append(change)
        active = active[moved]
        if not len(active):
            break
    done = torch.ones(len(start), dtype=torch.bool, device=start.device)
    done[active] = False
    return point, done


def _direction(
    gradient: Tensor, steps: list[Tensor], changes: list[Tensor], newton: Callable[[Tensor], Tensor]
) -> Tensor:
    """The L-BFGS descent directions (A, P) by the two-loop recursion."""
    curvatures = [_dot(s, y) for s, y in zip(steps, changes, strict=True)]
    inverse = [torch.where(c > 0, 1 / c, 0) for c in curvatures]
    q, alphas = gradient.clone(), []
    for s, y, rho in reversed(list(zip(steps, changes, inverse, strict=True))):
        alphas.append(rho * _dot(s, q))
        q -= alphas[-1] * y
    q = newton(q)
    if steps:
        q *= curvatures[-1] / _dot(changes[-1], newton(changes[-1])).clamp_min(torch.finfo(q.dtype).tiny)
    for s, y, rho, alpha in zip(steps, changes, inverse, reversed(alphas), strict=True):
        q += (alpha - rho * _dot(y, q)) * s
    return -q


def _backtrack(
    objective: Objective, point: Tensor, value: Tensor, gradient: Tensor, active: Tensor, direction: Tensor
) -> Tensor:
    """Move each active problem along its direction, halving the step until the value falls enough; in place.

    Returns which of the active problems (A,) have moved.
    """
    start, start_value = point[active], value[active]
    slope = _dot(gradient[active], direction)[:, 0]
    length = torch.ones_like(slope)
    pending = torch.arange(len(active), device=active.device)
    for _ in range(MAX_HALVINGS):
        trial = start[pending] + length[pending, None] * direction[pending]
        new_value, new_gradient = objective(trial, active[pending])
        limit = start_value[pending] + SUFFICIENT_DECREASE * length[pending] * slope[pending]
        good = (new_value <= limit) & (slope[pending] < 0)
        accepted = active[pending[good]]
        point[accepted], value[accepted], gradient[accepted] = trial[good], new_value[good], new_gradient[good]
        pending = pending[~good]
        if not len(pending):
            break
        length[pending] /= 2
    moved = torch.ones_like(active, dtype=torch.bool)
    moved[pending] = False
    return moved


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (A, 1)."""
    return (a * b).sum(dim=1, keepdim=True)
