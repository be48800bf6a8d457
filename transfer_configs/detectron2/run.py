"""One training and its evaluation, by detectron2's own trainer, solver and evaluators."""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats

from cgh_bench.transfer_configs.contract import arrival, processes, records
from cgh_bench.transfer_configs.contract.watch import Interrupted, Watch
from cgh_bench.transfer_configs.detectron2 import evaluation
from cgh_bench.transfer_configs.detectron2.data_sets import training_batches
from cgh_bench.transfer_configs.detectron2.solver import optimizer

NORMALIZER = "loss_normalizer"
"""The attribute with a dense detector's running mean of a process's positives: state, but not a tensor."""


class Run:
    """A training run that can be interrupted and resumed, and its evaluation.

    Args:
        config: from `protocol.read`.
        options: from the command line: `weights` of the backbone, the run's folder `work`, the `seed` for the order of
            images, `resume`.
        at_a_time: see `protocol.images_at_a_time`.
    """

    def __init__(self, config: CfgNode, options: argparse.Namespace, at_a_time: int) -> None:
        self.config, self.work, self.seed = config, options.work, options.seed
        self.probe = arrival.read_probe(options.weights)
        read: Any = arrival.read(options.weights)
        self.weights: dict[str, torch.Tensor] = read if self.probe else read["model"]
        self.state_path = self.work / "state.pth"
        self.description: dict[str, str] = {}
        if self.probe:
            from cgh_bench.transfer_configs.contract.carried import fine_tuned  # others need nothing of ours

            self.description = fine_tuned(options.weights, "detectron2", options.config.stem)
        self.watch = Watch(prints=comm.is_main_process())
        self.model = build_model(config)
        arrival.put(self.weights, self.model.state_dict(), config.TRANSFER.WEIGHTS_INTO)
        devices = {} if config.MODEL.DEVICE == "cuda" else {"device_ids": None}
        unused = {"find_unused_parameters": True} if self.probe else {}  # say the norm behind the last map
        wrapped = create_ddp_model(self.model, broadcast_buffers=False, **devices, **unused)
        self.saved = self._read_state() if options.resume and self.state_path.exists() else None
        start = self.saved["trainer"]["iteration"] if self.saved else 0
        batches = training_batches(config, self.seed, seen=start)
        kind = AMPTrainer if config.SOLVER.AMP.ENABLED else AccumulatingTrainer
        self.trainer = kind(wrapped, batches, optimizer(config, self.model))
        self.trainer.at_a_time = at_a_time
        self.trainer.iter = self.trainer.start_iter = start
        self.scheduler = build_lr_scheduler(config, self.trainer.optimizer)
        if self.saved:
            self._restore(self.saved)

    def train(self) -> None:
        """Run the remaining steps, then PreciseBN if the protocol has it."""
        trainer, last = self.trainer, self.config.SOLVER.MAX_ITER
        with EventStorage(trainer.start_iter) as trainer.storage:
            iter(trainer._data_loader_iter)  # now, because it draws a random number
            self._start()
            for done in range(trainer.start_iter + 1, last + 1):
                trainer.run_step()  # detectron2 stops if the loss is not finite
                self.scheduler.step()
                trainer.iter = trainer.storage.iter = done
                self._after_step(done, last)
        if self.config.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            self._precise_statistics(self.config.TEST.PRECISE_BN.NUM_ITER)

    def _start(self) -> None:
        """Before the first step, check that all weights arrived; in a resumed run, restore the random states."""
        if self.saved:
            self._restore_own(processes.own(self.saved["own"]))
            self.saved = None
            return
        loaded = arrival.account(
            self.weights,
            self.model.state_dict(),
            self.config.TRANSFER.WEIGHTS_INTO,
            self.config.TRANSFER.NOT_IN_WEIGHTS,
            in_force(self.model),
        )
        if self.probe:
            pixels = self.probe["pixels"]
            images = pixels if self.model.input_format == "RGB" else pixels.flip(1)
            prepared = self.model.preprocess_image([{"image": image} for image in images]).tensor
            loaded["stages"] = arrival.stage_differences(self.model.backbone.bottom_up.network, prepared, self.probe)
        if comm.is_main_process():
            arrival.write(loaded, self.work)
        arrival.require_complete(loaded)

    def _after_step(self, done: int, last: int) -> None:
        loss = self.trainer.storage.latest()["total_loss"][0] if comm.is_main_process() else None
        self.watch.tick("train", done, last, loss)
        if self.watch.time_to_save() or done == last:
            self._write_state()
        if self.watch.asked_to_stop:
            raise Interrupted

    def _precise_statistics(self, iterations: int) -> None:
        """Set BatchNorm's statistics to means over training batches with the final weights (detectron2's PreciseBN)."""
        batches = training_batches(self.config, self.seed + 1, seen=0)
        self.model.train()
        with EventStorage():
            update_bn_stats(self.trainer.model, self._counted(batches, "statistics", iterations), iterations)

    def test(self) -> dict[str, float]:
        """The metrics, in the first process only; `predictions.json` is written to the run's folder."""
        (name,) = self.config.DATASETS.TEST
        loader = build_detection_test_loader(self.config, name)
        given = self.config.MODEL
        evaluator = evaluation.evaluator(name, self.work, given.MASK_ON, given.KEYPOINT_ON)
        counted = _Sized(self._counted(loader, "test", len(loader)), len(loader))
        return evaluation.flat(inference_on_dataset(self.model, counted, evaluator), self.work, name)

    def _counted(self, batches: Any, phase: str, of: int) -> Iterator[Any]:
        """The first `of` batches, with progress printed after each."""
        for done, batch in enumerate(itertools.islice(batches, of), start=1):
            if self.watch.asked_to_stop:
                raise Interrupted  # the state was saved after the last step of training
            yield batch
            self.watch.tick(phase, done, of)

    def keep_weights(self) -> None:
        """Save the fine-tuned weights, without the optimiser: from now on, only the evaluation is left to do.

        The configuration is in the file, too: it says architecture and preprocessing; of a carried backbone our own
        description does.
        """
        if comm.is_main_process():
            trained = {"model": self.model.state_dict(), "cfg": yaml.safe_load(self.config.dump()), **self.description}
            with records.replacing(self.work / "model.pth") as path:
                torch.save(trained, path)

    def restore_trained(self) -> bool:
        """Put the weights of an earlier, finished training into the model, if there are any."""
        path: Path = self.work / "model.pth"
        if path.exists():
            self.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
        return path.exists()

    def _write_state(self) -> None:
        """Save everything that the rest of the run depends on, as tensors and plain values for `weights_only`."""
        mine = records.own_state(self.model) | {NORMALIZER: getattr(self.model, NORMALIZER, None)}
        own = processes.gathered(mine)
        if not own:
            return
        state = {
            "model": self.model.state_dict(),
            "trainer": self.trainer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "own": own,
        }
        with records.replacing(self.state_path) as temporary:
            torch.save(state, temporary)

    def _read_state(self) -> dict[str, Any]:
        return torch.load(self.state_path, map_location="cpu", weights_only=True)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.trainer.load_state_dict(state["trainer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def _restore_own(self, state: dict[str, Any] | None) -> None:
        """Restore what only this process has; None: the run has another number of processes now."""
        if state is None:
            return
        records.restore_own(state, self.model)
        if state[NORMALIZER] is not None:
            setattr(self.model, NORMALIZER, state[NORMALIZER])
        torch.set_rng_state(state["torch"])


class _Sized:
    """An iterator with a length."""

    def __init__(self, items: Iterator[Any], length: int) -> None:
        self.items, self.length = items, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return self.items


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


def in_force(model: Any) -> dict[str, Any]:
    """How the model that was built prepares images (pixels 0 to 255), and where its bottlenecks stride."""
    return {
        "channel_order": model.input_format,
        "mean_std": [*model.pixel_mean.flatten().tolist(), *model.pixel_std.flatten().tolist()],
        "stride_in_1x1": arrival.strides_in_1x1(model.named_modules()),
    }
