"""A protocol file read over detectron2's defaults, with the command line applied."""

import argparse
from pathlib import Path

import processes
import torch
import yaml
from detectron2.config import CfgNode, get_cfg

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
"""Beginnings of detectron2's own settings that this training has no use for, or states itself: it would take them."""


def read(path: Path, settings: list[str], gpus: int, iterations: int | None) -> CfgNode:
    """The configuration of a run, complete and frozen.

    With another batch set, learning rate and number of steps follow it.
    """
    config = get_cfg()
    config.TRANSFER = CfgNode(
        {
            "WEIGHTS_INTO": [],  # the modules that hold the trunk, or parts of it
            "NOT_IN_WEIGHTS": [],  # beginnings of names in them that no trunk has
            "CANONICAL_BOX_SIZE": 224,  # of ScaledROIHeads
        }
    )
    config.SOLVER.OPTIMIZER = "SGD"
    config.merge_from_file(str(path))
    published = config.SOLVER.IMS_PER_BATCH
    try:
        config.merge_from_list([part for setting in settings for part in _parsed(setting)])
    except (AssertionError, ValueError, KeyError) as error:
        raise SystemExit(f"--set: {error}") from None
    config.MODEL.DEVICE = "cuda" if gpus and torch.cuda.is_available() else "cpu"
    if published != config.SOLVER.IMS_PER_BATCH:  # Goyal et al., https://arxiv.org/abs/1706.02677
        factor = processes.times(config.SOLVER.IMS_PER_BATCH, published)
        config.SOLVER.BASE_LR *= factor
        reschedule(config, round(config.SOLVER.MAX_ITER / factor))
    if iterations:
        reschedule(config, iterations)
    config.freeze()
    return config


def _parsed(setting: str) -> tuple[str, object]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise SystemExit(f"--set {setting!r} is not of the form key=value")
    if key.startswith(NOT_READ):
        raise SystemExit(f"--set {key}: it has no effect here")
    return key, yaml.safe_load(text)


def images_at_a_time(config: CfgNode, gpus: int, wanted: int | None) -> int:
    """How many images of a step each process takes at a time: its whole share, or as many as are wanted."""
    share = processes.share(config.SOLVER.IMS_PER_BATCH, gpus)
    at_a_time = min(wanted or share, share)
    if share % at_a_time:
        raise SystemExit(f"{share} images of a process cannot be taken {at_a_time} at a time; 1 always can")
    if at_a_time < share and config.SOLVER.AMP.ENABLED:
        raise SystemExit("with SOLVER.AMP.ENABLED all images of a step are taken at a time")
    return at_a_time


def reschedule(config: CfgNode, iterations: int) -> None:
    """Train for `iterations` steps, with every point of the learning rate's schedule moved in proportion."""
    solver = config.SOLVER
    factor = iterations / solver.MAX_ITER
    solver.MAX_ITER = iterations
    solver.WARMUP_ITERS = max(round(solver.WARMUP_ITERS * factor), 1)
    steps = {round(step * factor) for step in solver.STEPS}
    solver.STEPS = tuple(sorted(step for step in steps if 0 < step < iterations))  # in a very short training, fewer


def parser(description: str) -> argparse.ArgumentParser:
    """The options that name a configuration."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", type=Path, required=True, help="the protocol file")
    made.add_argument("--gpus", type=int, default=0, help="as many processes; 0: one on the CPU")
    made.add_argument("--iterations", type=int, help="in place of the protocol's")
    made.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    return made
