"""The state of a training run on disk: only tensors and plain values, so that `weights_only` can read it."""

from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from cgh_bench.transfer_configs.contract import processes, records


def save(runner: Runner, iteration: int, path: Path) -> None:
    """Write everything that the rest of the run depends on, after `iteration` steps. All processes call it."""
    own = processes.gathered(records.own_state(bare(runner.model)))
    if not own:
        return
    state = {
        "iteration": iteration,
        "model": bare(runner.model).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        "own": own,
    }
    with records.replacing(path) as temporary:
        torch.save(state, temporary)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, but as `own` only this process's, or None if the run has another number of processes now."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return {**state, "own": processes.own(state["own"])}


def restore(runner: Runner, state: dict[str, Any]) -> None:
    """Restore all but torch's random state; mmengine then skips the batches that were seen."""
    bare(runner.model).load_state_dict(state["model"])
    runner.optim_wrapper.load_state_dict(state["optimizer"])
    for scheduler, saved in zip(runner.param_schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    runner.train_loop._iter = state["iteration"]
    runner.optim_wrapper.initialize_count_status(runner.model, state["iteration"], runner.max_iters)
    if state["own"]:
        records.restore_own(state["own"], bare(runner.model))


def restore_torch_random(state: dict[str, Any]) -> None:
    """Restore torch's random state. Call it last: creating the data loader's iterator draws a number."""
    if state["own"]:
        torch.set_rng_state(state["own"]["torch"])


def bare(model: Any) -> Any:
    """The model within its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model
