"""The training loop: any method, any recipe, one process or many; an interrupted run resumes bit for bit on a CPU."""

import contextlib
import math
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from cgh_bench import checkpoint, data
from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core import dist, saved
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in
from cgh_bench.core.precision import arithmetic, follow_environment
from cgh_bench.core.progress import Tick, progress
from cgh_bench.data import ImageSet
from cgh_bench.data.folder import load_unlabelled
from cgh_bench.data.shards import are_shards
from cgh_bench.pretrain.augmentation import Cut, finish
from cgh_bench.pretrain.batches import STOP_SIGNALS, Batch, Batches, loader, too_many
from cgh_bench.pretrain.folder import Log, RunFolder
from cgh_bench.pretrain.optimisation import optimizer, set_rate
from cgh_bench.pretrain.parts import synchronised
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment
from cgh_bench.pretrain.watching import OFF, Watching, knn_top1

STEPS_PER_LOG_LINE = 5
SECONDS_FOR_A_BATCH = 10
"""How long several processes that are told to stop wait for a batch, to stop after the same step."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LogLine = dict[str, float]


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
    with dist.process_group() as device, _StopSignal() as stop, _lock(folder, resume):
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
                    f"out of GPU memory with {count} images a pass; set accumulate={2 * recipe.accumulate} (batch and "
                    "learning rate stay) or precision=bf16, or take more GPUs"
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
        UserError: there is no such dataset, or it has no labels although they are needed.
    """
    if labelled:
        data.load(recipe.data, "val")
    try:
        return data.load(recipe.data, "train", cache=cache)
    except UserError:
        folder = data.find_folder(recipe.data)
        if labelled or recipe.method.uses_labels or folder is None or are_shards(folder):
            raise
        return load_unlabelled(folder, cache)


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


@dataclass
class Run:
    """A run in memory: its networks, optimiser and place in the data."""

    recipe: Recipe
    folder: RunFolder
    device: torch.device
    batches: Batches
    method: Method
    parallel: nn.Module
    """The method, or the method inside DistributedDataParallel."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    watching: Watching
    step: int = 0
    """Finished steps."""
    seconds: float = 0.0
    """Spent training, over all sessions."""
    corrupt: dict[str, None] = field(default_factory=dict)
    """The error of each unreadable file that this process met in this session, in order."""

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.step / self.batches.per_epoch

    def state(self) -> dict[str, Any]:
        """All that a later session needs; the order of the data and the views depend on the step alone."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.method.load_state_dict(state["method"])
        saved.restore(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])


def begin(recipe: Recipe, folder: RunFolder, device: torch.device, batches: Batches, watching: Watching = OFF) -> Run:
    """Build everything from the seed, or from the folder's last state."""
    torch.manual_seed(recipe.seed)
    method = recipe.method.build(recipe.architecture).to(device).to(memory_format=torch.channels_last).train()
    if recipe.sync_bn and dist.world_size() > 1:
        method = synchronised(method, device)
    if recipe.compile:
        method.compile()
    parallel: nn.Module = method
    if dist.world_size() > 1 and recipe.epochs:
        # Queues are equal on all processes and BatchNorm statistics belong to each: nothing to broadcast.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch renames the argument; 2.6 has only the old name
            parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    run = Run(recipe, folder, device, batches, method, parallel, optimizer(recipe, method), scaler, watching)
    with folder.restoring():
        if state := folder.load():
            run.restore(state)
    return run


