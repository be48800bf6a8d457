"""What our wrapper adds to a framework's own run: animals_det by `tools/transfer.py`, and by mmengine's Runner alone.

    python benchmarks/transfer_overhead.py

Both train the protocol file's model on a dozen scenes and test it, each in two lengths: seconds a step are the
difference of the two, divided by the difference of their steps, and the start is what is left of the short one. Sides
alternate; each figure is computed within a repeat, and the median of the repeats counts: the machine's speed drifts.
`processor` is the time of all processes of a side, which depends little on what else the machine does (`load`).
`first_step` is the wall clock until the first step may begin, and `first_step_after_imports` what of it comes after
our package with torch is imported: conversion, the framework's process with its imports, arrival and its proof.
`within_our_process` says directly what our hook takes of the steps, where the two sides' ratio drowns in the machine's
noise. Saves `results/transfer_overhead.json`.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.converters.base import find as find_converter
from cgh_bench.foreign import frameworks

SCENES = """
from cgh_bench.data import dense
from cgh_bench.data.demo.composition import SceneSettings
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.data.demo.scenes import write_scenes
few = SceneSettings(train_scenes=8, val_scenes=4, side=96, most_animals=2)
entry = DetectionScenes("a few scenes", "embedded", lambda out: write_scenes(out, few))
"""
OURS = f"""
import runpy, sys
{SCENES}
dense.catalog = lambda: {{"animal_scenes": entry}}
sys.argv[0] = "tools/transfer.py"
runpy.run_path("tools/transfer.py", run_name="__main__")
"""
THEIRS = """
import json, pathlib, runpy, sys
launcher, protocol, work, iterations, *settings = sys.argv[1:]
runpy.run_path(launcher)
import cgh_bench.transfer_configs.openmmlab
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
class Mark(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            pathlib.Path(work, "first_step").touch()
config = Config.fromfile(protocol)
config.merge_from_dict({key: json.loads(value) for key, value in (setting.split("=") for setting in settings)})
steps = int(iterations)
config.train_cfg.max_iters, config.train_cfg.val_interval = steps, steps + 1
config.work_dir = config.test_evaluator.work = work
config.default_hooks = {"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": steps}}
config.randomness = {"seed": 0}
runner = Runner.from_cfg(config)
runner.register_hook(Mark())
runner.train()
runner.test()
"""
WITHIN = """
import json, pathlib, runpy, sys, time
launcher, out, sys.argv[1:] = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
runpy.run_path(launcher)
from cgh_bench.transfer_configs.openmmlab import state, train
from cgh_bench.transfer_configs.openmmlab.transfer import Transfer
spent, ends = {"save": 0.0, "hook": 0.0}, []
def timed(function, name):
    def run(*given, **named):
        start = time.process_time()
        result = function(*given, **named)
        spent[name] += time.process_time() - start
        ends.append(time.process_time())
        return result
    return run
state.save = timed(state.save, "save")
Transfer.after_train_iter = timed(Transfer.after_train_iter, "hook")
train.main()
hook = spent["hook"] - spent["save"]
out.write_text(json.dumps({"share_of_a_step": hook / (ends[-1] - ends[0]), "seconds_of_a_save": spent["save"]}))
"""
ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("model.train_cfg.rcnn.sampler.num=16",)


def main() -> None:
    """Measure and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--steps", type=int, nargs=2, default=(4, 34), metavar=("FEW", "MANY"))
    chosen = options.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "CGH_GPUS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    few, many = chosen.steps
    repeats = []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        write = f"{SCENES}\nimport pathlib, sys\nentry.write(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", write, cache / "animal_scenes"], check=True)
        for _ in range(chosen.repeats):
            measured = {
                (side, steps): run(steps, cache, Path(folder, "run"))
                for steps in (few, many)
                for side, run in (("framework", theirs), ("ours", ours))
            }
            repeats.append(summary(measured, few, many))
        inside = within(many, cache, Path(folder, "run"))
    document = {
        "command": "python benchmarks/transfer_overhead.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "steps": [few, many],
        "repeats": chosen.repeats,
        **{name: round(median(repeat[name] for repeat in repeats), 3) for name in repeats[0]},
        "within_our_process": inside,
        "each_repeat": repeats,
    }
    out = Path(__file__).parent / "results" / "transfer_overhead.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def summary(measured: dict[tuple[str, int], dict[str, float]], few: int, many: int) -> dict[str, float]:
    """Our step over the framework's, and our start beyond the framework's, in seconds."""
    step, start = {}, {}
    for side in ("framework", "ours"):
        short, long = (measured[side, steps]["processor"] for steps in (few, many))
        step[side] = (long - short) / (many - few)
        start[side] = short - few * step[side]
    first = {side: measured[side, few]["first_step"] for side in step}
    after_imports = measured["ours", few]["first_step_after_imports"]
    return {
        "step_ratio": step["ours"] / step["framework"],
        "start_and_test_beyond": start["ours"] - start["framework"],
        "first_step_beyond": first["ours"] - first["framework"],
        "first_step_beyond_after_imports": after_imports - first["framework"],
    }


def ours(steps: int, cache: Path, folder: Path) -> dict[str, float]:
    """Through the command."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(cache, folder / "cache")
    settings = [f"iterations={steps}", f"settings={','.join(SETTINGS)}"]
    arguments = ["--task=animals_det", "--ckpt=random:resnet18", f"--work={folder}", *(f"--set={s}" for s in settings)]
    found, began = _timed([sys.executable, "-c", OURS, *arguments])
    (account,) = folder.glob("eval/*/*/seed0/loaded.json")
    ready = account.stat().st_mtime
    taken_over = account.with_name("job.json").stat().st_mtime
    return found | {"first_step": ready - began, "first_step_after_imports": ready - taken_over}


def theirs(steps: int, cache: Path, folder: Path) -> dict[str, float]:
    """The same model, data and metric by mmengine's Runner, its own hooks and checkpoint."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ["CGH_DATA"] = str(cache)
    protocol = frameworks.protocol_file("mmdet", "animals_det")
    command = [sys.executable, "-c", THEIRS, frameworks.LAUNCHER, protocol, folder, str(steps), *SETTINGS]
    found, began = _timed(command)
    return found | {"first_step": (folder / "first_step").stat().st_mtime - began}


def within(steps: int, cache: Path, folder: Path) -> dict[str, float]:
    """What our hook takes of the framework's training steps, and the state that is saved at the end and every 300 s."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ["CGH_DATA"] = str(cache)
    weights, out = folder / "weights.pth", folder / "within.json"
    find_converter(frameworks.find("mmdet").converter).write(random_checkpoint("resnet18"), weights)
    protocol = frameworks.protocol_file("mmdet", "animals_det")
    arguments = [f"--config={protocol}", f"--weights={weights}", f"--work={folder / 'run'}", "--seed=0"]
    _timed(
        [
            sys.executable,
            "-c",
            WITHIN,
            frameworks.LAUNCHER,
            out,
            *arguments,
            f"--iterations={steps}",
            "--set",
            *SETTINGS,
        ]
    )
    found: dict[str, float] = json.loads(out.read_text())
    return found


def _timed(command: list[object]) -> tuple[dict[str, float], float]:
    """Seconds of a process and of its children, and when it began."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.time() - began, "processor": processor}, began


if __name__ == "__main__":
    main()
