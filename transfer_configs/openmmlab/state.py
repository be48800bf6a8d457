"""The state of a training run on disk: only tensors and plain values, so that `weights_only` can read it."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from cgh_bench.transfer_configs.contract.records import random_states, replacing, restore_numpy_and_python


def save(runner: Runner, iteration: int, path: Path) -> None:
    """Write everything that the rest of the run depends on, after `iteration` steps."""
    state = {
        "iteration": iteration,
        "model": bare(runner.model).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        **random_states(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def restore(runner: Runner, state: dict[str, Any]) -> None:
    """Restore all but torch's random state; mmengine then skips the batches that were seen."""
    bare(runner.model).load_state_dict(state["model"])
    runner.optim_wrapper.load_state_dict(state["optimizer"])
    for scheduler, saved in zip(runner.param_schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    runner.train_loop._iter = state["iteration"]
    runner.optim_wrapper.initialize_count_status(runner.model, state["iteration"], runner.max_iters)
    if get_world_size() == 1:
        restore_numpy_and_python(state)


def restore_torch_random(state: dict[str, Any]) -> None:
    """Restore torch's random state. Call it last: creating the data loader's iterator draws a number."""
    if get_world_size() == 1:
        torch.set_rng_state(state["torch"])


def bare(model: Any) -> Any:
    """The model within its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model
