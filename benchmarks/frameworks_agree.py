"""Do mmdetection and detectron2 give the same under one protocol? Three backbones of each of two kinds, in both.

    python benchmarks/frameworks_agree.py --work work

The backbones are random ResNet-18s, converted for `animals_det`, and the `cgh_vit_tiny_animals` in WORK, carried into
`animals_det_any` (150 steps) with ViTDet's simple feature pyramid. Backbone and training have the same seed in both
frameworks. Finished evaluations in WORK are reused: copy `results/frameworks_agree.jsonl` to WORK/results.jsonl to
repeat only the comparison. Each run takes three to five minutes of a core. Saves `results/frameworks_agree.jsonl`
(every result with its provenance) and `results/frameworks_agree.md`; fails where Welch's 95 % interval of a difference
leaves out 0.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from scipy.stats import ttest_ind

from cgh_bench.evaluation import evaluate, find_finished, prepare
from cgh_bench.reading.loading import load
from cgh_bench.results import Result
from cgh_bench.tasks.transfer import in_framework
from cgh_bench.workspace import Workspace

HERE = Path(__file__).parent / "results"
FRAMEWORKS = ("mmdet", "detectron2")
TASKS = {"animals_det": [], "animals_det_any": ["iterations=150"]}
"""With the settings that make each run last minutes."""


def main() -> None:
    """Run what is missing, compare, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--work", type=Path, default=Path("work"))
    chosen = options.parse_args()
    workspace = Workspace(chosen.work)
    text, agree, records = "", True, ""
    for task in TASKS:
        found = {name: [_result(task, name, seed, workspace) for seed in range(chosen.seeds)] for name in FRAMEWORKS}
        lines, all_agree = _compared(found)
        text += "\n".join([f"{task}:", "", *lines, "", ""])
        records += "".join(json.dumps(asdict(result)) + "\n" for name in FRAMEWORKS for result in found[name])
        agree = agree and all_agree
    (HERE / "frameworks_agree.md").write_text(text, encoding="utf-8")
    (HERE / "frameworks_agree.jsonl").write_text(records, encoding="utf-8")
    print(text)
    sys.exit(0 if agree else 1)


def _result(task: str, framework: str, seed: int, workspace: Workspace) -> Result:
    (evaluation,) = prepare([in_framework(task, framework)], workspace, TASKS[task])
    vit = workspace.pretraining("cgh_vit_tiny_animals", seed) / "backbone.safetensors"
    backbone = load(f"random:resnet18:{seed}" if task == "animals_det" else str(vit))
    return find_finished(evaluation, backbone, seed, workspace) or evaluate(evaluation, backbone, seed, workspace)


def _compared(found: dict[str, list[Result]]) -> tuple[list[str], bool]:
    lines = ["| metric | mmdet | detectron2 | difference, 95 % interval |", "|---|---|---|---|"]
    agree = True
    for metric in found["mmdet"][0].metrics:
        values = {name: [result.metrics[metric] for result in found[name]] for name in FRAMEWORKS}
        compared = ttest_ind(values["detectron2"], values["mmdet"], equal_var=False)
        low, high = compared.confidence_interval(0.95)
        agree = agree and low <= 0 <= high
        cells = [f"{statistics.fmean(v):.2f} ± {statistics.stdev(v):.2f} ({len(v)})" for v in values.values()]
        gap = statistics.fmean(values["detectron2"]) - statistics.fmean(values["mmdet"])
        lines.append(f"| {metric} | {' | '.join(cells)} | {gap:+.2f}, {low:+.2f} to {high:+.2f} |")
    return lines, agree


if __name__ == "__main__":
    main()
