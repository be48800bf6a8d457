"""The work folder, to which everything is written, and its subfolders."""

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
    """The single folder to which everything is written."""

    root: Path
    scratch: Path | None = None
    """Where bundled datasets are generated instead of in the cache; see `planning`."""

    @property
    def store(self) -> Path:
        """All results, one JSON line each."""
        return self.root / "results.jsonl"

    @property
    def cache(self) -> Path:
        """Features and bundled datasets: everything here can be regenerated."""
        return self.root / "cache"

    @property
    def datasets(self) -> Path:
        """Where bundled datasets are generated."""
        return self.scratch or self.cache

    @contextlib.contextmanager
    def planning(self, active: bool = True) -> Iterator["Workspace"]:
        """The same workspace, but bundled datasets generated in it are removed at the end, for dry runs."""
        if not active:
            yield self
            return
        with files.scratch() as folder:
            for entry in self.cache.iterdir() if self.cache.is_dir() else ():
                if not entry.name.startswith("."):  # a lock is not opened through a link
                    (folder / entry.name).symlink_to(entry.resolve())
            yield replace(self, scratch=folder)

    def pretraining(self, recipe: str, seed: int) -> Path:
        """The folder of one pretraining run."""
        return self.root / "pretrain" / recipe / f"seed{seed}"

    def evaluation(self, checkpoint: "Checkpoint", protocol: str, seed: int) -> Path:
        """The folder of one evaluation."""
        return self.root / "eval" / checkpoint.id / protocol / f"seed{seed}"
