"""Linear segmentation on cached features against the backbone run for every batch: CPU seconds, and the same result.

    python benchmarks/dense_linear.py [--ckpt random:resnet18] [--scenes 64] [--steps 12]

Both see the same windows of embedded scenes in the same order, in turns. Of a whole training, extraction is counted
once: `training_times_faster` is for the 1,000 steps on 1,500 scenes of `animals_dense_linear`, by what a step and an
image of the extraction took. CPU seconds hardly change with other work on the machine. Saves
`results/dense_linear.json`.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cgh_bench import tasks
from cgh_bench.data.demo.composition import SceneSettings
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.demo.silhouettes import CLASSES
from cgh_bench.data.segmented import SegmentedImages, paired_files
from cgh_bench.frozen.dense_head import Cached, Computed, Objective, train_head, truth_on_disk
from cgh_bench.frozen.map_losses import patch_cross_entropy
from cgh_bench.frozen.patches import LiveMaps, extract_patches
from cgh_bench.reading.loading import load

IMAGES, ROUNDS = 1_500, 2


def main() -> None:
    """Measure both and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ckpt", default="random:resnet18")
    options.add_argument("--scenes", type=int, default=64)
    options.add_argument("--steps", type=int, default=12)
    chosen = options.parse_args()
    checkpoint, task = load(chosen.ckpt), tasks.find("animals_dense_linear")
    training = replace(task.training, iterations=chosen.steps, warmup=0)
    objective = Objective(1 + len(CLASSES), lambda outputs, truth, grid, _: patch_cross_entropy(outputs, truth, grid))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scenes = write_scenes(folder / "scenes", SceneSettings(train_scenes=chosen.scenes, val_scenes=4)) / "train"
        paths = paired_files(scenes / "images", scenes / "masks")
        windows = task.windows(SegmentedImages("scenes", ("background", *CLASSES), paths, "made"))
        patches, extraction = timed(lambda: extract_patches(checkpoint, windows, task.size, task.feature, folder))
        live = LiveMaps(checkpoint, task.feature, "fp32")
        ways = {
            "cached": Cached(patches, truth_on_disk(windows, folder)),
            "computed": Computed(live, windows, lambda image, truth: (image, truth), (task.size, task.size)),
        }
        heads, seconds = {}, {name: [] for name in ways}
        for number in range(ROUNDS):
            for name, examples in ways.items():
                state = folder / f"{name}{number}.pt"
                (head, _), took = timed(lambda: train_head(examples, objective, training, 0, state, name))  # noqa: B023
                heads[name] = head
                seconds[name].append(took / chosen.steps)
        with torch.no_grad():
            rows = torch.tensor(patches.features)[None]
            answers = {name: head(rows)[0] for name, head in heads.items()}
    step = {name: float(np.median(each)) for name, each in seconds.items()}
    whole = {
        "cached": IMAGES * extraction / chosen.scenes + task.training.iterations * step["cached"],
        "computed": task.training.iterations * step["computed"],
    }
    document = {
        "command": " ".join(["python", *sys.argv]),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "cpu_seconds_of_a_step": step,
        "cpu_seconds_of_an_image_extracted": extraction / chosen.scenes,
        "step_times_faster": round(step["computed"] / step["cached"], 1),
        "training_times_faster": round(whole["computed"] / whole["cached"], 1),
        "largest_difference_of_scores": float((answers["cached"] - answers["computed"]).abs().max()),
        "same_classes": float((answers["cached"].argmax(1) == answers["computed"].argmax(1)).double().mean()),
    }
    text = json.dumps(document, indent=1)
    (Path(__file__).parent / "results" / "dense_linear.json").write_text(text + "\n")
    print(text)


def timed(work):
    """What `work` gives, and the CPU seconds it takes, of loaders' processes too."""
    before = os.times()
    result = work()
    after = os.times()
    return result, sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    main()
