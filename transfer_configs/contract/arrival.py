"""Put converted weights into a model that a framework has built and initialised, and prove that they arrived."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cgh_bench.transfer_configs.contract.records import write_json

COUNTER = ".num_batches_tracked"
TOLERANCE = 1e-3
"""Largest difference of a stage relative to its largest value: a GPU sums in another order than the source's CPU."""


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name: our own (`.safetensors`), or one that torch wrote."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # which frameworks do not need

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def read_probe(weights: Path) -> dict[str, Any] | None:
    """What lies beside a carried backbone's file: an image, and what the source makes of it."""
    if weights.suffix != ".safetensors":
        return None
    probe: dict[str, Any] = torch.load(weights.with_name("probe.pth"), map_location="cpu", weights_only=True)
    return probe


def put(weights: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor], into: Sequence[str]) -> None:
    """Copy each tensor to its place in `model`, a state dict that has a tensor of that name and shape.

    The frameworks' own loaders skip names that do not match, and initialise the model afterwards.

    Args:
        weights: by their names within the backbone.
        model: by their names in the whole network.
        into: the modules of the network that hold the backbone, or parts of it.
    """
    for name, place in _places(weights, model, into).items():
        if place and model[place].shape == weights[name].shape:
            model[place].copy_(weights[name])


def account(
    weights: Mapping[str, torch.Tensor],
    model: Mapping[str, torch.Tensor],
    into: Sequence[str],
    not_in_weights: Sequence[str],
    in_force: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `loaded.json`: which tensors are not in `model` bit for bit, and which of its tensors got none.

    Args:
        weights: as in `put`.
        model: as in `put`.
        into: as in `put`.
        not_in_weights: prefixes of names in these modules that no backbone has.
        in_force: how the model that was built prepares images, and where its bottlenecks stride.
    """
    places = _places(weights, model, into)
    missing = [name for name, place in places.items() if not place or not _same(model[place], weights[name])]
    within = tuple(f"{module}." for module in into)
    empty = sorted({name for name in model if name.startswith(within)} - set(places.values()))
    if not any(name.endswith(COUNTER) for name in weights):  # some frameworks' files have no counters of batches
        empty = [name for name in empty if not name.endswith(COUNTER)]
    return {
        "given": len(places),
        "arrived": len(places) - len(missing),
        "missing": missing,
        "unfilled": [name for name in empty if not name.startswith(tuple(not_in_weights))],
        "into": list(into),
        "in_force": dict(in_force),
    }


def write(loaded: Mapping[str, Any], work: Path) -> None:
    """Write the account to the run's folder."""
    write_json(work / "loaded.json", loaded)


def require_complete(loaded: Mapping[str, Any]) -> None:
    """Stop the process unless every tensor arrived."""
    missing, unfilled = loaded["missing"], loaded["unfilled"]
    if other := [stage for stage, difference in loaded.get("stages", {}).items() if not difference <= TOLERANCE]:
        raise SystemExit(
            f"the carried backbone computes something else than the source: {loaded['stages']} at {other[0]}"
        )
    if missing or unfilled:
        raise SystemExit(
            f"the weights did not arrive: {len(missing)} of {loaded['given']} tensors are not in the model "
            f"({', '.join(missing[:3])}), {len(unfilled)} tensors of the model got none ({', '.join(unfilled[:3])})"
        )


def stage_differences(network: Any, prepared: torch.Tensor, probe: Mapping[str, Any]) -> dict[str, float]:
    """How far `input` and stages of the probe image are from the source's, each relative to its largest value.

    Args:
        network: the carried backbone in the network that is about to be trained.
        prepared: the probe image (1, 3, H, W) as the framework prepares it, perhaps padded.
        probe: `input` and `stages` of the source; see `read_probe`.
    """
    source = {"input": probe["input"], **probe["stages"]}
    height, width = probe["input"].shape[-2:]
    prepared = prepared[..., :height, :width]
    was_training = network.training
    network.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = {"input": prepared, **network.pyramid(prepared)}
    network.train(was_training)
    return {
        name: float((found[name].cpu() - expected).abs().max() / expected.abs().max())
        for name, expected in source.items()
    }


def strides_in_1x1(modules: Iterable[tuple[str, torch.nn.Module]]) -> bool:
    """Whether the bottlenecks among named modules stride in their first, 1x1 convolution."""
    return any(
        name.endswith("conv1")
        and isinstance(module, torch.nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        for name, module in modules
    )


def coverage(given: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Which tensors of a file are in the model bit for bit, which are not, and which only the model has."""
    used = [name for name, tensor in given.items() if name in model and torch.equal(tensor, model[name])]
    return {
        "used": used,
        "unused": [name for name in given if name not in set(used)],
        "missing": [name for name in model if name not in given],
    }


def _places(
    weights: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor], into: Sequence[str]
) -> dict[str, str]:
    """The name in the model of each tensor; empty if there is no such name, or several."""
    candidates = {name: [f"{m}.{name}" for m in into if f"{m}.{name}" in model] for name in weights}
    return {name: found[0] if len(found) == 1 else "" for name, found in candidates.items()}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.cpu(), other)
