"""A training run on disk: only tensors and plain values, so that it is read with `weights_only`."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from keeping import replacing
from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def save(runner: Runner, iteration: int, path: Path) -> None:
    """Write all that the rest of the run depends on, after `iteration` steps."""
    algorithm, keys, *rest = np.random.get_state()
    state = {
        "iteration": iteration,
        "model": bare(runner.model).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        "torch": torch.get_rng_state(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def restore(runner: Runner, state: dict[str, Any]) -> None:
    """Put all but torch's random state back; mmengine then moves the data on to where they were."""
    bare(runner.model).load_state_dict(state["model"])
    runner.optim_wrapper.load_state_dict(state["optimizer"])
    for scheduler, saved in zip(runner.param_schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    runner.train_loop._iter = state["iteration"]
    runner.optim_wrapper.initialize_count_status(runner.model, state["iteration"], runner.max_iters)
    if get_world_size() == 1:
        algorithm, keys, *rest = state["numpy"]
        np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
        random.setstate(state["python"])


def restore_torch_random(state: dict[str, Any]) -> None:
    """To be done last: making the data loader's iterator draws a number."""
    if get_world_size() == 1:
        torch.set_rng_state(state["torch"])


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """The model within its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model
