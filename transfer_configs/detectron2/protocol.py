"""A protocol file read over detectron2's defaults, with the command line applied."""

import argparse
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg


def read(path: Path, settings: list[str], gpus: int, iterations: int | None) -> CfgNode:
    """The configuration of a run, complete and frozen.

    A protocol states the batch of a whole step; it is divided among the GPUs, so that its learning rate holds for any
    number of them.
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
    try:
        config.merge_from_list([part for setting in settings for part in _parsed(setting)])
    except (AssertionError, ValueError, KeyError) as error:
        raise SystemExit(f"--set: {error}") from None
    config.MODEL.DEVICE = "cuda" if gpus else "cpu"
    if iterations:
        reschedule(config, iterations)
    if config.SOLVER.IMS_PER_BATCH % max(1, gpus):
        raise SystemExit(f"a batch of {config.SOLVER.IMS_PER_BATCH} images cannot be divided among {gpus} GPUs")
    config.freeze()
    return config


def _parsed(setting: str) -> tuple[str, object]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise SystemExit(f"--set {setting!r} is not of the form key=value")
    return key, yaml.safe_load(text)


def reschedule(config: CfgNode, iterations: int) -> None:
    """Train for `iterations` steps, with every point of the learning rate's schedule moved in proportion."""
    solver = config.SOLVER
    factor = iterations / solver.MAX_ITER
    solver.MAX_ITER = iterations
    solver.WARMUP_ITERS = max(round(solver.WARMUP_ITERS * factor), 1)
    solver.STEPS = tuple(round(step * factor) for step in solver.STEPS)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that name a configuration."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", type=Path, required=True, help="the protocol file")
    made.add_argument("--gpus", type=int, default=0, help="0: on the CPU")
    made.add_argument("--iterations", type=int, help="in place of the protocol's")
    made.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    return made
