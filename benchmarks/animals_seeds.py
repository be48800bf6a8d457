"""The demo's table over several seeds: is CGH above random weights in every column by more than two deviations?

    python benchmarks/animals_seeds.py --seeds 3 --work work
    python benchmarks/animals_seeds.py --tasks animals_knn,animals_linear

Does what `cgh-bench table animals --run --seeds 3 --jobs 2` does, with one thread for each of the two cells that run at
a time (45 minutes on two cores). `--tasks` evaluates only these; the columns of the others keep the saved results of
earlier trainings, and a note below the table says so. Saves `results/animals_seeds.jsonl` (every result with its
provenance), `results/animals_seeds.md` (the table, and for each column the distance between CGH and random weights in
units of the larger of their two deviations) and the reference that `reproduce animals` compares with.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cgh_bench import reproduce, results
from cgh_bench.report import definition, table
from cgh_bench.report.cells import Row, Table
from cgh_bench.report.definition import Definition
from cgh_bench.results import Result
from cgh_bench.workspace import Workspace

HERE = Path(__file__).parent / "results"
JOBS = 2


def main() -> None:
    """Run all rows and seeds, then write what was measured."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--table", default="animals", help="a .toml file instead of the package's table")
    options.add_argument("--tasks", help="comma-separated; the other columns keep their saved results")
    options.add_argument("--work", type=Path, default=Path("work"))
    chosen = options.parse_args()
    whole = definition.load(chosen.table)
    every = {column.task for column in whole.columns}
    tasks = set(chosen.tasks.split(",")) if chosen.tasks else every
    if unknown := tasks - every:
        options.error(f"no column of {chosen.table} is of {', '.join(sorted(unknown))}")
    os.environ["OMP_NUM_THREADS"] = "1"
    workspace = Workspace(chosen.work)
    part = replace(whole, columns=tuple(column for column in whole.columns if column.task in tasks))
    reproduce.run(part, range(chosen.seeds), workspace, Path(), jobs=JOBS)
    _save(whole, tasks, workspace)


def _save(whole: Definition, tasks: set[str], workspace: Workspace) -> None:
    recipes = {row.recipe for row in whole.rows}
    measured = [r for r in results.read(workspace.store)[0] if r.task in tasks and r.origin.get("recipe") in recipes]
    store = HERE / "animals_seeds.jsonl"
    saved = results.read(store)[0] if store.exists() else []
    kept = [result for result in saved if result.task not in tasks]
    filled = _joined(whole, tasks, measured, kept)
    store.unlink(missing_ok=True)
    results.append(store, *measured, *kept)
    (definition.TABLES / f"{whole.name}.csv").write_text(table.render(filled, "csv"), encoding="utf-8")
    cells = {row.definition.recipe: row.cells for row in filled.rows}
    lines = [table.render(filled, "md"), "| column | CGH − random | in deviations |", "|---|---|---|"]
    for column, ours, control in zip(
        filled.columns, cells["cgh_r18_animals"], cells["random_r18_animals"], strict=True
    ):
        gap = statistics.fmean(ours.values) - statistics.fmean(control.values)
        deviation = max(statistics.stdev(ours.values), statistics.stdev(control.values))
        lines.append(f"| {column.definition.header} | {gap:+.2f} | {gap / deviation:.1f} |")
    (HERE / "animals_seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _joined(whole: Definition, tasks: set[str], measured: Sequence[Result], kept: Sequence[Result]) -> Table:
    """The columns of `tasks` from what was `measured`, the others from what was `kept`: they are of other weights."""
    parts = [
        table.fill(replace(whole, columns=(column,)), measured if column.task in tasks else kept)
        for column in whole.columns
    ]
    rows = (Row(row, tuple(part.rows[index].cells[0] for part in parts)) for index, row in enumerate(whole.rows))
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if kept:
        headers = ", ".join(column.header for column in whole.columns if column.task not in tasks)
        commits = ", ".join(sorted({f"{result.started[:10]} (commit {result.commit})" for result in kept}))
        notes.append(f"{headers}: of earlier trainings with the same seeds, {commits}.")
    return Table(whole, tuple(part.columns[0] for part in parts), tuple(rows), tuple(notes))


if __name__ == "__main__":
    main()
