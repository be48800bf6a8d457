"""Fine-tune a converted backbone under a protocol in mmdetection or mmsegmentation, evaluate it, prove it arrived.

    python -m cgh_bench.transfer_configs.openmmlab.train --config animals_det.py --weights W.pth --work DIR …

Writes to DIR: `metrics.json` {metric: value}; `loaded.json` (whether every tensor arrived, and the preprocessing in
force); `versions.json`; the predictions; `model.pth`, the fine-tuned weights; `state.pth` during the run, for --resume.
Standard output has one JSON object per line for progress, {"phase", "done", "of", "loss"}; other lines are log lines.
Exit codes: 0 done; 130 interrupted, state saved; any other: failed.
"""

import argparse
import importlib
import os
import sys
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import get_rank
from mmengine.runner import Runner

from cgh_bench.transfer_configs.contract import processes, records
from cgh_bench.transfer_configs.contract.watch import Interrupted
from cgh_bench.transfer_configs.openmmlab import batch, own_data, state
from cgh_bench.transfer_configs.openmmlab.transfer import Transfer

MODULES = ("mmengine", "mmcv", "mmdet", "mmseg", "torch", "torchvision", "numpy", "cv2")
"""The modules listed in `versions.json`."""
READ = (
    "batch_size",
    "model",
    "train_dataloader",
    "test_dataloader",
    "test_evaluator",
    "train_cfg",
    "optim_wrapper",
    "param_scheduler",
    "custom_hooks",
)
"""What a setting may change. A protocol file defines its other names only to write these."""
INSTEAD = {
    "train_dataloader.batch_size": "batch_size, which scales learning rate and steps too",
    "train_cfg.max_iters": "iterations, which stretches the schedule too",
}
"""Settings with another that does the same rightly."""


def main() -> int:
    """Run; returns the exit code."""
    processes.end_with_parent()
    options = processes.training_parser(__doc__, action=DictAction, default={}).parse_args()
    config = protocol(options)
    if config.optim_wrapper.type == "AmpOptimWrapper":
        processes.require_gpu_for_mixed_precision(options.gpus, "optim_wrapper.type=OptimWrapper")
    if processes.must_launch(options.gpus):
        processes.launch(options.gpus, "openmmlab.train")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.gpus > 1:
        processes.join()  # mmengine's own way needs GPUs
    try:
        runner = Runner.from_cfg(config)
        transfer = Transfer(config, options.weights, options.work, options.resume)
        runner.register_hook(transfer)
        if not (options.resume and transfer.restore_trained(runner)):
            runner.train()
            processes.average_buffers(state.bare(runner.model))
            transfer.keep_weights(runner)
        metrics = runner.test()
    except Interrupted:
        return processes.INTERRUPTED
    except torch.cuda.OutOfMemoryError as error:
        images = config.train_cfg.get("images_at_a_time", config.train_dataloader.batch_size)
        raise SystemExit(processes.out_of_memory(images)) from error
    if get_rank() == 0:
        records.finish(options.work, metrics, MODULES)
    return 0


def protocol(options: argparse.Namespace) -> Config:
    """The protocol file with the command line applied.

    A protocol gives the batch size of a whole step. It is divided among the GPUs, so that the learning rate is right
    for any number of them. If another `batch_size` is set, learning rate and number of steps are scaled with it.
    """
    if options.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    config = Config.fromfile(options.config, import_custom_modules=False)
    for module in config.custom_imports.imports:  # mmengine's own error does not name a module that one of these lacks
        importlib.import_module(module)
    if options.data:
        own_data.put(config, options.data)
    if config.model.backbone.type == "Carried":
        from cgh_bench.transfer_configs.openmmlab import carried  # other backbones need nothing of ours

        carried.fit(config, options.weights)
    settings = {key: like(key, value, require_known(config, key)) for key, value in options.settings.items()}
    published = config.batch_size
    config.merge_from_dict(settings)
    drop_pretrained(config._cfg_dict)
    if "shared_head" in config.model.get("roi_head", {}):
        config.model.roi_head.shared_head.style = config.model.backbone.style  # the last stage of the same backbone
    if config.batch_size != published:
        reschedule(config, batch.change_batch(config, config.batch_size))
    if options.iterations:
        reschedule(config, options.iterations)
    batch.divide(config, max(1, options.gpus), options.images_at_a_time)
    config.work_dir = config.test_evaluator.work = str(options.work)
    config.load_from, config.resume = None, False
    if options.gpus > 1:
        config.launcher = "pytorch"
        wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
        # The norm behind the last map of a carried backbone, for one, is not used.
        wrapper["find_unused_parameters"] = config.model.backbone.type == "Carried"
        config.model_wrapper_cfg = wrapper  # without device ids it works on CPUs as well
    config.randomness = {"seed": options.seed, "diff_rank_seed": True}
    config.default_hooks = {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 10}}
    return config


def require_known(config: Config, setting: str) -> Any:
    """The protocol's value of a setting; one that it does not have, or that has no effect, mmengine would accept.

    Raises:
        SystemExit: with the settings that are accepted.
    """
    if setting in INSTEAD:
        raise SystemExit(f"--set {setting}: the schedule would stay as it is; use {INSTEAD[setting]}")
    if setting.split(".", maxsplit=1)[0] not in READ:
        raise SystemExit(f"--set {setting}: it has no effect; expected a setting below {', '.join(READ)}")
    place: Any = config._cfg_dict
    for part in setting.split("."):
        if isinstance(place, list | tuple) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict) and part in place:
            place = place[part]
        else:
            known = ", ".join(sorted(place)) if isinstance(place, dict) else f"a {type(place).__name__}"
            raise SystemExit(f"--set {setting}: no {part!r} in the protocol; expected one of: {known}")
    return place


def like(setting: str, value: Any, old: Any) -> Any:
    """`value` with tuples where `old` has them: a scale of [160, 120] would only fail when the evaluation begins.

    Raises:
        SystemExit: a pair, such as width and height, has not two values; that too would fail then.
    """
    if isinstance(old, tuple) and len(old) == 2 and not (isinstance(value, list | tuple) and len(value) == 2):
        raise SystemExit(f"--set {setting}={value}: expected two values, as in the protocol's {old}")
    if not isinstance(value, list | tuple) or not isinstance(old, list | tuple):
        return value
    return type(old)(like(setting, each, old[0] if old else None) for each in value)


def reschedule(config: Config, iterations: int) -> None:
    """Train for `iterations` steps, with every point of the learning rate's schedule moved in proportion."""
    factor = iterations / config.train_cfg.max_iters
    config.train_cfg.max_iters, config.train_cfg.val_interval = iterations, iterations + 1
    for scheduler in config.param_scheduler:
        scheduler.begin = round(scheduler.begin * factor)
        scheduler.end = max(round(scheduler.end * factor), scheduler.begin + 1)
        if "milestones" in scheduler:
            scheduler.milestones = [round(step * factor) for step in scheduler.milestones]


def drop_pretrained(node: Any) -> None:
    """Remove every `init_cfg` of type Pretrained below `node`: each would download weights and overwrite ours."""
    if isinstance(node, ConfigDict):
        if isinstance(node.get("init_cfg"), dict) and node.init_cfg.get("type") == "Pretrained":
            node.init_cfg = None
        for child in node.values():
            drop_pretrained(child)
    elif isinstance(node, list | tuple):
        for child in node:
            drop_pretrained(child)


if __name__ == "__main__":
    sys.exit(main())
