"""Communication with the parent process: progress goes out, requests to stop come in."""

import json
import os
import signal
import sys
import time
from typing import Any

import torch

SECONDS_BETWEEN_SAVES = 300.0
SECONDS_BETWEEN_TICKS = 0.2


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""


class Watch:
    """Prints the progress, one JSON object per line; notices Ctrl-C and SIGTERM; knows when to save.

    Args:
        prints: whether this process is the one that prints; the others only listen.
    """

    def __init__(self, prints: bool) -> None:
        self.prints = prints
        self.asked_to_stop = False
        self._last_save = self._last_tick = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, *_: Any) -> None:
        self.asked_to_stop = True

    def agree(self) -> None:
        """In a step of training: if any process was asked to stop, all are, so that none waits for one that is gone."""
        if torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            asked = torch.tensor(int(self.asked_to_stop), device=device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self.asked_to_stop = bool(asked.item())

    def time_to_save(self) -> bool:
        """Whether the last save is long ago or the run was asked to stop. Counts as a save if true."""
        now = time.monotonic()
        if not self.asked_to_stop and now - self._last_save <= SECONDS_BETWEEN_SAVES:
            return False
        self._last_save = now
        return True

    def tick(self, phase: str, done: int, of: int, loss: float | None = None) -> None:
        """Print that `done` of `of` steps of a phase are done, a few times per second and after the last."""
        now = time.monotonic()
        if not self.prints or (done < of and now - self._last_tick < SECONDS_BETWEEN_TICKS):
            return
        self._last_tick = now
        try:
            print(json.dumps({"phase": phase, "done": done, "of": of, "loss": loss}), flush=True)
        except BrokenPipeError:  # the parent is gone and nobody waits for the result
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.asked_to_stop = True
