"""The only training loop: any method, any recipe, one process or many; it can be stopped and goes on bit for bit."""

import contextlib
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from cgh_bench import checkpoint, data
from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in
from cgh_bench.core.progress import progress
from cgh_bench.pretrain.batches import Batch, Batches, loader, too_many
from cgh_bench.pretrain.folder import Log, RunFolder
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.pretrain.run import Run, begin, descend
from cgh_bench.pretrain.watching import SILENT, Watching, knn_top1

STEPS_PER_LOG_LINE = 5


def train(recipe: Recipe, name: str, out: Path, *, resume: bool = True, watching: Watching = SILENT) -> Path:
    """Pretrain by `recipe` in the folder `out` and export the trunk.

    A finished run of the same recipe is returned at once, an interrupted one is continued from its last step.

    Args:
        recipe: what to do, overrides applied.
        name: the recipe's name, for the record.
        out: the run's folder: `recipe.json`, `log.jsonl`, TensorBoard events, `checkpoint.pt`.
        resume: False throws away what the folder holds of an earlier run.
        watching: what is looked at and kept on the way; the result is the same.

    Returns:
        `out/backbone.safetensors`, a canonical checkpoint.

    Raises:
        UserError: the folder holds another recipe or is in use by another run, the recipe does not fit the data or the
            number of processes, or the loss is not finite any more; the last good checkpoint is kept.
        KeyboardInterrupt: after SIGINT or SIGTERM, when the current step is finished and saved.
    """
    folder = RunFolder(out)
    with dist.process_group() as device, _StopSignal() as stop, _lock(folder, resume):
        images = data.load(recipe.data, "train")
        if dist.rank() == 0:
            folder.claim(recipe, name, images, resume)
        dist.wait_for_all()
        if not folder.weights.exists():
            check(recipe)
            run = begin(recipe, folder, device, Batches(recipe, images), watching)
            _steps(run, name, stop)
            if dist.rank() == 0:
                checkpoint.save(_exported(run, name, name), folder.weights)
            dist.wait_for_all()
    return folder.weights


def _lock(folder: RunFolder, resume: bool) -> contextlib.AbstractContextManager[None]:
    """Keeps other runs out of the folder; a finished run is only read."""
    reads_only = dist.rank() > 0 or (resume and folder.weights.exists())
    return contextlib.nullcontext() if reads_only else alone_in(folder.path)


def check(recipe: Recipe) -> None:
    """Refuse a recipe that these processes cannot carry out.

    Raises:
        UserError: says what does not fit.
    """
    processes = dist.world_size()
    if recipe.batch_size % (processes * recipe.accumulate):
        raise UserError(
            f"batch_size {recipe.batch_size} does not divide into {processes} processes × {recipe.accumulate} parts; "
            f"take a multiple of {processes * recipe.accumulate}"
        )
    recipe.method.check(recipe.batch_size // recipe.accumulate, len(recipe.views.augments))


def _steps(run: Run, name: str, stop: "_StopSignal") -> None:
    """Train from where the run is to its end; save at the end of each epoch and when told to stop."""
    log = Log(run.folder, run.step, run.watching.trackers) if dist.rank() == 0 else None
    title = f"pretrain {name}, seed {run.recipe.seed}"
    # ExitStack: only the first process draws and writes.
    with contextlib.ExitStack() as stack:
        tick = stack.enter_context(progress(title, len(run.batches))) if log else None
        if log:
            stack.callback(log.close)
        logged_step, logged_at = run.step, run.seconds
        clock = time.monotonic() - run.seconds
        for batch in loader(run.batches, run.step):
            _note_corrupt(run, batch)
            line = descend(run, batch)
            run.seconds = time.monotonic() - clock
            if log and tick and (run.step % STEPS_PER_LOG_LINE == 0 or run.step in (1, len(run.batches))):
                images = (run.step - logged_step) * run.recipe.batch_size
                line["images_per_second"] = images / max(run.seconds - logged_at, 1e-9)
                line["seconds"] = run.seconds
                log.write(line)
                logged_step, logged_at = run.step, run.seconds
                tick(run.step, f"loss {line['loss']:.3f}  {line['images_per_second']:.0f} images/s")
            stopping = stop.anywhere()
            whole = run.step % run.batches.per_epoch == 0
            if log and (stopping or whole):
                if whole:
                    _watch(run, name, log)
                run.folder.save(run.state(), run.watching.keep)
            if stopping or whole:
                dist.wait_for_all()
            if stopping:
                if log:
                    print(
                        f"stopped at step {run.step} of {len(run.batches)}, saved; run again to go on", file=sys.stderr
                    )
                raise KeyboardInterrupt


def _watch(run: Run, name: str, log: Log) -> None:
    """What is due at the end of an epoch, before it is saved, so that a crash in between repeats it."""
    epoch = run.step // run.batches.per_epoch
    if run.watching.knn_epochs and epoch % run.watching.knn_epochs == 0:
        val = data.load(run.recipe.data, "val")
        top1 = knn_top1(run.method.backbone, run.recipe, run.batches.images, val)
        log.write({"step": run.step, "epoch": run.epoch, "seconds": run.seconds, "knn_top1": top1})
    if run.watching.snapshot_epochs and epoch % run.watching.snapshot_epochs == 0:
        snapshot = _exported(run, f"{name}, epoch {epoch}", name)
        checkpoint.save(snapshot, run.folder.snapshots / f"epoch{epoch:04d}.safetensors")


def _note_corrupt(run: Run, batch: Batch) -> None:
    """Say once what is wrong with each unreadable file; stop at the recipe's limit."""
    for complaint in batch.corrupt:
        if complaint not in run.corrupt:
            print(f"left out, its neighbour stands in: {complaint}", file=sys.stderr)
            run.corrupt[complaint] = None
    if len(run.corrupt) > run.recipe.corrupt_limit or not batch.views:
        raise too_many(run.corrupt)


def _exported(run: Run, title: str, name: str) -> Checkpoint:
    """The trunk as a canonical checkpoint, called `title`, by the recipe called `name`."""
    recipe = run.recipe
    weights = {key: value.cpu().contiguous() for key, value in run.method.backbone.state_dict().items()}
    origin = Origin("pretrain", recipe=name, recipe_fingerprint=fingerprint(recipe), seed=recipe.seed)
    return Checkpoint(title, recipe.architecture, weights, recipe.preprocessing, origin)


class _StopSignal:
    """Notes SIGINT and SIGTERM while the block runs; a second Ctrl-C interrupts at once.

    Not so a second SIGTERM: under SLURM the run has one of SLURM and one of torchrun.
    """

    def __enter__(self) -> "_StopSignal":
        self.received = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def anywhere(self) -> bool:
        """Whether any process has been told to stop, so that all stop after the same step."""
        return bool(dist.mean(torch.tensor(float(self.received))))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number == signal.SIGINT:
            signal.signal(number, self.previous[number])
