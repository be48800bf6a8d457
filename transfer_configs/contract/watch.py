"""The two wires to whoever started the process: progress out, requests to stop in."""

import json
import os
import signal
import sys
import time
from typing import Any

SECONDS_BETWEEN_SAVES = 300.0
SECONDS_BETWEEN_TICKS = 0.2


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""


class Watch:
    """Tells the progress, one JSON object a line; hears Ctrl-C and a scheduler's warning; knows when to save.

    Args:
        tells: whether this process is the one that tells; others only hear.
    """

    def __init__(self, tells: bool) -> None:
        self.tells = tells
        self.asked_to_stop = False
        self._last_save = self._last_tick = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, *_: Any) -> None:
        self.asked_to_stop = True

    def time_to_save(self) -> bool:
        """Whether the last save is long ago, or no further step will come; said once."""
        now = time.monotonic()
        if not self.asked_to_stop and now - self._last_save <= SECONDS_BETWEEN_SAVES:
            return False
        self._last_save = now
        return True

    def tick(self, phase: str, done: int, of: int, loss: float | None = None) -> None:
        """Tell that `done` steps `of` so many of a phase are done; now and then, and the last."""
        now = time.monotonic()
        if not self.tells or (done < of and now - self._last_tick < SECONDS_BETWEEN_TICKS):
            return
        self._last_tick = now
        try:
            print(json.dumps({"phase": phase, "done": done, "of": of, "loss": loss}), flush=True)
        except BrokenPipeError:  # whoever started us is gone and nobody waits for the result
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.asked_to_stop = True
