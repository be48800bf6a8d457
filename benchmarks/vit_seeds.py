"""Do CGH and DINO on a small transformer beat its random weights on the embedded images, over several seeds?

    python benchmarks/vit_seeds.py --seeds 3 --work work

Pretrains `cgh_vit_tiny_animals` and `dino_vit_tiny_animals`, evaluates each beside `random:vit_tiny_patch12_48` by kNN,
in-context segmentation and correspondence, and saves `results/vit_seeds.jsonl` (every result with its provenance) and
`results/vit_seeds.md` (the table). What is finished is reused.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from cgh_bench import results
from cgh_bench.workspace import Workspace

HERE = Path(__file__).parent / "results"
RECIPES = ("cgh_vit_tiny_animals", "dino_vit_tiny_animals")
CONTROL = "random:vit_tiny_patch12_48"
COLUMNS = (("animals_knn", "top1"), ("animals_incontext_fine", "mIoU"), ("animals_correspondence", "pck_point"))
"""Tasks, and the metric of each that is shown."""
DENSE = ("--set", "size=252")
"""For the dense tasks: patches of 12 do not divide their 256 pixels."""


def main() -> None:
    """Run all seeds, then write what was measured."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--work", type=Path, default=Path("work"))
    chosen = options.parse_args()
    workspace = Workspace(chosen.work)
    checkpoints: dict[str, list[str]] = {name: [] for name in (CONTROL, *RECIPES)}
    for seed in range(chosen.seeds):
        checkpoints[CONTROL].append(f"{CONTROL}:{seed}")
        for recipe in RECIPES:
            _run("pretrain", recipe, "--seed", str(seed), "--work", str(chosen.work))
            checkpoints[recipe].append(str(workspace.pretraining(recipe, seed) / "backbone.safetensors"))
    for checkpoint in (path for paths in checkpoints.values() for path in paths):
        for task, _ in COLUMNS:
            settings = () if task == "animals_knn" else DENSE
            _run("eval", task, "--ckpt", checkpoint, *settings, "--work", str(chosen.work))
    _save(workspace, checkpoints)


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "cgh_bench", *words], check=True)


def _save(workspace: Workspace, checkpoints: dict[str, list[str]]) -> None:
    from cgh_bench.reading.loading import load

    records, _ = results.read(workspace.store)
    kept = []
    lines = ["| weights | " + " | ".join(f"{task}, {metric} (%)" for task, metric in COLUMNS) + " |"]
    lines.append("|---" * (1 + len(COLUMNS)) + "|")
    for name, paths in checkpoints.items():
        ids, cells = {load(path).id for path in paths}, [name]
        for task, metric in COLUMNS:
            mine = [r for r in records if r.checkpoint in ids and r.task == task]
            values = [record.metrics[metric] for record in mine]
            kept += mine
            cells.append(f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)})")
        lines.append("| " + " | ".join(cells) + " |")
    store = HERE / "vit_seeds.jsonl"
    store.unlink(missing_ok=True)
    results.append(store, *kept)
    (HERE / "vit_seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
