"""The hook that loads the weights, proves that they arrived, prints the progress and saves the run."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from cgh_bench.transfer_configs.contract import arrival
from cgh_bench.transfer_configs.contract.records import replacing
from cgh_bench.transfer_configs.contract.watch import Interrupted, Watch
from cgh_bench.transfer_configs.openmmlab import state


class Transfer(Hook):
    """Loads the weights before the first step; prints progress; saves the state now and then, and when asked to stop.

    The weights are copied after the framework has initialised its model. Just before the first step every tensor is
    compared, bit for bit.
    """

    priority = "VERY_LOW"  # when the state is saved, the learning rates have been updated

    def __init__(self, config: Config, weights: Path, work: Path, resume: bool) -> None:
        self.work, self.state_path = work, work / "state.pth"
        self.into: tuple[str, ...] = tuple(config.weights_into)
        self.not_in_weights: tuple[str, ...] = tuple(config.get("not_in_weights", ()))
        self.weights = arrival.read(weights)
        self.probe = arrival.read_probe(weights)
        self.description: dict[str, str] = {}
        if self.probe is not None:
            from cgh_bench.transfer_configs.contract.carried import fine_tuned  # others need nothing of ours

            self.description = fine_tuned(weights, config.default_scope, Path(config.filename).stem)
        self.resumed = state.load(self.state_path) if resume and self.state_path.exists() else None
        self.watch = Watch(prints=get_rank() == 0)

    def before_train(self, runner: Runner) -> None:
        """Copy the weights, or the saved state, into the model."""
        if self.resumed is not None:
            state.restore(runner, self.resumed)
            return
        arrival.put(self.weights, state.bare(runner.model).state_dict(), self.into)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check before the first step that all weights arrived."""
        if self.resumed is not None:
            self._restore_random(self.resumed)
        elif batch_idx == 0:
            self._certify(state.bare(runner.model))

    def after_train(self, runner: Runner) -> None:
        """For a run that was interrupted after its last step, before other hooks draw random numbers."""
        if self.resumed is not None:
            self._restore_random(self.resumed)

    def _restore_random(self, saved: dict[str, Any]) -> None:
        state.restore_torch_random(saved)
        self.resumed = None

    def _certify(self, trained: Any) -> None:
        """Compare every tensor; write `loaded.json`; stop unless all arrived."""
        loaded = arrival.account(
            self.weights, trained.state_dict(), self.into, self.not_in_weights, self._in_force(trained)
        )
        if self.probe is not None:
            images = self.probe["pixels"].flip(1)  # BGR, as OpenMMLab loads them
            prepared = as_tested(trained.data_preprocessor, images)
            loaded["stages"] = arrival.stage_differences(trained.backbone.network, prepared, self.probe)
        if get_rank() == 0:
            arrival.write(loaded, self.work)
        arrival.require_complete(loaded)

    def _in_force(self, trained: Any) -> dict[str, Any]:
        """How the model that was built prepares images (pixels 0 to 255), and where its bottlenecks stride."""
        preprocessor = trained.data_preprocessor
        modules = [module for path in self.into for module in trained.get_submodule(path).named_modules()]
        return {
            "channel_order": channel_order(preprocessor),
            "mean_std": [*preprocessor.mean.flatten().tolist(), *preprocessor.std.flatten().tolist()],
            "stride_in_1x1": arrival.strides_in_1x1(modules),
        }

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Print progress; stop if the loss is not finite; save now and then, at the end, and when asked to stop."""
        loss, done = outputs["loss"].detach().item(), batch_idx + 1
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} in iteration {done}")
        self.watch.tick("train", done, runner.max_iters, loss)
        if self.watch.time_to_save() or done == runner.max_iters:
            state.save(runner, done, self.state_path)
        if self.watch.asked_to_stop:
            raise Interrupted

    def before_test(self, runner: Runner) -> None:
        """Collect the predictions of all processes by messages: mmengine's usual files need a folder of all nodes."""
        for metric in runner.test_evaluator.metrics:
            metric.collect_device = "gpu"  # or whatever the processes talk through

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Print progress. The state was saved after the last training step."""
        self.watch.tick("test", batch_idx + 1, len(runner.test_dataloader))
        if self.watch.asked_to_stop:
            raise Interrupted

    def keep_weights(self, runner: Runner) -> None:
        """Save the fine-tuned weights, without the optimiser: from now on, only the evaluation is left to do.

        As mmengine saves them: the configuration beside the weights says architecture and preprocessing; of a carried
        backbone our own description does.
        """
        if get_rank() == 0:
            trained = {"meta": {"cfg": runner.cfg.pretty_text}, "state_dict": state.bare(runner.model).state_dict()}
            trained |= self.description
            with replacing(self.work / "model.pth") as path:
                torch.save(trained, path)

    def restore_trained(self, runner: Runner) -> bool:
        """Put the weights of an earlier, finished training into the model, if there are any."""
        path = self.work / "model.pth"
        if path.exists():
            trained = torch.load(path, map_location="cpu", weights_only=True)
            state.bare(runner.model).load_state_dict(trained["state_dict"])
        return path.exists()


def channel_order(preprocessor: torch.nn.Module) -> str:
    """The channel order that the model sees, from the channel in which a blue image stands out; images are BGR."""
    black, blue = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    blue[0] = 255
    prepared = as_tested(preprocessor, [black, blue])[:, :, 0, 0]
    return "RGB" if prepared[1, 2] > prepared[0, 2] else "BGR"


def as_tested(preprocessor: torch.nn.Module, images: Iterable[torch.Tensor]) -> torch.Tensor:
    """What the model sees of BGR `images` (3, H, W), uint8, of one size, padding at right and bottom included."""
    inputs = list(images)
    prepared: torch.Tensor = preprocessor(
        {"inputs": inputs, "data_samples": [BaseDataElement() for _ in inputs]}, training=False
    )["inputs"]
    return prepared
