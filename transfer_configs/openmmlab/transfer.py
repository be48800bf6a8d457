"""The hook that puts the weights in, proves it, tells the progress, and saves the run."""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import state
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

SECONDS_BETWEEN_SAVES = 300.0
SECONDS_BETWEEN_TICKS = 0.2


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""


class Transfer(Hook):
    """Weights in before the first step; progress; state out when asked to stop and now and then.

    The weights are copied by hand after the framework has initialised its model: its own loader passes over names that
    do not match, reads pickles of any kind, and its initialisation would follow. Just before the first step every
    tensor is compared, bit for bit.
    """

    priority = "VERY_LOW"  # the learning rates have been moved on when the state is saved

    def __init__(self, config: Config, weights: Path, work: Path, resume: bool) -> None:
        self.work, self.state_path = work, work / "state.pth"
        self.into: tuple[str, ...] = tuple(config.weights_into)
        self.not_in_weights: tuple[str, ...] = tuple(config.get("not_in_weights", ()))
        self.weights: dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        self.resumed = state.load(self.state_path) if resume and self.state_path.exists() else None
        self.asked_to_stop = False
        self.last_save = self.last_tick = time.monotonic()

    def before_run(self, runner: Runner) -> None:
        """Listen for Ctrl-C and for a scheduler's warning."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, *_: Any) -> None:
        self.asked_to_stop = True

    def before_train(self, runner: Runner) -> None:
        """Put the weights, or the saved state, into the model."""
        if self.resumed is not None:
            state.restore(runner, self.resumed)
            return
        model = state.bare(runner.model).state_dict()
        for name, home in self._homes(model).items():
            if home and model[home].shape == self.weights[name].shape:
                model[home].copy_(self.weights[name])

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before the first step check that all weights are there."""
        if self.resumed is not None:
            state.restore_torch_random(self.resumed)
            self.resumed = None
        elif batch_idx == 0:
            self._certify(state.bare(runner.model))

    def _homes(self, model: dict[str, torch.Tensor]) -> dict[str, str]:
        """Where in the model each tensor of the file belongs; nowhere is the empty string."""
        candidates = {name: [f"{m}.{name}" for m in self.into if f"{m}.{name}" in model] for name in self.weights}
        return {name: found[0] if len(found) == 1 else "" for name, found in candidates.items()}

    def _certify(self, trained: torch.nn.Module) -> None:
        """Compare every tensor; leave the account in `loaded.json`; stop unless all have arrived."""
        model = trained.state_dict()
        homes = self._homes(model)
        missing = [name for name, home in homes.items() if not home or not _same(model[home], self.weights[name])]
        within = tuple(f"{module}." for module in self.into)
        unfilled = sorted({name for name in model if name.startswith(within)} - set(homes.values()))
        unfilled = [name for name in unfilled if not name.startswith(self.not_in_weights)]
        record = {
            "given": len(homes),
            "arrived": len(homes) - len(missing),
            "missing": missing,
            "unfilled": unfilled,
            "into": self.into,
            "in_force": self._in_force(trained),
        }
        if get_rank() == 0:
            state.write_text(self.work / "loaded.json", json.dumps(record, indent=1))
        if missing or unfilled:
            raise SystemExit(
                f"the weights have not arrived: {len(missing)} of {len(homes)} tensors have no equal in the model "
                f"({', '.join(missing[:3])}), {len(unfilled)} places were left empty ({', '.join(unfilled[:3])})"
            )

    def _in_force(self, trained: torch.nn.Module) -> dict[str, Any]:
        """How the model that was built prepares images (pixels 0 to 255), and where its bottlenecks stride."""
        preprocessor = trained.data_preprocessor
        modules = [module for path in self.into for module in trained.get_submodule(path).named_modules()]
        return {
            # Images are read as BGR.
            "channel_order": "RGB" if preprocessor._channel_conversion else "BGR",
            "mean_std": [*preprocessor.mean.flatten().tolist(), *preprocessor.std.flatten().tolist()],
            "stride_in_1x1": any(
                name.endswith("conv1") and module.kernel_size == (1, 1) and module.stride != (1, 1)
                for name, module in modules
            ),
        }

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Tell the progress; stop where the loss is no number; save when it is time, at the end, and when asked to."""
        loss, done, now = outputs["loss"].detach().item(), batch_idx + 1, time.monotonic()
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} in iteration {done}")
        self._tick("train", done, runner.max_iters, loss)
        if self.asked_to_stop or now - self.last_save > SECONDS_BETWEEN_SAVES or done == runner.max_iters:
            self.last_save = now
            if get_rank() == 0:
                state.save(runner, done, self.state_path)
        if self.asked_to_stop:
            raise Interrupted

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Tell the progress; the state was saved after the last step of training."""
        self._tick("test", batch_idx + 1, len(runner.test_dataloader))
        if self.asked_to_stop:
            raise Interrupted

    def _tick(self, phase: str, done: int, of: int, loss: float | None = None) -> None:
        now = time.monotonic()
        if get_rank() != 0 or (done < of and now - self.last_tick < SECONDS_BETWEEN_TICKS):
            return
        self.last_tick = now
        try:
            print(json.dumps({"phase": phase, "done": done, "of": of, "loss": loss}), flush=True)
        except BrokenPipeError:  # whoever started us is gone and nobody waits for the result
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.asked_to_stop = True

    def tidy(self, runner: Runner) -> None:
        """After the end: keep the fine-tuned weights, without the optimiser."""
        with state.replacing(self.work / "model.pth") as path:
            torch.save(state.bare(runner.model).state_dict(), path)
        self.state_path.unlink()


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.cpu(), other)
