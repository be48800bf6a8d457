"""A workspace as a finished demo leaves it, made up but likely: results of three seeds, side products, logs."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from cgh_bench import data, results, tasks
from cgh_bench.core.config import plain
from cgh_bench.data import catalog, dense
from cgh_bench.data.demo.scenes import SETTINGS, write_scenes
from cgh_bench.evaluation import protocol_id
from cgh_bench.outcomes.classification import classification
from cgh_bench.results import Result

SEEDS = (0, 1, 2)
SKILL = {"random_r18_animals": 0.25, "moco_v2_r18_animals": 0.6, "cgh_r18_animals": 0.85}
"""From 0, a guess, to 1, perfect."""
METRICS = {
    "animals_knn": {"top1": (48.2, 61.4, 66.9)},
    "animals_linear": {"top1": (57.5, 68.3, 71.0)},
    "animals_det": {"box_AP": (22.1, 27.9, 28.3), "box_AP50": (41.7, 50.2, 50.9), "mask_AP": (17.4, 22.6, 23.0)},
    "animals_seg": {"mIoU": (31.8, 38.0, 41.2)},
}
VERSIONS = {"python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1", "faiss-cpu": "1.15.1", "mmdet": "3.5.1"}


@contextmanager
def few_scenes() -> Iterator[None]:
    """Within the block `animal_scenes` is a twentieth of itself: it is drawn in a moment."""
    entry = catalog()["animal_scenes"]
    few = replace(SETTINGS, train_scenes=16, val_scenes=16)
    catalog()["animal_scenes"] = replace(entry, write=lambda out: write_scenes(out, few))
    try:
        yield
    finally:
        catalog()["animal_scenes"] = entry


def make(root: Path, seeds: tuple[int, ...] = SEEDS) -> Path:
    """Fill the workspace `root` and return the path of its result store."""
    store = root / "results.jsonl"
    located = dense.locate("animal_scenes", root / "cache")
    rng = np.random.default_rng(0)
    for row, recipe in enumerate(SKILL):
        for seed in seeds:
            if SKILL[recipe] > 0.3:
                write_log(root / "pretrain" / recipe / f"seed{seed}", recipe, rng)
            for task, metrics in METRICS.items():
                result = make_result(task, recipe, seed, {k: v[row] + rng.normal(0, 0.7) for k, v in metrics.items()})
                result = replace(result, data=located.fingerprint)
                results.append(store, result)
                if seed == seeds[0] or task == "animals_knn":  # pictures are those of the first run
                    write_products(root / result.work, located.root / "animal_scenes" / "val", SKILL[recipe], rng)
    return store


def make_result(task: str, recipe: str, seed: int, metrics: dict[str, float]) -> Result:
    checkpoint = hashlib.sha256(f"{recipe} {seed}".encode()).hexdigest()[:16]
    protocol = protocol_id(task, tasks.find(task))
    return Result(
        task=task,
        protocol=protocol,
        metrics=metrics,
        checkpoint=checkpoint,
        checkpoint_name=recipe,
        origin={"source": "pretrain", "path": "", "sha256": "", "recipe": recipe, "seed": seed, "ignored": []},
        data="9f3c5a7e21d04b88",
        config=plain(tasks.find(task)),
        seed=0,
        commit="1bc747e0aa12",
        versions=VERSIONS,
        device="x86_64 CPU, 2 threads",
        started=f"2026-09-0{1 + seed}T10:2{seed}:00+00:00",
        seconds=71.5 + seed,
        work=f"eval/{checkpoint}/{protocol}/seed0",
    )


def write_log(folder: Path, recipe: str, rng: np.random.Generator, steps: int = 1500) -> None:
    folder.mkdir(parents=True)
    with (folder / "log.jsonl").open("w", encoding="utf-8") as file:
        for step in range(5, steps + 1, 5):
            contrast = 3.2 + 5.1 * math.exp(-step / 280) + rng.normal(0, 0.12)
            terms = {"contrast": contrast}
            if recipe.startswith("cgh"):
                share = min(1.0, max(0.0, (step - 500) / 500))
                terms = {
                    "contrast": (1 - 0.5 * share) * contrast,
                    "relation": share * (2.1 + rng.normal(0, 0.05)),
                    "context": share * (1.4 + rng.normal(0, 0.05)),
                }
            line = {"step": step, "epoch": step / 60, "loss": sum(terms.values()), **terms}
            file.write(json.dumps({**line, "lr": 0.03, "images_per_second": 410.0, "seconds": step * 0.3}) + "\n")


def write_products(folder: Path, truth: Path, skill: float, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    task = folder.parent.name.partition("@")[0]
    if task == "animals_knn":
        write_neighbours(folder, skill, rng)
    elif task == "animals_det":
        write_detections(folder, truth, skill, rng)
    elif task == "animals_seg":
        write_segmentations(folder, truth, skill, rng)


def write_neighbours(folder: Path, skill: float, rng: np.random.Generator) -> None:
    train, val = data.load("animals", "train"), data.load("animals", "val")
    row = rng.integers(0, len(train), (len(val), 10))
    right = rng.random(row.shape) < skill
    for label in range(len(val.classes)):
        pool = np.flatnonzero(train.labels == label)
        drawn = rng.choice(pool, row.shape)
        row = np.where(right & (val.labels == label)[:, None], drawn, row)
    similarity = np.sort(0.98 - rng.random(row.shape) * 0.3, axis=1)[:, ::-1]
    predicted = np.where(rng.random(len(val)) < skill, val.labels, rng.integers(0, 10, len(val)))
    np.savez(folder / "neighbours.npz", row=row, similarity=similarity.astype(np.float32))
    classification(val, predicted).save(folder)


def write_detections(folder: Path, truth: Path, skill: float, rng: np.random.Generator) -> None:
    coco = json.loads((truth / "annotations.json").read_text())
    lines = []
    for annotation in coco["annotations"]:
        if rng.random() > skill + 0.15:
            continue
        wobble = rng.normal(0, 5 * (1 - skill), 4)
        x, y, w, h = np.add(annotation["bbox"], wobble).clip(1, 127).tolist()
        size = annotation["segmentation"]["size"]
        mask = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], *size))
        mask = np.roll(mask, (int(wobble[1]), int(wobble[0])), (0, 1))
        encoded = coco_mask.encode(np.asfortranarray(mask))
        category = annotation["category_id"] if rng.random() < skill else int(rng.integers(1, 11))
        line = {"image_id": annotation["image_id"], "category_id": category, "bbox": [x, y, w, h]}
        segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
        lines.append({**line, "score": float(0.3 + 0.69 * rng.random()), "segmentation": segmentation})
    (folder / "predictions.json").write_text(json.dumps(lines))


def write_segmentations(folder: Path, truth: Path, skill: float, rng: np.random.Generator) -> None:
    (folder / "predictions").mkdir()
    for path in sorted((truth / "masks").glob("*.png")):
        classes = np.asarray(Image.open(path)).copy()
        blocks = np.kron(rng.random((8, 8)) > skill + 0.1, np.ones((16, 16), bool))
        classes[blocks] = rng.integers(0, 11, (8, 8)).repeat(16, 0).repeat(16, 1)[blocks]
        Image.fromarray(classes.astype(np.uint8)).save(folder / "predictions" / path.name)
