"""Put converted weights into a model that a framework has built and initialised, and prove that they are there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from keeping import write_text

COUNTER = ".num_batches_tracked"


def put(weights: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor], into: Sequence[str]) -> None:
    """Copy each tensor to its place in `model`, a state dict, as far as it has one of its shape.

    By hand: a framework's own loader passes over names that do not match, and its initialisation would follow.

    Args:
        weights: by their names within the trunk.
        model: by their names in the whole network.
        into: the modules of the network that hold the trunk, or parts of it.
    """
    for name, home in _homes(weights, model, into).items():
        if home and model[home].shape == weights[name].shape:
            model[home].copy_(weights[name])


def account(
    weights: Mapping[str, torch.Tensor],
    model: Mapping[str, torch.Tensor],
    into: Sequence[str],
    not_in_weights: Sequence[str],
    in_force: Mapping[str, Any],
) -> dict[str, Any]:
    """What `loaded.json` says: which tensors are not in `model` bit for bit, and which places in it got none.

    Args:
        weights: as in `put`.
        model: as in `put`.
        into: as in `put`.
        not_in_weights: beginnings of names within these modules that no trunk has.
        in_force: how the model that was built prepares images, and where its bottlenecks stride.
    """
    homes = _homes(weights, model, into)
    missing = [name for name, home in homes.items() if not home or not _same(model[home], weights[name])]
    within = tuple(f"{module}." for module in into)
    empty = sorted({name for name in model if name.startswith(within)} - set(homes.values()))
    if not any(name.endswith(COUNTER) for name in weights):  # some frameworks' files have no counters of batches
        empty = [name for name in empty if not name.endswith(COUNTER)]
    return {
        "given": len(homes),
        "arrived": len(homes) - len(missing),
        "missing": missing,
        "unfilled": [name for name in empty if not name.startswith(tuple(not_in_weights))],
        "into": list(into),
        "in_force": dict(in_force),
    }


def write(loaded: Mapping[str, Any], work: Path) -> None:
    """Leave the account in the run's folder."""
    write_text(work / "loaded.json", json.dumps(loaded, indent=1))


def require_complete(loaded: Mapping[str, Any]) -> None:
    """Stop the process unless all have arrived."""
    missing, unfilled = loaded["missing"], loaded["unfilled"]
    if missing or unfilled:
        raise SystemExit(
            f"the weights have not arrived: {len(missing)} of {loaded['given']} tensors have no equal in the model "
            f"({', '.join(missing[:3])}), {len(unfilled)} places were left empty ({', '.join(unfilled[:3])})"
        )


def coverage(given: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Which tensors of a file are in the model bit for bit, which are not, and which the model has beside them."""
    used = [name for name, tensor in given.items() if name in model and torch.equal(tensor, model[name])]
    return {
        "used": used,
        "unused": [name for name in given if name not in set(used)],
        "missing": [name for name in model if name not in given],
    }


def _homes(
    weights: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor], into: Sequence[str]
) -> dict[str, str]:
    """Where in the model each tensor belongs; nowhere is the empty string."""
    candidates = {name: [f"{m}.{name}" for m in into if f"{m}.{name}" in model] for name in weights}
    return {name: found[0] if len(found) == 1 else "" for name, found in candidates.items()}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.cpu(), other)
