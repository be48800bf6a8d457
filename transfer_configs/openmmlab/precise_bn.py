"""BatchNorm's statistics recomputed after training, with the final weights.

Source: detectron2's TEST.PRECISE_BN, that is `update_bn_stats` of facebookresearch/fvcore fvcore/nn/precise_bn.py: the
plain mean over batches of each batch's mean and (unbiased) variance, in place of the running average. If gradients are
accumulated, each part of a batch counts as a batch, as in training.
"""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from cgh_bench.transfer_configs.openmmlab.batch import parts
from cgh_bench.transfer_configs.openmmlab.state import bare


@HOOKS.register_module()
class PreciseBN(Hook):
    """Run `iterations` training batches through the model, without gradients, after the last step."""

    priority = "LOWEST"

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    @torch.no_grad()
    def after_train(self, runner: Runner) -> None:
        """Replace the running statistics of every BatchNorm layer that is trained."""
        model = bare(runner.model).train()
        layers: list[Any] = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
        momenta = [layer.momentum for layer in layers]
        sums = [torch.zeros(2, layer.num_features, device=layer.running_mean.device) for layer in layers]
        for layer in layers:
            layer.momentum = 1.0  # the running statistics are then those of the last batch
        seen = 0
        for _ in range(self.iterations):
            # Not a new iterator: those of mmdet's batch sampler share half-filled batches, and it would never end.
            with torch.random.fork_rng(devices=[]):  # the first batch of a resumed run draws a number
                batch = next(runner.train_loop.dataloader_iterator)
            for part in parts(batch, getattr(runner.train_loop, "images_at_a_time", len(batch["inputs"]))):
                runner.model(**model.data_preprocessor(part, training=True), mode="loss")
                seen += 1
                for index, layer in enumerate(layers):
                    sums[index] += torch.stack([layer.running_mean, layer.running_var])
        for layer, total, momentum in zip(layers, sums, momenta, strict=True):
            layer.running_mean, layer.running_var = total / seen
            layer.momentum = momentum
