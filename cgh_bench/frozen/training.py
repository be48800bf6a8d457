"""Training on labelled images, for probes and fine-tuning alike, in epochs that can be resumed."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from cgh_bench.core import dist, saved
from cgh_bench.core.descent import HeadTraining, Schedule
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing
from cgh_bench.core.progress import duration, progress

Record = dict[str, Any]
"""What one epoch ended with, as JSON values."""


class Epochs(Protocol):
    """What is learned from, in epochs of equally many batches."""

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def epoch(self, number: int, device: torch.device) -> Iterator[Any]:
        """The batches of one; the `total` of each is how many images all processes have of it."""
        ...


class Learner(Protocol):
    """What is trained."""

    def learn(self, batch: Any, factor: float) -> float:
        """One step at `factor` times the first learning rates; the loss before it."""
        ...

    def assess(self) -> Record:
        """What the epoch that has ended came to."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later session needs."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore `state`."""
        ...


@dataclass(frozen=True)
class Course:
    """How a training runs and where it is kept."""

    title: str
    epochs: int
    schedule: Schedule | HeadTraining
    identity: str
    """The hash of all that the outcome depends on: the state of another training is not continued."""
    state: Path
    """Written whole at the end of every epoch."""
    device: torch.device


def train(learner: Learner, batches: Epochs, course: Course) -> list[Record]:
    """Train for all epochs, from the last that an interrupted session finished; gives every epoch's record.

    Raises:
        UserError: the loss is not finite any more, or the state cannot be read or written.
    """
    history = _resume(learner, course)
    total = course.epochs * len(batches)
    # ExitStack: only the first process draws.
    with ExitStack() as stack:
        tick = stack.enter_context(progress(course.title, total)) if dist.rank() == 0 else None
        clock, seen = time.monotonic(), 0
        for epoch in range(len(history), course.epochs):
            for number, batch in enumerate(batches.epoch(epoch, course.device)):
                loss = learner.learn(batch, course.schedule.at(epoch + number / len(batches), course.epochs))
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss is not finite in epoch {epoch + 1} (step {number + 1}); lower the learning rates, "
                        "or check the weights with `cgh-bench inspect`"
                    )
                seen += batch.total
                if tick:
                    rate = seen / (time.monotonic() - clock)
                    tick(epoch * len(batches) + number + 1, f"loss {loss:.3f}  {rate:.0f} images/s")
            history.append(learner.assess())
            _save(learner, course, history)
    return history


def planned(images: int, batch_size: int, epochs: int, passes: float, rate: float) -> str:
    """The plan of a training on `images` images, whose epoch costs `passes` forward passes of the backbone."""
    left, steps = duration(epochs * passes / rate), epochs * math.ceil(images / batch_size)
    crops = f"{epochs} epochs of {images:,} random crops, {steps:,} steps"
    return f"{crops}, about {left} at {rate:.0f} forward passes a second"


def _resume(learner: Learner, course: Course) -> list[Record]:
    if not course.state.exists():
        return []
    history: list[Record] = []
    with saved.restoring(course.state, "remove it, and training starts again"):
        kept = saved.load(course.state)
        if kept["identity"] == course.identity:
            learner.load_state_dict(kept["learner"])
            history += kept["history"]
    return history


def _save(learner: Learner, course: Course, history: list[Record]) -> None:
    """Save the state in the first process; the others wait for it."""
    if dist.rank() == 0:
        content = {"identity": course.identity, "history": history, "learner": learner.state_dict()}
        try:
            with replacing(course.state) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot write {course.state} ({error}); free disk space, then rerun to resume") from None
    dist.wait_for_all()
