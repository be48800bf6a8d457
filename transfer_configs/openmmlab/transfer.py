"""The hook that puts the weights in, proves it, tells the progress, and saves the run."""

import math
from pathlib import Path
from typing import Any

import arrival
import state
import torch
from keeping import replacing
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from watch import Interrupted, Watch


class Transfer(Hook):
    """Weights in before the first step; progress; state out when asked to stop and now and then.

    The weights are copied after the framework has initialised its model. Just before the first step every tensor is
    compared, bit for bit.
    """

    priority = "VERY_LOW"  # the learning rates have been moved on when the state is saved

    def __init__(self, config: Config, weights: Path, work: Path, resume: bool) -> None:
        self.work, self.state_path = work, work / "state.pth"
        self.into: tuple[str, ...] = tuple(config.weights_into)
        self.not_in_weights: tuple[str, ...] = tuple(config.get("not_in_weights", ()))
        self.weights: dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        self.resumed = state.load(self.state_path) if resume and self.state_path.exists() else None
        self.watch = Watch(tells=get_rank() == 0)

    def before_train(self, runner: Runner) -> None:
        """Put the weights, or the saved state, into the model."""
        if self.resumed is not None:
            state.restore(runner, self.resumed)
            return
        arrival.put(self.weights, state.bare(runner.model).state_dict(), self.into)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before the first step check that all weights are there."""
        if self.resumed is not None:
            state.restore_torch_random(self.resumed)
            self.resumed = None
        elif batch_idx == 0:
            self._certify(state.bare(runner.model))

    def after_train(self, runner: Runner) -> None:
        """Of a run taken up after its last step, before others' hooks draw random numbers."""
        if self.resumed is not None:
            state.restore_torch_random(self.resumed)
            self.resumed = None

    def _certify(self, trained: torch.nn.Module) -> None:
        """Compare every tensor; leave the account in `loaded.json`; stop unless all have arrived."""
        loaded = arrival.account(
            self.weights, trained.state_dict(), self.into, self.not_in_weights, self._in_force(trained)
        )
        if get_rank() == 0:
            arrival.write(loaded, self.work)
        arrival.require_complete(loaded)

    def _in_force(self, trained: torch.nn.Module) -> dict[str, Any]:
        """How the model that was built prepares images (pixels 0 to 255), and where its bottlenecks stride."""
        preprocessor = trained.data_preprocessor
        modules = [module for path in self.into for module in trained.get_submodule(path).named_modules()]
        return {
            "channel_order": _channel_order(preprocessor),
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
        loss, done = outputs["loss"].detach().item(), batch_idx + 1
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} in iteration {done}")
        self.watch.tick("train", done, runner.max_iters, loss)
        if (self.watch.time_to_save() or done == runner.max_iters) and get_rank() == 0:
            state.save(runner, done, self.state_path)
        if self.watch.asked_to_stop:
            raise Interrupted

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Tell the progress; the state was saved after the last step of training."""
        self.watch.tick("test", batch_idx + 1, len(runner.test_dataloader))
        if self.watch.asked_to_stop:
            raise Interrupted

    def keep_weights(self, runner: Runner) -> None:
        """After the end: the fine-tuned ones, without the optimiser."""
        with replacing(self.work / "model.pth") as path:
            torch.save(state.bare(runner.model).state_dict(), path)


def _channel_order(preprocessor: torch.nn.Module) -> str:
    """Which order the model sees, by the channel in which a blue image stands out; images are read as BGR."""
    black, blue = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    blue[0] = 255
    prepared = preprocessor({"inputs": [black, blue]}, training=False)["inputs"][:, :, 0, 0]
    return "RGB" if prepared[1, 2] > prepared[0, 2] else "BGR"
