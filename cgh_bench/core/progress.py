"""Progress of long work: a bar with the time left on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0
_shown: ContextVar[bool] = ContextVar("shown", default=True)
_label: ContextVar[str] = ContextVar("label", default="")


class Tick(Protocol):
    """Tells how far the work is."""

    def __call__(self, done: int, note: str = "") -> None:
        """`done` steps in all are finished; `note` is shown behind the bar."""


def is_shown() -> bool:
    """Whether progress is to be shown: always, but within `showing(False)`."""
    return _shown.get()


@contextmanager
def showing(wanted: bool) -> Iterator[None]:
    """Within the block, show progress or do not."""
    token = _shown.set(wanted)
    try:
        yield
    finally:
        _shown.reset(token)


@contextmanager
def one_of_several(label: str) -> Iterator[None]:
    """Within the block, show progress in lines that begin with `label`: others write to the same terminal."""
    token = _label.set(label)
    try:
        yield
    finally:
        _label.reset(token)


@contextmanager
def progress(title: str, total: int) -> Iterator[Tick]:
    """Show the progress of `total` steps on standard error: the block calls what it is given with the steps done."""
    if not is_shown():
        yield lambda done, note="": None
    elif _label.get():
        yield _Lines(f"{_label.get()}: {title}", total)
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(title, total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
    else:
        yield _Lines(title, total)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


class _Lines:
    """The same for a log file: a line every half minute and at the end."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done < self.total and now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        elapsed = now - self.start
        left = elapsed / done * (self.total - done) if done else float("nan")
        line = f"{self.title}: {done}/{self.total}, {elapsed:.0f} s, eta {left:.0f} s {note}"
        print(line.rstrip(), file=sys.stderr, flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    """How long `work` takes, the least of three times: a plan should not depend on what else the machine does."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def duration(seconds: float) -> str:
    """A time for people: `45 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
