"""Gradient accumulation."""

import time
from typing import Any

from detectron2.engine import SimpleTrainer


class AccumulatingTrainer(SimpleTrainer):
    """Takes the images of a step `at_a_time`, which divides their number. BatchNorm sees only those at once."""

    at_a_time: int

    def run_step(self) -> None:
        """As in SimpleTrainer, with the mean of the losses of all parts."""
        started = time.perf_counter()
        images = next(self._data_loader_iter)
        waited = time.perf_counter() - started
        parts = [images[first : first + self.at_a_time] for first in range(0, len(images), self.at_a_time)]
        mean: dict[str, Any] = {}
        self.optimizer.zero_grad()
        for part in parts:
            losses = {name: loss / len(parts) for name, loss in self.model(part).items()}
            sum(losses.values()).backward()
            mean = {name: loss.detach() + mean.get(name, 0) for name, loss in losses.items()}
        self._write_metrics(mean, waited)
        self.optimizer.step()
