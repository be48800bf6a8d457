"""Several of our processes, each with one of a framework's, on one machine or many: if one ends early, all do.

The frameworks' processes wait for each other in almost every step, for up to half an hour if one is gone. Ours are idle
meanwhile; so that nobody waits, they tell each other every second how theirs are. They do so through CPUs.
"""

import contextlib
import datetime
import os
import signal
import subprocess
import threading
from typing import Any

import torch
import torch.distributed as torch_dist

from cgh_bench.core import dist

SECONDS_TO_STOP = 120.0
"""How long an interrupted process may take to save its state."""
SECONDS_BETWEEN_MESSAGES = 1.0
SILENCE = datetime.timedelta(minutes=5)
"""How long another process may say nothing before it counts as ended: its machine may be."""
SUCCEEDED, RUNNING, FAILED = range(3)


class Others:
    """The other processes of this run, if there are any; `ours` is the framework's process here.

    It is stopped as soon as one of the others has failed, was interrupted or is gone; then `ended_early` is true,
    unless ours had failed before.
    """

    def __init__(self, ours: "subprocess.Popen[str]") -> None:
        self.ended_early = False
        self._ours, self._state, self._has_ended = ours, RUNNING, threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        if dist.world_size() > 1:
            self._group: Any = torch_dist.new_group(backend="gloo", timeout=SILENCE)
            self._thread.start()

    def wait(self) -> None:
        """Our process has ended: tell the others, and wait until theirs have succeeded or one has not."""
        if dist.world_size() > 1:
            self._state = FAILED if self._ours.returncode else SUCCEEDED
            self._has_ended.set()
            self._thread.join()

    def _talk(self) -> None:
        """The worst state of all processes, again and again, until none runs or one has failed."""
        worst = torch.tensor([RUNNING])
        while worst.item() == RUNNING:
            self._has_ended.wait(SECONDS_BETWEEN_MESSAGES)
            worst.fill_(self._state)
            try:
                torch_dist.all_reduce(worst, torch_dist.ReduceOp.MAX, self._group)
            except RuntimeError:  # another process is gone or silent
                worst.fill_(FAILED)
        torch_dist.destroy_process_group(self._group)  # whoever waits for us learns it now
        if worst.item() == FAILED and self._state != FAILED:
            self.ended_early = True
            self._stop_ours()

    def _stop_ours(self) -> None:
        self._ours.send_signal(signal.SIGINT)
        try:
            self._ours.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._ours.pid, signal.SIGKILL)
