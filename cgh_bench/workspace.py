"""Where everything is written: one folder, and the places in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class Workspace:
    """The one folder that anything is written to."""

    root: Path

    @property
    def store(self) -> Path:
        """All results, one JSON line each."""
        return self.root / "results.jsonl"

    @property
    def cache(self) -> Path:
        """Features and embedded datasets: everything here can be made again."""
        return self.root / "cache"

    def pretraining(self, recipe: str, seed: int) -> Path:
        """The folder of one pretraining run."""
        return self.root / "pretrain" / recipe / f"seed{seed}"

    def evaluation(self, checkpoint: "Checkpoint", protocol: str, seed: int) -> Path:
        """The folder of one evaluation."""
        return self.root / "eval" / checkpoint.id / protocol / f"seed{seed}"
