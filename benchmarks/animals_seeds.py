"""A table of the bundled images over several seeds: does CGH beat random weights by two deviations in every column?

    python benchmarks/animals_seeds.py --work work           # the table `animals`; `--table demo`: its short form

Does what `cgh-bench table TABLE --run --seeds 3 --jobs 2` does, with one thread for each of the two cells that run at
a time. Saves `results/TABLE_seeds.jsonl` (every result with its provenance), `results/TABLE_seeds.md` (the table, and
for each column the distance between CGH and random weights in units of the larger of their two deviations) and the
reference that `reproduce TABLE` compares with.
"""

import argparse
import os
import statistics
from pathlib import Path

from cgh_bench import reproduce, results
from cgh_bench.report import definition, table
from cgh_bench.report.definition import Definition
from cgh_bench.workspace import Workspace

HERE = Path(__file__).parent / "results"
JOBS = 2


def main() -> None:
    """Run all rows and seeds, then write what was measured."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--table", default="animals", choices=("animals", "demo"))
    options.add_argument("--work", type=Path, default=Path("work"))
    chosen = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    workspace = Workspace(chosen.work)
    chosen_table = definition.load(chosen.table)
    reproduce.run(chosen_table, range(chosen.seeds), workspace, Path(), jobs=JOBS)
    _save(chosen_table, workspace)


def _save(chosen: Definition, workspace: Workspace) -> None:
    tasks = {column.task for column in chosen.columns}
    recipes = {row.recipe for row in chosen.rows}
    measured = [r for r in results.read(workspace.store)[0] if r.task in tasks and r.origin.get("recipe") in recipes]
    filled = table.fill(chosen, measured)
    store = HERE / f"{chosen.name}_seeds.jsonl"
    store.unlink(missing_ok=True)
    results.append(store, *measured)
    (definition.TABLES / f"{chosen.name}.csv").write_text(table.render(filled, "csv"), encoding="utf-8")
    cells = {row.definition.recipe: row.cells for row in filled.rows}
    lines = [table.render(filled, "md"), "| column | CGH − random | in deviations |", "|---|---|---|"]
    for column, ours, control in zip(
        filled.columns, cells["cgh_r18_animals"], cells["random_r18_animals"], strict=True
    ):
        gap = statistics.fmean(ours.values) - statistics.fmean(control.values)
        deviation = max(statistics.stdev(ours.values), statistics.stdev(control.values))
        lines.append(f"| {column.definition.header} | {gap:+.2f} | {gap / deviation:.1f} |")
    (HERE / f"{chosen.name}_seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
