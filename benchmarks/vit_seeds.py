"""Do CGH and DINO on a small transformer beat its random weights in kNN on the embedded animals, over several seeds?

    python benchmarks/vit_seeds.py --seeds 3 --work work

Pretrains `cgh_vit_tiny_animals` and `dino_vit_tiny_animals`, evaluates each by `animals_knn` beside
`random:vit_tiny_patch12_48`, and saves `results/vit_seeds.jsonl` (every result with its provenance) and
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
        _run("eval", "animals_knn", "--ckpt", checkpoint, "--work", str(chosen.work))
    _save(workspace, checkpoints)


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "cgh_bench", *words], check=True)


def _save(workspace: Workspace, checkpoints: dict[str, list[str]]) -> None:
    from cgh_bench.reading.loading import load

    records, _ = results.read(workspace.store)
    kept, lines = [], ["| weights | kNN top-1 (%) |", "|---|---|"]
    for name, paths in checkpoints.items():
        ids = {load(path).id for path in paths}
        mine = [r for r in records if r.checkpoint in ids and r.task == "animals_knn" and not r.overridden]
        values = [record.metrics["top1"] for record in mine]
        kept += mine
        lines.append(f"| {name} | {statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)}) |")
    store = HERE / "vit_seeds.jsonl"
    store.unlink(missing_ok=True)
    results.append(store, *kept)
    (HERE / "vit_seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
