"""Do the quick protocols rank backbones as the full ones do? Detection and segmentation on the embedded scenes.

    python benchmarks/quick_ranking.py --work work random:resnet18 cgh.safetensors moco.safetensors …

Every backbone by `animals_det_any`, `animals_seg_any` and their `_quick` forms, one seed: about 20 minutes of a core.
Finished evaluations in WORK are not repeated. Saves `results/quick_ranking.json` and `quick_ranking.md`: numbers,
places (equal numbers share one), and Kendall's tau-b with its p-value.
"""

import argparse
import json
from pathlib import Path

from scipy.stats import kendalltau

from cgh_bench.evaluation import evaluate, find_finished, prepare
from cgh_bench.reading.loading import load
from cgh_bench.results import Result
from cgh_bench.workspace import Workspace

HERE = Path(__file__).parent / "results"
PAIRS = {
    "detection": ("animals_det_any", "animals_det_quick", "box_AP"),
    "segmentation": ("animals_seg_any", "animals_seg_quick", "mIoU"),
}
"""Full protocol, quick protocol, and the metric that ranks."""


def main() -> None:
    """Run what is missing, compare, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("backbones", nargs="+", metavar="CKPT")
    options.add_argument("--work", type=Path, default=Path("work"))
    options.add_argument("--set", action="append", default=[], help="for every protocol, to rehearse: iterations=2")
    options.add_argument("--out", type=Path, default=HERE)
    chosen = options.parse_args()
    workspace = Workspace(chosen.work)
    names = [name for pair in PAIRS.values() for name in pair[:2]]
    evaluations = prepare(names, workspace, chosen.set)
    found: dict[str, list[Result]] = {name: [] for name in names}
    for checkpoint in map(load, chosen.backbones):
        for each in evaluations:
            known = find_finished(each, checkpoint, 0, workspace)
            found[each.name].append(known or evaluate(each, checkpoint, 0, workspace))
    document = {what: _compared(found[full], found[quick], metric) for what, (full, quick, metric) in PAIRS.items()}
    text = "\n".join(line for what, one in document.items() for line in _lines(what, one))
    (chosen.out / "quick_ranking.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (chosen.out / "quick_ranking.md").write_text(text, encoding="utf-8")
    print(text)


def _compared(full: list[Result], quick: list[Result], metric: str) -> dict[str, object]:
    values = [[result.metrics[metric] for result in results] for results in (full, quick)]
    tau = kendalltau(*values)
    return {
        "metric": metric,
        "protocols": [results[0].protocol for results in (full, quick)],
        "backbones": {
            f.checkpoint_name: {"checkpoint": f.checkpoint, "full": one, "quick": other}
            for f, one, other in zip(full, *values, strict=True)
        },
        "kendall_tau": round(float(tau.statistic), 3),
        "p_value": round(float(tau.pvalue), 4),
    }


def _lines(what: str, one: dict) -> list[str]:
    rows = sorted(one["backbones"].items(), key=lambda row: -row[1]["full"])

    def place(row: dict, form: str) -> int:
        return 1 + sum(other[form] > row[form] for _, other in rows)

    return [
        f"## {what}: {one['metric']} by {one['protocols'][0]} and {one['protocols'][1]}",
        "",
        "| backbone | full | quick | place, full | place, quick |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['full']:.2f} | {row['quick']:.2f} | {place(row, 'full')} | {place(row, 'quick')} |"
            for name, row in rows
        ),
        "",
        f"Kendall's tau-b {one['kendall_tau']:.2f} (p = {one['p_value']:.3f}, {len(rows)} backbones).",
        "",
    ]


if __name__ == "__main__":
    main()
