"""The demo's table over several seeds: is CGH above random weights in every column by more than two deviations?

    python benchmarks/animals_seeds.py --seeds 3 --jobs 2 --work work

Does what `cgh-bench table animals --run --seeds 3` does, `--jobs` rows at a time with one thread each, which two cores
finish sooner than one row with two threads. Saves `results/animals_seeds.jsonl` (every result with its provenance) and
`results/animals_seeds.md` (the table, and for each column the distance between CGH and random weights).
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
from cgh_bench.evaluate import Workspace
from cgh_bench.report import definition, table

HERE = Path(__file__).parent / "results"
ROW = """
import dataclasses, sys
from pathlib import Path
from cgh_bench import reproduce
from cgh_bench.evaluate import Workspace
from cgh_bench.report import definition
from pretrain.recipe import find
from pretrain.train import train

def pretrain(recipe, seed, folder):
    return train(dataclasses.replace(find(recipe), seed=seed), recipe, folder)

recipe, seed, work = sys.argv[1:]
whole = definition.load("animals")
row = dataclasses.replace(whole, rows=tuple(row for row in whole.rows if row.recipe == recipe))
reproduce.run(row, [int(seed)], Workspace(Path(work)), reproduce.Weights(pretrain, Path(work)))
"""


def main() -> None:
    """Run all rows and seeds, then write what was measured."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--work", type=Path, default=Path("work"))
    chosen = options.parse_args()
    recipes = [row.recipe for row in definition.load("animals").rows]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        jobs = [(recipe, seed, chosen.work) for seed in range(chosen.seeds) for recipe in reversed(recipes)]
        codes = list(pool.map(_run, jobs))
    if any(codes):
        sys.exit(1)
    _save(Workspace(chosen.work))


def _run(job: tuple[str, int, Path]) -> int:
    recipe, seed, work = job
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ROW, recipe, str(seed), str(work)]
    return subprocess.run(command, env=environment, check=False).returncode


def _save(workspace: Workspace) -> None:
    records, _ = results.read(workspace.store)
    filled = table.build("animals", records)
    HERE.mkdir(exist_ok=True)
    shutil.copyfile(workspace.store, HERE / "animals_seeds.jsonl")
    values = {row.recipe: row.cells for row in filled.rows}
    lines = [table.render(filled, "md"), "", "| column | CGH − random | deviations (pooled) |", "|---|---|---|"]
    for column, ours, control in zip(
        filled.columns, values["cgh_r18_animals"], values["random_r18_animals"], strict=True
    ):
        gap = statistics.fmean(ours.values) - statistics.fmean(control.values)
        pooled = statistics.fmean([statistics.variance(ours.values), statistics.variance(control.values)]) ** 0.5
        lines.append(f"| {column.definition.header} | {gap:+.2f} | {gap / pooled:.1f} |")
    (HERE / "animals_seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
