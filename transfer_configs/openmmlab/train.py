"""Fine-tune a converted trunk under one protocol in mmdetection or mmsegmentation, evaluate it, prove it arrived.

Run by path, in a process of its own and maybe in another environment; it needs mmengine, not the package around it:

    python train.py --config animals_det.py --weights trunk.pth --work DIR --seed 0 [--gpus N] [--resume] [--set k=v …]

Leaves in DIR: `metrics.json` {metric: value}; `loaded.json` (did every tensor arrive, and the preprocessing in force);
`versions.json`; the protocol's predictions; `model.pth`, the fine-tuned weights. While it runs, `state.pth` is where
--resume goes on.
Standard output has one JSON object a line for progress, {"phase", "done", "of", "loss"}; all other lines are a log.
Exit codes: 0 done; 130 interrupted, state saved; anything else has failed.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "contract"))

import ops

ops.install()
# mmdet imports mmpretrain where it is installed; beside some versions of transformers that fails, and nobody needs it.
sys.modules["mmpretrain"] = None  # type: ignore[assignment]

import batch  # noqa: E402 (mmcv's operators must be there first)
import parent  # noqa: E402
import processes  # noqa: E402
import torch  # noqa: E402
import versions  # noqa: E402
from keeping import write_text  # noqa: E402
from mmengine.config import Config, ConfigDict, DictAction  # noqa: E402
from mmengine.dist import get_rank  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from transfer import Transfer  # noqa: E402
from watch import Interrupted  # noqa: E402

MODULES = ("mmengine", "mmcv", "mmdet", "mmseg", "torch", "torchvision", "numpy", "cv2")
"""Whose versions are left in `versions.json`."""
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
"""What a setting may change; the other names of a protocol file are there to write these."""


def main() -> int:
    """Run; the exit code."""
    parent.follow()
    options = _parse()
    config = protocol(options)
    if processes.must_launch(options.gpus):
        processes.launch(options.gpus, __file__)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.gpus > 1:
        processes.join()  # mmengine's own way knows no CPUs
    try:
        runner = Runner.from_cfg(config)
        transfer = Transfer(config, options.weights, options.work, options.resume)
        runner.register_hook(transfer)
        runner.train()
        metrics = runner.test()
    except Interrupted:
        return processes.INTERRUPTED
    except torch.cuda.OutOfMemoryError as error:
        images = config.train_cfg.get("images_at_a_time", config.train_dataloader.batch_size)
        raise SystemExit(processes.too_large(images)) from error
    if get_rank() == 0:
        transfer.keep_weights(runner)
        write_text(options.work / "versions.json", json.dumps(versions.of(*MODULES), indent=1))
        write_text(options.work / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
        (options.work / "state.pth").unlink()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="protocol file (mmengine, .py)")
    parser.add_argument("--weights", type=Path, required=True, help="the trunk's tensors under mmdetection's names")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--gpus", type=int, default=0, help="as many processes; 0: one on the CPU")
    parser.add_argument("--images-at-a-time", type=int, help="in each process; the gradients of a step add up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pth where there is one")
    parser.add_argument("--iterations", type=int, help="another length; the schedule is stretched to it")
    parser.add_argument("--set", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", dest="settings")
    return parser.parse_args()


def protocol(options: argparse.Namespace) -> Config:
    """The protocol file with the command line applied.

    A protocol states the batch of a whole step; it is divided among the GPUs, so that its learning rate holds for any
    number of them. With another `batch_size` set, learning rate and number of steps follow it.
    """
    if options.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    config = Config.fromfile(options.config)
    for setting in options.settings:
        require_known(config, setting)
    published = config.batch_size
    config.merge_from_dict(options.settings)
    drop_pretrained(config._cfg_dict)
    if "shared_head" in config.model.get("roi_head", {}):
        config.model.roi_head.shared_head.style = config.model.backbone.style  # the last stage of the same trunk
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
        config.model_wrapper_cfg = wrapper  # without device ids it serves CPUs, too
    config.randomness = {"seed": options.seed, "diff_rank_seed": True}
    config.default_hooks = {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 10}}
    return config


def require_known(config: Config, setting: str) -> None:
    """Refuse a setting that the protocol does not have, or that nothing reads: mmengine would take it."""
    if setting.split(".", maxsplit=1)[0] not in READ:
        raise SystemExit(f"--set {setting}: it has no effect; what counts are {', '.join(READ)}")
    place: Any = config._cfg_dict
    for part in setting.split("."):
        if isinstance(place, list | tuple) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict) and part in place:
            place = place[part]
        else:
            known = ", ".join(sorted(place)) if isinstance(place, dict) else f"a {type(place).__name__}"
            raise SystemExit(f"--set {setting}: no {part!r} in the protocol; there: {known}")


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
    """Remove every `init_cfg` of type Pretrained below `node`: each would download weights and put them over ours."""
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
