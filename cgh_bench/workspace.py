"""Where everything is written: one folder, and the places in it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cgh_bench.core import files

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class Workspace:
    """The one folder that anything is written to."""

    root: Path
    scratch: Path | None = None
    """Where embedded datasets are made instead of in the cache; see `planning`."""

    @property
    def store(self) -> Path:
        """All results, one JSON line each."""
        return self.root / "results.jsonl"

    @property
    def cache(self) -> Path:
        """Features and embedded datasets: everything here can be made again."""
        return self.root / "cache"

    @property
    def datasets(self) -> Path:
        """Where embedded datasets are made."""
        return self.scratch or self.cache

    @contextlib.contextmanager
    def planning(self, active: bool = True) -> Iterator["Workspace"]:
        """The same, but what is made of embedded datasets is removed at the end: a dry run leaves nothing."""
        if not active:
            yield self
            return
        with files.scratch() as folder:
            for entry in self.cache.iterdir() if self.cache.is_dir() else ():
                (folder / entry.name).symlink_to(entry.resolve())
            yield replace(self, scratch=folder)

    def pretraining(self, recipe: str, seed: int) -> Path:
        """The folder of one pretraining run."""
        return self.root / "pretrain" / recipe / f"seed{seed}"

    def evaluation(self, checkpoint: "Checkpoint", protocol: str, seed: int) -> Path:
        """The folder of one evaluation."""
        return self.root / "eval" / checkpoint.id / protocol / f"seed{seed}"
