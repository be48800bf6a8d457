"""Signals that ask a run to stop: noted, so that it ends after a step that all its processes have finished."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from cgh_bench.core import dist
from cgh_bench.pretrain.batches import STOP_SIGNALS

SECONDS_FOR_A_BATCH = 10
"""How long several processes that are told to stop wait for a batch, to stop after the same step."""


class StopSignal:
    """Notes `STOP_SIGNALS` while the block runs; a second Ctrl-C interrupts at once.

    A second SIGTERM does not: under SLURM a run gets one from SLURM and one from torchrun.
    """

    def __enter__(self) -> "StopSignal":
        self.received = self.waiting = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            alarm = [signal.SIGALRM] if hasattr(signal, "SIGALRM") else []  # Windows has none
            for number in (*STOP_SIGNALS, *alarm):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup makes SIGHUP
                    self.previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if self.received and dist.says_that_another_is_lost(error):
            raise KeyboardInterrupt from None  # it was told to stop too, and did not wait

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block, a signal is a KeyboardInterrupt: the wait for a batch may never end.

        Where several processes train, it is one after `SECONDS_FOR_A_BATCH`: they should stop after the same step.
        """
        self.waiting = True
        try:
            if self.received:
                self._interrupt()
            yield
        finally:
            self.waiting = False
            if self.received:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self) -> None:
        if dist.world_size() == 1:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, SECONDS_FOR_A_BATCH)

    def anywhere(self) -> bool:
        """Whether any process has been told to stop, so that all stop after the same step."""
        return bool(dist.mean(torch.tensor(float(self.received))))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number == signal.SIGINT:
            signal.signal(number, self.previous[number])
        if self.waiting and number == signal.SIGALRM:
            raise KeyboardInterrupt
        if self.waiting:
            self._interrupt()
