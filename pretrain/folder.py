"""A run's folder: `recipe.json`, `log.jsonl`, TensorBoard events, `checkpoint.pt` and, when done, the backbone."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from cgh_bench.core import saved
from cgh_bench.core.config import identity as recorded
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing, write_text
from cgh_bench.data import ImageSet
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.pretrain.watching import TRACKED, tracker

SHOWN_DIFFERENCES = 5


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def weights(self) -> Path:
        """The exported backbone; it exists when the run is finished."""
        return self.path / "backbone.safetensors"

    @property
    def state(self) -> Path:
        """Everything that is needed to resume."""
        return self.path / "checkpoint.pt"

    @property
    def snapshots(self) -> Path:
        """Backbones exported on the way."""
        return self.path / "snapshots"

    @property
    def log(self) -> Path:
        """One JSON object per line."""
        return self.path / "log.jsonl"

    def claim(self, recipe: Recipe, name: str, images: ImageSet, resume: bool) -> None:
        """Write `recipe.json`, or check that the existing one is the same; without `resume`, delete the earlier run.

        A run that saved nothing, for instance because its recipe was refused, is replaced by any other.

        Raises:
            UserError: the folder holds another recipe (the differing fields are listed), or cannot be written.
        """
        identity = {"name": name, "data_fingerprint": images.fingerprint, "recipe": recorded(recipe)}
        path = self.path / "recipe.json"
        if not resume:
            events, snapshots = self.path.glob("events.out.tfevents.*"), self.snapshots.glob("*.safetensors")
            for old in (self.weights, self.state, self.log, *self._older(), *events, *snapshots):
                old.unlink(missing_ok=True)
        elif path.exists() and (self.state.exists() or self.weights.exists()):
            try:
                there = _meaning(json.loads(path.read_text()))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise UserError(f"{path} is damaged; choose another --out, or remove {self.path}") from None
            differing = _differences(there, _meaning(identity))
            if differing:
                more = len(differing) - SHOWN_DIFFERENCES
                shown = "; ".join(differing[:SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
                raise UserError(f"{self.path} holds another run ({shown}); choose another --out, or the same settings")
            return
        try:
            (self.path / TRACKED).unlink(missing_ok=True)
            write_text(path, json.dumps(identity, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {self.path} ({error.strerror}); choose another --out") from None

    def save(self, state: Mapping[str, Any], keep: int = 1) -> None:
        """Replace the saved state atomically; with `keep` above 1, also keep the last `keep` states.

        To go back, copy a `checkpoint-STEP.pt` over `checkpoint.pt`.

        Raises:
            UserError: it cannot be written; the previous state is intact.
        """
        try:
            with replacing(self.state) as temporary, temporary.open("wb") as file:
                torch.save(state, file)
            if keep > 1:
                self._keep(self.path / f"checkpoint-{state['step']:08d}.pt", keep)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"cannot write {self.state} ({error}); the previous checkpoint is intact: free some space and rerun"
            ) from None

    def _keep(self, kept: Path, most: int) -> None:
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(self.state)
        except OSError:  # exFAT, many network disks and object stores have no hard links
            with replacing(kept) as temporary:
                shutil.copyfile(self.state, temporary)
        for old in self._older()[:-most]:
            old.unlink()

    def _older(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-*.pt"))

    def load(self) -> dict[str, Any]:
        """The last saved state; empty if there is none.

        Raises:
            UserError: it is damaged, or not the state of a run.
        """
        state: dict[str, Any] = {}
        if self.state.exists():
            with self.restoring():
                state = saved.load(self.state)
                if "step" not in state:
                    raise LookupError("step")
        return state

    def restoring(self) -> contextlib.AbstractContextManager[None]:
        """See `saved.restoring`."""
        return saved.restoring(self.state, "copy a checkpoint-STEP.pt over it, or remove it to start again")


class Log:
    """Writes `log.jsonl`, and the same numbers to TensorBoard and other trackers."""

    def __init__(self, folder: RunFolder, step: int, trackers: Iterable[str] = ()) -> None:
        """Continue after `step`; lines that an interrupted run wrote beyond it are removed."""
        if folder.log.exists():
            lines = folder.log.read_text().splitlines(keepends=True)
            write_text(folder.log, "".join(line for line in lines if _step(line) <= step))
        self.path, self.file = folder.log, folder.log.open("a")
        self.trackers = [tracker(name, folder.path) for name in trackers]
        self.board = SummaryWriter(str(folder.path), purge_step=step + 1)

    def write(self, line: Mapping[str, float]) -> None:
        """Append one line; `line["step"]` counts finished steps.

        Raises:
            UserError: the folder was removed meanwhile.
        """
        if not self.path.exists():
            raise UserError(f"{self.path.parent} was removed while the run was writing to it; start the run again")
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for name, value in line.items():
            self.board.add_scalar(name, value, int(line["step"]))
        for each in self.trackers:
            each.write(line, int(line["step"]))

    def close(self) -> None:
        """Flush and close everything."""
        self.file.close()
        self.board.close()
        for each in self.trackers:
            each.close()


def _step(line: str) -> float:
    """The step of a line; infinite if a crash cut the line off."""
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return float("inf")


def _meaning(identity: dict[str, Any]) -> dict[str, Any]:
    """`identity` without what one run can say in several ways.

    Data are known by their content, wherever they lie, and the settings in the name are in the recipe.
    """
    recipe = {field: value for field, value in identity["recipe"].items() if field != "data"}
    return {**identity, "name": identity["name"].partition(" with ")[0], "recipe": recipe}


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """`field: old there, new here` for every value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        inner = f"{path}." if path else ""
        return [line for key in keys for line in _differences(old.get(key), new.get(key), inner + key)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in _differences(a, b, f"{path}[{i}]")]
    return [] if old == new else [f"{path}: {old} there, {new} here"]
