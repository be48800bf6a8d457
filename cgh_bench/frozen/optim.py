"""Many smooth convex problems of the same shape minimised at once."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points (A, P), which problems (A,)) to (values (A,), gradients (A, P))."""

SUFFICIENT_DECREASE = 1e-4
MAX_HALVINGS = 20


def minimise(objective: Objective, start: Tensor, iterations: int, tolerance: float, history: int = 10) -> Tensor:
    """Minimise `G` independent strictly convex functions by limited-memory BFGS, each with its own step length.

    Every iteration evaluates all problems that have not converged in one call, so that they share the pass over the
    data. Source: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 3.1 (backtracking is
    enough here: strict convexity gives the curvature condition).

    Args:
        objective: values and gradients of the problems it is asked for.
        start: (G, P).
        iterations: at most so many.
        tolerance: a problem is done when the largest entry of its gradient is at most this, or when rounding leaves
            no step that lowers its value.
        history: pairs of steps and gradient changes that are kept.

    Returns:
        the points (G, P).
    """
    point = start.clone()
    active = torch.arange(len(start), device=start.device)
    value, gradient = objective(point, active)
    steps, changes = deque[Tensor](maxlen=history), deque[Tensor](maxlen=history)
    for _ in range(iterations):
        active = active[gradient[active].abs().amax(dim=1) > tolerance]
        if not len(active):
            break
        direction = _direction(gradient[active], [s[active] for s in steps], [y[active] for y in changes])
        before, slope = point[active], gradient[active]
        moved = _backtrack(objective, point, value, gradient, active, direction)
        step, change = torch.zeros_like(point), torch.zeros_like(point)
        step[active], change[active] = point[active] - before, gradient[active] - slope
        steps.append(step)
        changes.append(change)
        active = active[moved]
    return point


def _direction(gradient: Tensor, steps: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The L-BFGS descent directions (A, P) by the two-loop recursion; of unit length where there is no history yet."""
    curvatures = [_dot(s, y) for s, y in zip(steps, changes, strict=True)]
    inverse = [torch.where(c > 0, 1 / c, 0) for c in curvatures]
    q, alphas = gradient.clone(), []
    for s, y, rho in reversed(list(zip(steps, changes, inverse, strict=True))):
        alphas.append(rho * _dot(s, q))
        q -= alphas[-1] * y
    if steps:
        scale = curvatures[-1] / _dot(changes[-1], changes[-1]).clamp_min(torch.finfo(q.dtype).tiny)
        q *= scale
    else:
        q /= gradient.norm(dim=1, keepdim=True)
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
