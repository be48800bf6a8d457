"""The training loop: any method, any recipe, one process or many; an interrupted run resumes bit for bit on a CPU."""

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cgh_bench import checkpoint, data
from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.device import arithmetic, follow_environment
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in
from cgh_bench.core.progress import Tick, progress
from cgh_bench.data import ImageSet
from cgh_bench.data.folder import load_unlabelled
from cgh_bench.data.shards import are_shards
from cgh_bench.pretrain.batches import Batch, Batches, loader, too_many
from cgh_bench.pretrain.folder import Log, RunFolder
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.pretrain.run import LogLine, Run, begin, descend
from cgh_bench.pretrain.stopping import StopSignal
from cgh_bench.pretrain.watching import OFF, Watching, knn_top1, label_free

STEPS_PER_LOG_LINE = 5


def train(
    recipe: Recipe,
    name: str,
    out: Path,
    *,
    resume: bool = True,
    watching: Watching = OFF,
    cache: Path | None = None,
) -> Path:
    """Pretrain by `recipe` in the folder `out` and export the backbone.

    A finished run of the same recipe is returned at once, an interrupted one resumes after its last saved step.

    Args:
        recipe: what to do, overrides applied.
        name: the recipe's name, for the record.
        out: the run's folder: `recipe.json`, `log.jsonl`, TensorBoard events, `checkpoint.pt`.
        resume: False deletes what the folder holds of an earlier run.
        watching: what to measure, keep and report on the way; the weights do not depend on it.
        cache: where hashes of image files are remembered; without it, each start reads every file.

    Returns:
        `out/backbone.safetensors`, a canonical checkpoint.

    Raises:
        UserError: the folder holds another recipe or is in use by another run, the recipe does not fit the data or the
            number of processes, or the loss is no longer finite; the last checkpoint is kept.
        KeyboardInterrupt: after SIGINT, SIGTERM or SIGHUP, once a step that is under way is finished, and saved.
    """
    folder = RunFolder(out)
    follow_environment()
    with dist.process_group() as device, StopSignal() as stop, _lock(folder, resume):
        images = training_images(recipe, labelled=bool(watching.knn_epochs), cache=cache)
        images.fingerprint  # noqa: B018 (made by all: the first may take longer than the others wait for it below)
        if dist.rank() == 0:
            folder.claim(recipe, name, images, resume)
        dist.wait_for_all()
        if not folder.weights.exists():
            check(recipe)
            run = begin(recipe, folder, device, Batches(recipe, images, for_gpu=device.type == "cuda"), watching)
            try:
                with arithmetic("tf32" if recipe.precision == "tf32" else "fp32", device):
                    _steps(run, name, stop)
            except torch.cuda.OutOfMemoryError:
                count = recipe.images_per_pass // dist.world_size()
                raise UserError(
                    f"out of GPU memory with {count} images per pass; set accumulate={2 * recipe.accumulate} (batch, "
                    "learning rate stay) or precision=bf16, or use more GPUs"
                ) from None
            if dist.rank() == 0:
                checkpoint.save(_exported(run, name, name), folder.weights)
            dist.wait_for_all()
    return folder.weights


def training_images(recipe: Recipe, labelled: bool = False, cache: Path | None = None) -> ImageSet:
    """The images that a recipe trains on; unless their labels are needed, a folder of any layout will do.

    Args:
        recipe: names the dataset; its method says whether it uses labels.
        labelled: whether the kNN monitor needs labels, and a val split, anyway.
        cache: where hashes of image files are remembered.

    Raises:
        UserError: there is no such dataset, or it lacks the labels that are needed, or the method cannot use them.
    """
    if labelled:
        data.load(recipe.data, "val")
    try:
        images = data.load(recipe.data, "train", cache=cache)
    except UserError:
        folder = data.find_folder(recipe.data)
        if labelled or recipe.method.uses_labels or folder is None or are_shards(folder):
            raise
        return load_unlabelled(folder, cache)
    recipe.method.check_images(images)
    return images


def _lock(folder: RunFolder, resume: bool) -> contextlib.AbstractContextManager[None]:
    """Keeps other runs out of the folder; a finished run is only read."""
    reads_only = dist.rank() > 0 or (resume and folder.weights.exists())
    return contextlib.nullcontext() if reads_only else alone_in(folder.path)


def check(recipe: Recipe) -> None:
    """Refuse a recipe that these processes cannot carry out.

    Raises:
        UserError: says what does not fit.
    """
    processes, parts = dist.world_size(), recipe.accumulate
    if recipe.epochs and not recipe.method.number_of_views:
        raise UserError(f"{type(recipe.method).__name__} does not train; set epochs=0")
    if recipe.batch_size % (processes * parts):
        raise UserError(
            f"batch_size {recipe.batch_size} does not divide into {processes} processes × {parts} parts; "
            f"take a multiple of {processes * parts}"
        )
    if recipe.epochs and recipe.batch_size < 2 * processes * parts:
        raise UserError(
            f"batch_size {recipe.batch_size} leaves 1 image per forward pass ({processes} processes × {parts} parts), "
            f"but BatchNorm needs 2; set batch_size={2 * processes * parts} or more, or a lower accumulate"
        )
    recipe.method.check(recipe)
    for number, view in enumerate(recipe.views.augments):
        try:
            recipe.architecture.require_size(view.size, view.size)
        except UserError as error:
            raise UserError(f"views.augments.{number}.size={view.size}: {error}") from None


