"""The training loop, fed from memory, against the bare limit of its networks; and how long starting and resuming take.

    python benchmarks/pretrain_loop.py [ARCHITECTURE …]

The limit is student forward and backward and teacher forward on random tensors of the same shapes: no loss, no queue,
no optimiser, no average, no log. What the method itself computes beyond its networks is part of every implementation:
`of_method` has losses and queue on the limit's side too, and leaves the loop's own cost. One thread; rounds of all
three take turns; a ratio is the median of those within a round, as the machine's speed drifts. Seconds are of the
processor, the median of the rounds. Start and resumption are processes of their own, from
nothing to the first line of the log, on the embedded animals. Saves `results/pretrain_loop.json`.
"""

import itertools
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
from statistics import median

import torch

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.data.image_set import GreyImages
from cgh_bench.pretrain.batches import Batch, Batches
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.methods.cgh import Cgh
from cgh_bench.pretrain.methods.moco_v2 import MocoV2
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.run import Run, begin, descend

BATCH, SIZE, THREADS, ROUNDS = 32, 224, 1, 8
ARCHITECTURES = ("resnet18", "resnet50")
RECIPES = ("cgh_r50_in1k_200ep", "moco_v2_r50_in1k_200ep")


def main() -> None:
    """Measure and write it down."""
    torch.set_num_threads(THREADS)
    measured = {}
    for architecture, recipe in itertools.product(sys.argv[1:] or ARCHITECTURES, RECIPES):
        seconds = in_turn(steps(architecture, recipe))
        measured[f"{architecture} {recipe}"] = {
            "processor_seconds": {key: round(median(values), 3) for key, values in seconds.items()},
            "of_limit": ratio(seconds["limit"], seconds["loop"]),
            "of_method": ratio(seconds["method"], seconds["loop"]),
        }
    document = {
        "command": "python benchmarks/pretrain_loop.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "batch": {"images": BATCH, "pixels": SIZE},
        "measured": measured,
        "wanted": {"of_limit": 0.97, "start_seconds": 10, "resume_seconds": 10},
        "start_and_resume_seconds": starts(),
    }
    out = Path(__file__).parent / "results" / "pretrain_loop.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def steps(architecture: str, name: str) -> dict[str, Callable[[], object]]:
    """A step of a published recipe (one BatchNorm group), what its method computes of it, and its bare networks."""
    recipe = find(name)
    method = replace(recipe.method, bn_groups=1)  # type: ignore[type-var]
    recipe = replace(recipe, method=method, architecture=ResNet(architecture), batch_size=BATCH)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    images = GreyImages("none", ("none",), labels.numpy(), "0" * 16, labels[:, None, None].byte().numpy())
    run = begin(recipe, RunFolder(Path(tempfile.mkdtemp())), torch.device("cpu"), Batches(recipe, images))
    batch = Batch([torch.rand(BATCH, 3, SIZE, SIZE) for _ in range(2)], labels, [])
    views = [torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last) for _ in range(2)]

    def loop() -> None:
        run.step = 5  # past the hand-over: an epoch is one step here
        descend(run, batch)

    def of_method() -> None:
        torch.autograd.backward(torch.stack(list(run.method(views, 5.0).values())).sum())
        run.optimizer.zero_grad()

    return {"loop": loop, "method": of_method, "limit": lambda: _limit(run, views)}


def _limit(run: Run, views: list[torch.Tensor]) -> None:
    method = run.method
    assert isinstance(method, Cgh | MocoV2)
    embeddings = method.student(views[1])
    (method.teacher if isinstance(method, Cgh) else method.keys)(views[0])
    if isinstance(method, MocoV2):
        embeddings = (embeddings,)
    torch.autograd.backward(embeddings, [torch.ones_like(e) for e in embeddings])
    run.optimizer.zero_grad()


def in_turn(functions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """The seconds of each in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(these: list[float], those: list[float]) -> float:
    """The median of the ratios within a round."""
    return round(median(this / that for this, that in zip(these, those, strict=True)), 3)


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
