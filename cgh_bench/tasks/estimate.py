"""What a detection or segmentation run will take, said before it starts."""

import re
import shutil
from statistics import median

from cgh_bench import results
from cgh_bench.foreign import frameworks, launch
from cgh_bench.tasks.base import Folders

SECONDS_PER_STEP = {
    "voc_det": 0.537,
    "coco_det": 0.575,
    "coco_det_2x": 0.575,
    "coco_fpn": 0.261,
    "coco_fpn_4conv1fc": 0.371,
    "coco_retinanet": 0.200,
    "cityscapes_inst": 0.240,
}
"""On eight V100s: facebookresearch/detectron2 (commit 02478d2) MODEL_ZOO.md, the nearest network of each protocol."""
GPUS_OF_THE_ZOO = 8
GIGABYTES = 1.0
"""Of a run's folder: state (weights and momenta of 60 million parameters at most), fine-tuned weights, predictions."""


def plan(protocol: str, iterations: int | None, folders: Folders) -> list[str]:
    """Time and disk of a run of `protocol` in `folders`, a workspace's, and where the figures come from."""
    place = next(path for path in (folders.run, *folders.run.parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    short = ": NOT ENOUGH" if free < GIGABYTES else ""
    return [_time(protocol, iterations, folders), f"up to {GIGABYTES:g} GB in {folders.run}, {free:.0f} GB free{short}"]


def _time(protocol: str, iterations: int | None, folders: Folders) -> str:
    records, _ = results.read(folders.cache.with_name("results.jsonl"))
    before = [record.seconds for record in records if record.protocol == folders.run.parent.name]
    if before:
        return f"about {_hours(median(before))}, as before (runs: {len(before)})"
    if protocol not in SECONDS_PER_STEP:
        return "time unknown: no run of it yet; its progress will tell"
    seconds = SECONDS_PER_STEP[protocol] * (iterations or steps(protocol))
    gpus = launch.gpus()
    here = f", {_hours(seconds * GPUS_OF_THE_ZOO / gpus)} on {gpus} like them" if gpus else ", days to weeks on CPUs"
    return f"about {_hours(seconds)} on eight V100s (detectron2's model zoo){here}"


def steps(protocol: str) -> int:
    """How many steps of descent the protocol takes, as its file says."""
    text = frameworks.protocol_file("mmdet", protocol).read_text(encoding="utf-8")
    (number,) = re.findall(r"^iterations = ([\d_]+)$", text, re.MULTILINE) or [""]
    base = re.search(r'^_base_ = "(\w+)\.py"$', text, re.MULTILINE)
    if number or base is None:
        return int(number)
    return steps(base[1])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
