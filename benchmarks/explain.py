"""Whether `cgh-bench explain` names a deviation that was planted: twenty of them, on kNN, logistic, linear and a ViT.

    python benchmarks/explain.py

Each is planted in turn on images of stripes in noise and random networks: what the run with it gives is called
published, and the stored run without it is to be explained. Named means that the planted value is among those that
leave nothing. Values that give the same number cannot be told apart; they are counted in `alike`. Saves
`results/explain.json`.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cgh_bench.evaluation import commit, evaluate, prepare
from cgh_bench.explain.axes import PREPROCESSING_AXES
from cgh_bench.explain.study import Study, study
from cgh_bench.explain.target import target
from cgh_bench.explain.trial import verdict
from cgh_bench.reading.loading import load
from cgh_bench.results import Result
from cgh_bench.workspace import Workspace

SMALL = ("transform.resize=37", "transform.crop=32")
SQUASHED = "transform.resize=32 transform.crop=32 transform.squash=True"
BASES = {
    "kNN, ResNet-18": ("random:resnet18", "knn", (*SMALL, "temperature=0.1")),
    "logistic, ResNet-18": ("random:resnet18", "logistic", (*SMALL, "strengths=0.01,1")),
    "linear, ResNet-18": ("random:resnet18", "linear", (*SMALL, "weight_decays=0.001,0.1")),
    "kNN, ViT": ("random:test_vit", "knn", ("transform.resize=183", "transform.crop=160", "temperature=0.1")),
}
PLANTED = [
    ("kNN, ResNet-18", "k", "k=1"),
    ("kNN, ResNet-18", "k", "k=50"),
    ("kNN, ResNet-18", "temperature", "temperature=0.02"),
    ("kNN, ResNet-18", "interpolation", "transform.interpolation=bilinear"),
    ("kNN, ResNet-18", "cut", SQUASHED),
    ("kNN, ResNet-18", "feature", "feature=layer3"),
    ("kNN, ResNet-18", "preprocessing", "std=0.229,0.224,0.255"),
    ("kNN, ResNet-18", "preprocessing", "preprocessing=none"),
    ("kNN, ResNet-18", "channel order", "channel_order=BGR"),
    ("logistic, ResNet-18", "feature", "feature=layer3"),
    ("logistic, ResNet-18", "interpolation", "transform.interpolation=bilinear"),
    ("logistic, ResNet-18", "cut", SQUASHED),
    ("logistic, ResNet-18", "channel order", "channel_order=BGR"),
    ("linear, ResNet-18", "feature", "feature=layer3"),
    ("linear, ResNet-18", "cut", SQUASHED),
    ("linear, ResNet-18", "preprocessing", "preprocessing=none"),
    ("kNN, ViT", "feature", "feature=patch_mean"),
    ("kNN, ViT", "feature", "feature=cls+patch_mean"),
    ("kNN, ViT", "k", "k=1"),
    ("kNN, ViT", "channel order", "channel_order=BGR"),
]


def main() -> None:
    """Plant, explain, write down."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_images(root / "data")
        found = []
        for base, (name, task, settings) in BASES.items():
            result = measure(root, name, task, settings)
            base_study = study(result, Workspace(root / "work"))
            for of, axis, planted in PLANTED:
                if of == base:
                    found.append(
                        {"of": base, "axis": axis, "planted": planted, **explained(root, base_study, axis, planted)}
                    )
                    print(found[-1], flush=True)
    document = {
        "commit": commit(),
        "cores": os.cpu_count(),
        "seconds": round(time.monotonic() - started),
        "named": sum(each["named"] for each in found),
        "of": len(found),
        "trials": found,
    }
    out = Path(__file__).parent / "results" / "explain.json"
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{document['named']} of {document['of']} named")


def draw_images(folder: Path) -> None:
    """Stripes of four widths in noise, 48x40: 20 train and 75 val images of each."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 75)):
        for label in range(4):
            (folder / split / f"class{label}").mkdir(parents=True)
            for number in range(count):
                phase = 2 * np.pi * draw.random()
                stripes = 30 * np.sin(2 * np.pi * np.arange(48) / (label + 2) + phase)[:, None] * (1, label / 3, 0.5)
                picture = draw.normal(110, 15, 3) + draw.normal(0, 30, (40, 48, 3)) + stripes
                image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
                image.save(folder / split / f"class{label}" / f"{number}.png")


def measure(
    root: Path, name: str, task: str, settings: tuple[str, ...], images: tuple[str, ...] = (), store: bool = True
) -> Result:
    """One evaluation, stored unless it is the planted one."""
    workspace = Workspace(root / "work")
    (evaluation,) = prepare([task], workspace, [*settings, f"data={root / 'data'}"])
    return evaluate(evaluation, load(name, settings=images), 0, workspace, store=store)


def explained(root: Path, study: Study, axis: str, planted: str) -> dict[str, object]:
    """What `explain` says of the number that the deviation gives."""
    name, task, settings = next(
        base for base in BASES.values() if base[1] == study.result.task and base[0] in study.result.checkpoint_name
    )
    given = tuple(planted.split())
    images = given if axis in PREPROCESSING_AXES else ()
    changed = measure(root, name, task, (*settings, *(() if images else given)), images, store=False)
    goal = target(f"{changed.metrics[study.metric]:.4f}", study.metric)
    trials = [study.run(variant, goal) for variant in study.variants()]
    if not any(trial.closes for trial in trials):
        trials += [study.run(variant, goal) for variant in study.pairs(trials, goal)]
    exact = [trial for trial in trials if abs(trial.remains) < 1e-3]
    before = goal.value - study.result.metrics[study.metric]
    said = verdict(trials, before, study.metric)
    return {
        "difference": round(before, 3),
        "named": f"{axis} ({planted})" in said.partition(" closes it")[0],
        "alike": len(exact) - 1,
        "verdict": said,
    }


if __name__ == "__main__":
    main()
