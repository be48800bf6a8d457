"""A protocol file read over detectron2's defaults, with the command line applied."""

import importlib
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from cgh_bench.transfer_configs.contract import processes
from cgh_bench.transfer_configs.detectron2 import data_sets, heads  # noqa: F401 (heads registers what protocols name)

NOT_READ = (
    "CUDNN_BENCHMARK",
    "DATALOADER.REPEAT_",
    "DATALOADER.SAMPLER_TRAIN",
    "FLOAT32_PRECISION",
    "GLOBAL.",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "TEST.AUG.",
    "TEST.EVAL_PERIOD",
    "TEST.EXPECTED_RESULTS",
    "VERSION",
    "VIS_PERIOD",
)
"""Prefixes of detectron2's settings that have no effect here, or that only this training or a protocol file sets."""


def read(
    path: Path,
    settings: list[str],
    gpus: int,
    iterations: int | None,
    data: Path | None = None,
    weights: Path | None = None,
) -> CfgNode:
    """The configuration of a run, complete and frozen; on the user's own `data` if they are described.

    A carried backbone is that of the file `weights`.

    If another batch size is set, learning rate and number of steps are scaled with it.

    Raises:
        SystemExit: a setting is unknown, of the wrong type, or has no effect.
    """
    config = get_cfg()
    config.TRANSFER = CfgNode(
        {
            "WEIGHTS_INTO": [],  # the modules that hold the backbone, or parts of it
            "NOT_IN_WEIGHTS": [],  # prefixes of names in them that no backbone has
            "CANONICAL_BOX_SIZE": 224,  # for ScaledROIHeads
            "INIT_AS_MMDETECTION": False,  # for ScaledROIHeads
            "ARCHITECTURE": "",  # of a carried backbone: a name, for which a run puts the checkpoint's file
            "DROP_PATH": 0.0,
            "LAYER_DECAY": 1.0,  # of the learning rate, from one layer of a carried backbone to the one before it
            "SCALE_JITTER": 0,  # side of the squares that images scaled by .1 to 2 are cut to; 0: MIN_SIZE_TRAIN
        }
    )
    config.SOLVER.OPTIMIZER = "SGD"
    config.merge_from_file(str(path))
    published = config.SOLVER.IMS_PER_BATCH
    if data:
        data_sets.put_own(config, data)
    try:
        config.merge_from_list([part for setting in settings for part in _parsed(setting)])
    except (AssertionError, ValueError, KeyError) as error:
        raise SystemExit(f"--set: {error}") from None
    if config.TRANSFER.ARCHITECTURE:
        # Registers what such protocols name; other backbones need nothing of ours.
        importlib.import_module("cgh_bench.transfer_configs.detectron2.carried")
        config.TRANSFER.ARCHITECTURE = str(weights or config.TRANSFER.ARCHITECTURE)
    config.MODEL.DEVICE = "cuda" if gpus and torch.cuda.is_available() else "cpu"
    if published != config.SOLVER.IMS_PER_BATCH:  # Goyal et al., https://arxiv.org/abs/1706.02677
        factor = processes.batch_factor(config.SOLVER.IMS_PER_BATCH, published)
        config.SOLVER.BASE_LR *= factor
        reschedule(config, round(config.SOLVER.MAX_ITER / factor))
    if iterations:
        reschedule(config, iterations)
    config.freeze()
    return config


def _parsed(setting: str) -> tuple[str, object]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise SystemExit(f"--set {setting!r} must be KEY=VALUE")
    if key == "SOLVER.MAX_ITER":
        raise SystemExit(f"--set {key}: the schedule would not be stretched with it; use iterations={text}")
    if key.startswith(NOT_READ):
        raise SystemExit(f"--set {key}: it has no effect here, or is fixed by the protocol")
    return key, yaml.safe_load(text)


def images_at_a_time(config: CfgNode, gpus: int, wanted: int | None) -> int:
    """How many images each process takes at a time: its share of the batch, or as many as `wanted`.

    Raises:
        SystemExit: the batch, or the share, cannot be divided so.
    """
    share = processes.images_per_process(config.SOLVER.IMS_PER_BATCH, gpus)
    at_a_time = min(wanted or share, share)
    if share % at_a_time:
        raise SystemExit(f"{share} images per process cannot be taken {at_a_time} at a time; use a divisor, such as 1")
    if at_a_time < share and config.SOLVER.AMP.ENABLED:
        raise SystemExit("gradients cannot be accumulated with SOLVER.AMP.ENABLED; leave out --images-at-a-time")
    return at_a_time


def reschedule(config: CfgNode, iterations: int) -> None:
    """Train for `iterations` steps, with every point of the learning rate's schedule moved in proportion."""
    solver = config.SOLVER
    factor = iterations / solver.MAX_ITER
    solver.MAX_ITER = iterations
    solver.WARMUP_ITERS = max(round(solver.WARMUP_ITERS * factor), 1)
    steps = {round(step * factor) for step in solver.STEPS}
    solver.STEPS = tuple(sorted(step for step in steps if 0 < step < iterations))  # a very short training has fewer