def _steps(run: Run, name: str, stop: StopSignal) -> None:
    """Train to the end; save at the end of each epoch and when told to stop."""
    log = Log(run.folder, run.step, run.watching.trackers) if dist.rank() == 0 else None
    title = f"pretrain {name}, seed {run.recipe.seed}"
    # ExitStack: only the first process draws and writes.
    with contextlib.ExitStack() as stack:
        tick = stack.enter_context(progress(title, len(run.batches))) if log else None
        if log:
            stack.callback(log.close)
        journal = _Journal(run, log, tick)
        clock = time.monotonic() - run.seconds
        for batch in _batches(run, stop, journal):
            _note_corrupt(run, batch)
            journal.add(descend(run, batch))
            run.seconds = time.monotonic() - clock
            stopping = stop.anywhere()
            epoch_ends = run.step % run.batches.per_epoch == 0
            if stopping or epoch_ends:
                journal.settle()
            if log and (stopping or epoch_ends):
                if epoch_ends:
                    _watch(run, name, log)
                if not stopping:
                    run.folder.save(run.state(), run.watching.keep)
                else:
                    _stopped(run)
            if stopping or epoch_ends:
                dist.wait_for_all()
            if stopping:
                raise KeyboardInterrupt


class _Journal:
    """The log of a run's steps, of which each is read when the next has been started: a GPU is never waited for."""

    def __init__(self, run: Run, log: Log | None, tick: Tick | None) -> None:
        self.run, self.log, self.tick = run, log, tick
        self.late: Callable[[], LogLine] | None = None
        self.step, self.seconds = run.step, run.seconds
        """Step and seconds of the last line that was written."""

    def add(self, line: Callable[[], LogLine]) -> None:
        """Read the step before, and remember this one."""
        self.settle()
        self.late = line

    def settle(self) -> None:
        """Read the last step too.

        Raises:
            UserError: its loss is not finite.
        """
        late, self.late = self.late, None
        line = late() if late else None
        if line and self.log and self.tick:
            step, last = int(line["step"]), len(self.run.batches)
            if step % STEPS_PER_LOG_LINE == 0 or step in (1, last):
                images = (step - self.step) * self.run.recipe.batch_size
                line["images_per_second"] = images / max(self.run.seconds - self.seconds, 1e-9)
                line["seconds"] = self.run.seconds
                self.log.write(line)
                self.step, self.seconds = step, self.run.seconds
                self.tick(step, f"loss {line['loss']:.3f}  {line['images_per_second']:.0f} images/s")


def _batches(run: Run, stop: StopSignal, journal: _Journal) -> Iterator[Batch]:
    """The batches from the run's step on; a signal that comes while one is waited for saves the run and ends it.

    Whatever ends it, the loader is let go: its processes ignore signals, and would keep this one from ending.
    """
    batches = loader(run.batches, run.step)
    try:
        while run.step < len(run.batches):
            with stop.at_once():
                batch = next(batches)
            yield batch
    except KeyboardInterrupt:  # between two steps
        journal.settle()
        if journal.log:
            _stopped(run)
        raise
    finally:
        traceback.clear_frames(sys.exc_info()[2])  # an error's frames hold the loader, as this one does
        del batches


def _stopped(run: Run) -> None:
    run.folder.save(run.state(), run.watching.keep)
    print(f"stopped at step {run.step} of {len(run.batches)}, saved; rerun the same command to resume", file=sys.stderr)


def _watch(run: Run, name: str, log: Log) -> None:
    """What is due at the end of an epoch; before it is saved, so that a crash in between repeats it."""
    epoch = run.step // run.batches.per_epoch
    if run.watching.knn_epochs and epoch % run.watching.knn_epochs == 0:
        val = data.load(run.recipe.data, "val")
        top1 = knn_top1(run.method.backbone, run.recipe, run.batches.images, val)
        log.write({"step": run.step, "epoch": run.epoch, "seconds": run.seconds, "knn_top1": top1})
    if run.watching.label_free_epochs and epoch % run.watching.label_free_epochs == 0:
        found = label_free(run.method.backbone, run.recipe, run.batches.images)
        log.write({"step": run.step, "epoch": epoch, "seconds": run.seconds, **found})
    if run.watching.snapshot_epochs and epoch % run.watching.snapshot_epochs == 0:
        snapshot = _exported(run, f"{name}, epoch {epoch}", name)
        checkpoint.save(snapshot, run.folder.snapshots / f"epoch{epoch:04d}.safetensors")


def _note_corrupt(run: Run, batch: Batch) -> None:
    """Report each unreadable file once; stop at the recipe's limit."""
    for error in batch.corrupt:
        if error not in run.corrupt:
            print(f"skipped, replaced by the next image: {error}", file=sys.stderr)
            run.corrupt[error] = None
    if len(run.corrupt) > run.recipe.corrupt_limit or not batch.views:
        raise too_many(run.corrupt)


def _exported(run: Run, title: str, name: str) -> Checkpoint:
    """The backbone as a canonical checkpoint named `title`, from the recipe named `name`."""
    recipe = run.recipe
    weights = {key: value.cpu().contiguous() for key, value in run.method.backbone.state_dict().items()}
    subset = run.batches.images.subset
    origin = Origin("pretrain", recipe=name, recipe_fingerprint=fingerprint(recipe), seed=recipe.seed, subset=subset)
    return Checkpoint(title, recipe.architecture, weights, recipe.preprocessing, origin)
