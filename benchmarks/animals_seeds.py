"""The demo's table over several seeds: is CGH above random weights in every column by more than two deviations?

    python benchmarks/animals_seeds.py --seeds 3 --jobs 2 --work work

Does what `cgh-bench table animals --run --seeds 3` does, `--jobs` rows at a time with one thread each, which two cores
finish sooner than one row with two threads (45 minutes). Saves `results/animals_seeds.jsonl` (every result with its
provenance) and `results/animals_seeds.md` (the table, and for each column the distance between CGH and random weights
in units of the larger of their two deviations).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cgh_bench import results
from cgh_bench.report import definition, table
from cgh_bench.workspace import Workspace

HERE = Path(__file__).parent / "results"


def main() -> None:
    """Run all rows and seeds, then write what was measured."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--work", type=Path, default=Path("work"))
    chosen = options.parse_args()
    labels = [row.label for row in reversed(definition.load("animals").rows)]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        codes = list(pool.map(lambda label: _run(label, chosen.seeds, chosen.work), labels))
    if any(codes):
        sys.exit(1)
    _save(Workspace(chosen.work))


def _run(label: str, seeds: int, work: Path) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["table", "animals", "--run", "--seeds", str(seeds), "--row", label, "--work", str(work)]
    return subprocess.run([sys.executable, "-m", "cgh_bench", *command], env=environment, check=False).returncode


def _save(workspace: Workspace) -> None:
    records, _ = results.read(workspace.store)
    filled = table.build("animals", records)
    HERE.mkdir(exist_ok=True)
    shutil.copyfile(workspace.store, HERE / "animals_seeds.jsonl")
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


if __name__ == "__main__":
    main()
