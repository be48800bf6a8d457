"""Communication with the parent process: progress goes out, requests to stop come in."""

import json
import os
import signal
import sys
import time
from typing import Any

from cgh_bench.transfer_configs.contract.processes import any_of_all

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

    def time_to_save(self) -> bool:
        """Whether the last save is long ago or the run was asked to stop. Counts as a save if true.

        All processes call it after each step of training and agree: if one was asked to stop, all are, so that none
        waits for one that is gone.
        """
        now = time.monotonic()
        is_due = now - self._last_save > SECONDS_BETWEEN_SAVES
        self.asked_to_stop, is_due = any_of_all(self.asked_to_stop, is_due)
        if self.asked_to_stop or is_due:
            self._last_save = now
        return self.asked_to_stop or is_due

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