def descend(run: Run, batch: Batch) -> Callable[[], LogLine]:
    """Start one optimiser step; what is returned waits for it and gives its log line.

    That raises a UserError if the loss is not finite; the networks in memory are spoilt then, and must not be saved.
    """
    epoch, parts = run.epoch, run.recipe.accumulate
    rate = set_rate(run.optimizer, run.recipe, epoch)
    run.method.begin_step(run.step, len(run.batches))
    run.optimizer.zero_grad()
    values: list[Tensor] = []
    names: list[str] = []
    whole = _views(run, batch)
    for part in range(parts):
        views = [view.chunk(parts)[part] for view in whole]
        unsynchronised = isinstance(run.parallel, nn.parallel.DistributedDataParallel) and part < parts - 1
        with run.parallel.no_sync() if unsynchronised else contextlib.nullcontext():  # type: ignore[operator]
            terms = _terms(run, views, batch.labels.chunk(parts)[part], epoch)
            torch.autograd.backward(run.scaler.scale(torch.stack(list(terms.values())).sum() / parts))
        names = list(terms)
        values.append(torch.stack(list(terms.values())).detach())
    if run.recipe.clip_gradient:
        run.scaler.unscale_(run.optimizer)
        for parameter in run.method.parameters():
            nn.utils.clip_grad_norm_(parameter, run.recipe.clip_gradient)
    for parameter in run.method.frozen(epoch):
        parameter.grad = None
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    step, epoch = run.step, run.epoch
    fetched = dist.fetch([dist.mean(torch.stack(values).mean(dim=0))])

    def line() -> LogLine:
        shown = dict(zip(names, fetched()[0].tolist(), strict=True))
        if not all(map(math.isfinite, shown.values())):
            listed = ", ".join(f"{term} {value:g}" for term, value in shown.items())
            raise UserError(
                f"the loss is not finite at step {step} ({listed}); the last checkpoint is intact: "
                "lower base_lr or raise the temperatures, and start again in another folder"
            )
        return {"step": step, "epoch": epoch, "loss": sum(shown.values()), **shown, "lr": rate}

    return line


def _views(run: Run, batch: Batch) -> list[Tensor]:
    """The batch's views on the device; what is only cut is finished there."""

    def made(augment: Augment, view: Tensor | Cut) -> Tensor:
        if isinstance(view, Cut):
            return finish(augment, view._replace(pixels=view.pixels.to(run.device, non_blocking=True)))
        return view.to(run.device, non_blocking=True)

    return [made(augment, view) for augment, view in zip(run.recipe.views.augments, batch.views, strict=True)]


def _terms(run: Run, views: list[Tensor], labels: Tensor, epoch: float) -> dict[str, Tensor]:
    """The method's losses for one part of a batch, in the recipe's precision."""
    inputs = [run.recipe.preprocessing(view).contiguous(memory_format=torch.channels_last) for view in views]
    low = AUTOCAST.get(run.recipe.precision)
    with torch.autocast(run.device.type, low, enabled=low is not None):
        terms: dict[str, Tensor] = run.parallel(inputs, epoch, labels.to(run.device, non_blocking=True))
    return terms


def _steps(run: Run, name: str, stop: "_StopSignal") -> None:
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


def _batches(run: Run, stop: "_StopSignal", journal: _Journal) -> Iterator[Batch]:
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


class _StopSignal:
    """Notes `STOP_SIGNALS` while the block runs; a second Ctrl-C interrupts at once.

    A second SIGTERM does not: under SLURM a run gets one from SLURM and one from torchrun.
    """

    def __enter__(self) -> "_StopSignal":
        self.received = self.waiting = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            alarm = [signal.SIGALRM] if hasattr(signal, "SIGALRM") else []  # Windows has none
            for number in (*STOP_SIGNALS, *alarm):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup makes SIGHUP
                    self.previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if self.received and dist.says_that_another_is_lost(error):
            raise KeyboardInterrupt from None  # it was told to stop too, and did not wait

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block, a signal is a KeyboardInterrupt: the wait for a batch may never end.

        Where several processes train, it is one after `SECONDS_FOR_A_BATCH`: they should stop after the same step.
        """
        self.waiting = True
        try:
            if self.received:
                self._interrupt()
            yield
        finally:
            self.waiting = False
            if self.received:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self) -> None:
        if dist.world_size() == 1:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, SECONDS_FOR_A_BATCH)

    def anywhere(self) -> bool:
        """Whether any process has been told to stop, so that all stop after the same step."""
        return bool(dist.mean(torch.tensor(float(self.received))))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number == signal.SIGINT:
            signal.signal(number, self.previous[number])
        if self.waiting and number == signal.SIGALRM:
            raise KeyboardInterrupt
        if self.waiting:
            self._interrupt()
