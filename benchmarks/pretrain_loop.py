"""The training loop, fed from memory, against the bare limit of its networks; and how long starting and resuming take.

    python benchmarks/pretrain_loop.py [ARCHITECTURE …]

The limit is student forward and backward and teacher forward of CGH on random tensors of the same shapes: no loss, no
queue, no optimiser, no average, no log. One thread; rounds of both take turns, and the least processor time of each
counts. Start and resumption are processes of their own, from nothing to the first line of the log, on the embedded
animals. Saves `results/pretrain_loop.json`.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from cgh_bench.backbone import Architecture
from cgh_bench.data.image_set import GreyImages
from pretrain.batches import Batch, Batches
from pretrain.folder import RunFolder
from pretrain.methods.cgh import Cgh, CghMethod
from pretrain.recipe import find
from pretrain.train import _Run, _start, _step

BATCH, SIZE, THREADS, ROUNDS = 32, 224, 1, 1
ARCHITECTURES = ("resnet18", "resnet50")


def main() -> None:
    """Measure and write it down."""
    torch.set_num_threads(THREADS)
    measured = {}
    for name in sys.argv[1:] or ARCHITECTURES:
        seconds = best(steps(name))
        measured[name] = {
            "processor_seconds": {key: round(value, 3) for key, value in seconds.items()},
            "ratio": round(seconds["limit"] / seconds["loop"], 3),
        }
    document = {
        "command": "python benchmarks/pretrain_loop.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "batch": {"images": BATCH, "pixels": SIZE},
        "measured": measured,
        "wanted": {"ratio": 0.97, "start_seconds": 10, "resume_seconds": 10},
        "start_and_resume_seconds": starts(),
    }
    out = Path(__file__).parent / "results" / "pretrain_loop.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def steps(architecture: str) -> dict[str, Callable[[], object]]:
    """A step of the published recipe (one BatchNorm group), and its bare networks."""
    method = replace(Cgh(), bn_groups=1)
    recipe = replace(
        find("cgh_r50_in1k_200ep"), method=method, architecture=Architecture(architecture), batch_size=BATCH
    )
    labels = torch.zeros(BATCH, dtype=torch.int64)
    images = GreyImages("none", ("none",), labels.numpy(), "0" * 16, labels[:, None, None].byte().numpy())
    run = _start(recipe, RunFolder(Path(tempfile.mkdtemp())), torch.device("cpu"), Batches(recipe, images))
    run.step = 5  # past the hand-over: an epoch is one step here
    batch = Batch([torch.rand(BATCH, 3, SIZE, SIZE) for _ in range(2)], labels, [])

    def loop() -> None:
        run.step = 5
        _step(run, batch)

    return {"loop": loop, "limit": lambda: _limit(run)}


def _limit(run: _Run) -> None:
    assert isinstance(run.method, CghMethod)
    strong, weak = (torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last) for _ in range(2))
    embeddings = run.method.student(strong)
    run.method.teacher(weak)
    torch.autograd.backward(embeddings, [torch.ones_like(e) for e in embeddings])
    run.optimizer.zero_grad()


def best(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least seconds of each, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: min(values[1:]) for name, values in seconds.items()}


def starts() -> dict[str, float]:
    """Seconds to the first log line of a new run, and of one that was killed after its first epoch."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        log, state = Path(folder, "log.jsonl"), Path(folder, "checkpoint.pt")
        for name in ("start", "resume"):
            size = log.stat().st_size if log.exists() else 0
            begin = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "cgh_bench", "pretrain", "cgh_r18_animals", "-o", folder],
                stderr=subprocess.DEVNULL,
            )
            while not log.exists() or log.stat().st_size <= size:
                time.sleep(0.01)
            found[name] = round(time.perf_counter() - begin, 2)
            while not state.exists():
                time.sleep(0.1)
            process.kill()
            process.wait()
            log.write_text("")
    return found


if __name__ == "__main__":
    main()
