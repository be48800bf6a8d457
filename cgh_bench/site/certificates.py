"""Proof that the numbers are of these weights: what frameworks say arrived, and certificates of conversion."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench.results import Result

SUFFIX = ".certificate.json"


@dataclass(frozen=True)
class Proof:
    """One statement."""

    of: str
    """A run, or a converted file."""
    verdict: str
    details: str


def proofs(runs: Sequence[Result], root: Path, work: Path) -> list[Proof]:
    """Of every run that trained inside a framework, and of every conversion of these weights below `work`."""
    arrived = [_arrival(run, root / run.work / "loaded.json") for run in runs if run.work]
    weights = {run.checkpoint for run in runs}
    return [proof for proof in arrived if proof] + list(_conversions(weights, work))


def _arrival(run: Result, path: Path) -> Proof | None:
    said = _read(path)
    if not said or "given" not in said:
        return None
    left = len(said.get("missing", [])) + len(said.get("unfilled", []))
    short = f", {left} missing or unfilled" if left else ""
    verdict = f"{said['arrived']} of {said['given']} tensors arrived{short}"
    force = said.get("in_force", {})
    means = ", ".join(f"{value:.4g}" for value in force.get("mean_std", []))
    prepared = f"{force.get('channel_order', '')}, mean and deviation {means}" if means else ""
    return Proof(f"{run.task} of {run.checkpoint}, seed {run.seed}", verdict, prepared)


def _conversions(weights: set[str], work: Path) -> Iterable[Proof]:
    for path in sorted([*work.glob(f"*{SUFFIX}"), *work.glob(f"*/*{SUFFIX}")]):
        said = _read(path)
        if said and said.get("checkpoint", {}).get("id") in weights:
            worst = max(said.get("stages", []), key=lambda stage: stage["relative"], default=None)
            differs = f"outputs differ by at most {worst['relative']:.0e} ({worst['stage']}); " if worst else ""
            details = f"{differs}{said['tensors']} tensors, read back {said['read_back']}"
            yield Proof(f"{path.name.removesuffix(SUFFIX)} for {said['target']}", said["verdict"], details)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
