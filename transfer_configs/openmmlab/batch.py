"""The batch of a step on fewer or smaller GPUs: gradient accumulation, or another batch size by the linear rule."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop

from cgh_bench.transfer_configs.contract.processes import batch_factor, images_per_process
from cgh_bench.transfer_configs.openmmlab.state import bare


@LOOPS.register_module()
class TrainInParts(IterBasedTrainLoop):
    """Steps whose gradient is accumulated over parts of `images_at_a_time` images.

    The mean over the batch is the same where a loss is a mean over images. BatchNorm in training sees one part only;
    detection losses are normalised within a part, as they are within each GPU of several.
    """

    def __init__(self, *options: Any, images_at_a_time: int, **more: Any) -> None:
        super().__init__(*options, **more)
        self.images_at_a_time = images_at_a_time

    def run_iter(self, data_batch: Mapping[str, Sequence[Any]]) -> None:
        """One step."""
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        outputs = step_in_parts(self.runner.model, self.runner.optim_wrapper, data_batch, self.images_at_a_time)
        self.runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1


def step_in_parts(
    model: Any, optim_wrapper: Any, batch: Mapping[str, Sequence[Any]], images_at_a_time: int
) -> dict[str, torch.Tensor]:
    """Update the weights by the gradient of the whole batch; returns the losses, means over its images."""
    network, images = bare(model), len(batch["inputs"])
    outputs: dict[str, torch.Tensor] = {}
    pieces = parts(batch, images_at_a_time)
    for part in pieces:
        share = len(part["inputs"]) / images
        # Processes exchange gradients once per step.
        with contextlib.nullcontext() if part is pieces[-1] or model is network else model.no_sync():
            with optim_wrapper.optim_context(model):  # mixed precision, if the protocol has it
                losses = model(**network.data_preprocessor(part, training=True), mode="loss")
            loss, values = network.parse_losses(losses)
            optim_wrapper.backward(share * loss)
        for name, value in values.items():
            outputs[name] = outputs.get(name, 0.0) + share * value.detach()
    optim_wrapper.step()
    optim_wrapper.zero_grad()
    return outputs


def parts(batch: Mapping[str, Sequence[Any]], images_at_a_time: int) -> list[dict[str, Sequence[Any]]]:
    """The batch in parts; the last one may be smaller."""
    starts = range(0, len(batch["inputs"]), images_at_a_time)
    return [{key: values[start : start + images_at_a_time] for key, values in batch.items()} for start in starts]


def change_batch(config: Config, batch_size: int) -> int:
    """Set a batch size other than the protocol's; returns the number of steps that sees as many images.

    The learning rate is scaled in proportion (Goyal et al., https://arxiv.org/abs/1706.02677).
    """
    factor = batch_factor(batch_size, config.train_dataloader.batch_size)
    steps: int = config.train_cfg.max_iters
    config.train_dataloader.batch_size = batch_size
    config.optim_wrapper.optimizer.lr *= factor
    return round(steps / factor)


def divide(config: Config, gpus: int, images_at_a_time: int | None) -> None:
    """Divide the batch of a step among processes, and that of each process into parts."""
    share = images_per_process(config.train_dataloader.batch_size, gpus)
    config.train_dataloader.batch_size = share
    if images_at_a_time and images_at_a_time < share:
        require_norms(config, gpus, share % images_at_a_time or images_at_a_time)
        config.train_cfg.type, config.train_cfg.images_at_a_time = "TrainInParts", images_at_a_time


def require_norms(config: Config, gpus: int, fewest: int) -> None:
    """Refuse parts of a single image if a norm layer would then see one value per channel.

    Args:
        config: the protocol.
        gpus: number of processes.
        fewest: images of the smallest part.
    """
    pooled = 1 in config.model.get("decode_head", {}).get("pool_scales", ())
    if fewest == 1 and gpus == 1 and pooled:  # several processes share theirs (SyncBN)
        raise SystemExit(
            f"{config.model.decode_head.type} pools an image to one value, whose norm needs two images at a time: use "
            "--images-at-a-time 2, or another number that leaves no single image of a batch of "
            f"{config.train_dataloader.batch_size}"
        )
