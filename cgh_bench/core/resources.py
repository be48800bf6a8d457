"""What an evaluation may use of the machine; its result is the same, whatever that is."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Limits that somebody asked for; None: as the machine suggests."""

    device: str | None = None
    """`cpu`, `cuda` or `cuda:1`."""
    workers: int | None = None
    """Processes that decode images."""
    batch_size: int | None = None
    """Images at a time through a frozen backbone, at most."""


UNLIMITED = Resources()
_allowed: ContextVar[Resources] = ContextVar("allowed", default=UNLIMITED)


def allowed() -> Resources:
    """What holds now."""
    return _allowed.get()


@contextmanager
def limited(resources: Resources) -> Iterator[None]:
    """Within the block, use no more than that."""
    token = _allowed.set(resources)
    try:
        yield
    finally:
        _allowed.reset(token)
