"""Fill a table: pretrain what its rows name, evaluate what its columns name, skip whatever is finished.

A table is filled cell by cell: the pretraining of a row, then each evaluation of its checkpoint. Cells of different
rows do not depend on each other: several can run at a time, each in a process of its own with its share of the cores.
"""

import contextlib
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.progress import duration, one_of_several
from cgh_bench.evaluation import Evaluation, evaluate, find_finished, prepare
from cgh_bench.evaluation import plan as plan_evaluation
from cgh_bench.foreign.others import SECONDS_TO_STOP
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.train import train
from cgh_bench.reading.loading import load
from cgh_bench.report.definition import Definition, RowDefinition
from cgh_bench.site.charts import last_seconds
from cgh_bench.transfer_configs.contract import PARENT
from cgh_bench.workspace import Workspace

CELL = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to save
from cgh_bench.reproduce import run_cell_of_stdin
run_cell_of_stdin()
"""
"""What the process of a cell runs."""
INTERRUPTED = 130
"""Exit code of a cell that was asked to stop, and has saved its state."""


@dataclass(frozen=True)
class Cell:
    """One step towards a table."""

    row: RowDefinition
    seed: int
    task: str = ""
    """The name of an evaluation; empty for the pretraining that comes before all of them, if the row has a recipe."""

    def __str__(self) -> str:
        return f"{self.row.label}, seed {self.seed}: {self.task or f'pretraining {self.row.recipe}'}"


def run(table: Definition, seeds: Iterable[int], workspace: Workspace, folder: Path, jobs: int = 1) -> None:
    """Evaluate every row of `table` that has weights on every task of its columns, for each of `seeds`.

    A row's recipe is trained for each seed, and each of its evaluations uses the same seed, so that the spread over
    seeds includes everything random. A row's checkpoint is a file, evaluated for each seed, or a control, initialised
    for each. Interrupted work resumes where it stopped. A cell that fails is reported, and the others are run.

    Args:
        table: what to fill.
        seeds: of pretraining and evaluation.
        workspace: where everything is written.
        folder: the files that rows name as their `checkpoint`: NAME.pth.tar, NAME.safetensors, …
        jobs: cells at a time; 1 runs them one after another in this process. On CPUs the last digits of results depend
            on the number of threads, which is the number of cores divided by `jobs`.

    Raises:
        UserError: a dataset or checkpoint is missing, which is checked before anything is trained; or a cell failed.
        KeyboardInterrupt: after the running cells have saved their state.
    """
    evaluations, rows = _work(table, workspace, folder)
    cells = [Cell(row, seed) for seed in seeds for row in rows] if evaluations else []

    def following(cell: Cell) -> list[Cell]:
        """The unfinished evaluations of the checkpoint of `cell`."""
        loaded = _checkpoint(cell, workspace, folder)
        return [
            dataclasses.replace(cell, task=evaluation.name)
            for evaluation in evaluations
            if find_finished(evaluation, loaded, cell.seed, workspace) is None
        ]

    if jobs > 1:
        failed = _several_at_a_time(cells, following, [e.name for e in evaluations], workspace, folder, jobs)
    else:
        failed = _one_after_another(cells, following, evaluations, workspace, folder)
    if failed:
        raise UserError(f"{len(failed)} failed ({'; '.join(map(str, failed))}), see above; rerun to continue")


def _one_after_another(
    cells: Sequence[Cell],
    following: Callable[[Cell], list[Cell]],
    evaluations: Sequence[Evaluation],
    workspace: Workspace,
    folder: Path,
) -> list[Cell]:
    """Run all in this process; returns those that failed."""
    prepared, waiting, failed = {e.name: e for e in evaluations}, deque(cells), []
    while waiting:
        cell = waiting.popleft()
        if cell.task or cell.row.recipe:
            _say(str(cell))
        try:
            _perform(cell, prepared.get(cell.task), workspace, folder)
        except (UserError, CheckFailed) as error:
            _say(f"error: {cell}: {error}")
            failed.append(cell)
        else:
            waiting.extendleft(reversed([] if cell.task else following(cell)))
    return failed


def _several_at_a_time(
    cells: Sequence[Cell],
    following: Callable[[Cell], list[Cell]],
    tasks: Sequence[str],
    workspace: Workspace,
    folder: Path,
    jobs: int,
) -> list[Cell]:
    """Run each in a process of its own, `jobs` at a time; returns those that failed."""
    waiting, failed = deque[Cell](), []
    running: dict[subprocess.Popen[bytes], tuple[Cell, float]] = {}
    expected = {cell for start in cells for cell in (start, *_evaluations(start, tasks))}
    total, took = len(expected), dict[str, list[float]]()

    def proceed(cell: Cell) -> None:
        """The cell is finished: what comes after it can run."""
        ready = [] if cell.task else following(cell)
        expected.difference_update({cell, *_evaluations(cell, tasks)} - {*ready})
        waiting.extend(ready)

    for cell in cells:
        if not cell.row.recipe or _weights(cell.row.recipe, cell.seed, workspace).exists():
            proceed(cell)
        else:
            waiting.append(cell)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                _say(str(cell))
                running[_start(cell, workspace, folder, jobs)] = cell, time.monotonic()
            time.sleep(0.05)
            for process in [process for process in running if process.poll() is not None]:
                cell, started = running.pop(process)
                if process.returncode == 0:
                    took.setdefault(cell.task, []).append(time.monotonic() - started)
                    proceed(cell)
                else:
                    if process.returncode < 0:
                        _say(f"error: {cell}: killed by {signal.Signals(-process.returncode).name}")
                    failed.append(cell)
                    expected.difference_update({cell, *_evaluations(cell, tasks)})
                _say(f"{total - len(expected)} of {total} done{_time_left(expected, took, jobs)}")
    finally:
        _stop(running)
    return failed


def _evaluations(cell: Cell, tasks: Sequence[str]) -> list[Cell]:
    """What comes after a pretraining; nothing after an evaluation."""
    return [] if cell.task else [dataclasses.replace(cell, task=task) for task in tasks]


def _time_left(expected: Collection[Cell], took: dict[str, list[float]], jobs: int) -> str:
    """About how long the `expected` cells will take, by the slowest of each kind; nothing until each was timed."""
    if not expected or not {cell.task for cell in expected} <= took.keys():
        return ""
    return f", about {duration(sum(max(took[cell.task]) for cell in expected) / jobs)} left"


def _start(cell: Cell, workspace: Workspace, folder: Path, jobs: int) -> "subprocess.Popen[bytes]":
    """A process for the cell, in a session of its own, so that Ctrl-C reaches it once, from here."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, PARENT: str(os.getpid())}
    process = subprocess.Popen(
        [sys.executable, "-c", CELL],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:
        pickle.dump((cell, workspace, folder), stream)
    return process


def _stop(running: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Let the processes save their state, and end them."""
    for process in running:
        process.send_signal(signal.SIGINT)
    try:
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_STOP + 10)
    finally:  # after a second Ctrl-C at once
        for process in running:
            process.kill()


def run_cell_of_stdin() -> None:
    """The whole life of a cell's process."""
    from cgh_bench.transfer_configs.contract.processes import end_with_parent

    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cell, workspace, folder = pickle.load(sys.stdin.buffer)
    try:
        with one_of_several(str(cell)):
            evaluation = prepare([cell.task], workspace)[0] if cell.task else None
            _perform(cell, evaluation, workspace, folder)
    except (UserError, CheckFailed, OSError) as error:
        sys.exit(f"» error: {cell}: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _perform(cell: Cell, evaluation: Evaluation | None, workspace: Workspace, folder: Path) -> None:
    """Pretrain, or evaluate what was pretrained."""
    if evaluation:
        evaluate(evaluation, _checkpoint(cell, workspace, folder), cell.seed, workspace)
    elif cell.row.recipe:
        recipe = dataclasses.replace(recipes.find(cell.row.recipe), seed=cell.seed)
        train(recipe, cell.row.recipe, workspace.pretraining(cell.row.recipe, cell.seed), cache=workspace.cache)


def _weights(recipe: str, seed: int, workspace: Workspace) -> Path:
    """The file of the backbone that a finished pretraining leaves."""
    return RunFolder(workspace.pretraining(recipe, seed)).weights


def _checkpoint(cell: Cell, workspace: Workspace, folder: Path) -> Checkpoint:
    """What a row's evaluations are of."""
    if cell.row.recipe:
        return load(_weights(cell.row.recipe, cell.seed, workspace))
    return _given(cell.row, cell.seed, folder)


def plan(table: Definition, seeds: Iterable[int], workspace: Workspace, folder: Path) -> Iterator[str]:
    """What `run` would do, in lines: what is finished, what would run, and its time, disk and memory once per row.

    Raises:
        UserError: as `run`.
    """
    evaluations, rows = _work(table, workspace, folder)
    planned: set[tuple[str, str]] = set()
    counts = {True: 0, False: 0}
    for seed in seeds:
        for row in rows if evaluations else ():
            yield f"{row.label}, seed {seed}"
            trained = True
            if row.recipe:
                loaded, trained = _expected(row.recipe, seed, workspace)
                counts[trained] += 1
                took = "" if trained else _took(row.recipe, workspace)
                yield f"  pretraining {row.recipe}: {_state(trained)}{took}"
            else:
                loaded = _given(row, seed, folder)
            for evaluation in evaluations:
                done = trained and find_finished(evaluation, loaded, seed, workspace) is not None
                counts[done] += 1
                yield f"  {evaluation.protocol}: {_state(done)}"
                if not done and (row.label, evaluation.name) not in planned:
                    planned.add((row.label, evaluation.name))
                    yield from (f"    {line}" for line in plan_evaluation(evaluation, loaded, workspace))
    yield f"{counts[False]} would run, {counts[True]} finished"


def _work(table: Definition, workspace: Workspace, folder: Path) -> tuple[list[Evaluation], list[RowDefinition]]:
    """The evaluations of the columns and the rows that have weights; whatever they need exists."""
    names = dict.fromkeys(column.task for column in table.columns if column.task and not column.data)
    evaluations = prepare(list(names), workspace)
    rows = [row for row in table.rows if row.recipe or row.checkpoint]
    for row in rows:
        if row.checkpoint and not _is_control(row):
            _file(row, folder)
    return evaluations, rows


def _state(done: bool) -> str:
    return "finished" if done else "would run"


def _expected(name: str, seed: int, workspace: Workspace) -> tuple[Checkpoint, bool]:
    """The trained checkpoint and True; or one as the training would begin with, and False."""
    trained = _weights(name, seed, workspace)
    if trained.exists():
        return load(trained), True
    recipe = recipes.find(name)
    weights = recipe.architecture.build().state_dict()
    return Checkpoint(name, recipe.architecture, weights, recipe.preprocessing, Origin("random", seed=seed)), False


def _took(recipe: str, workspace: Workspace) -> str:
    """How long other seeds took."""
    runs = workspace.pretraining(recipe, 0).parent.glob("seed*")
    seconds = [took for took in map(last_seconds, runs) if took]
    return f", about {duration(median(seconds))} (median of {len(seconds)} earlier)" if seconds else ""


def _given(row: RowDefinition, seed: int, folder: Path) -> Checkpoint:
    if _is_control(row):
        return load(f"{row.checkpoint}:{seed}")
    return dataclasses.replace(load(_file(row, folder)), name=row.checkpoint)


def _is_control(row: RowDefinition) -> bool:
    return row.checkpoint.startswith("random:")


def _file(row: RowDefinition, folder: Path) -> Path:
    """The one file in `folder` that holds the row's checkpoint."""
    found = sorted(folder.glob(f"{row.checkpoint}.*"))
    if len(found) != 1:
        which = f"{len(found)} ({', '.join(path.name for path in found)})" if found else "none"
        raise UserError(
            f"row {row.label!r} needs one file {row.checkpoint}.* in {folder}, but found {which}; "
            "name its folder (--checkpoints) or choose other rows (--row)"
        )
    return found[0]


def _say(line: str) -> None:
    """A line of progress, on standard error."""
    print(f"» {line}", file=sys.stderr, flush=True)
