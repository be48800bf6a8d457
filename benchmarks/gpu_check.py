"""What a CUDA GPU makes of this project, part by part: right or not, and how near to what the device can do.

    python benchmarks/gpu_check.py [--out benchmarks/results] [PART …]        (make gpu-check)
    python benchmarks/gpu_check.py --tiny --out /tmp/check                    a rehearsal, on any machine

Every part is a process of its own with a limit of its own: one that fails hides no other. All together at most six
minutes. Ratios are of what was measured in the same part on the same device. Saves `gpu_check.json` and `gpu_check.md`.
"""

import argparse
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
from typing import Any

import numpy as np
import torch

from cgh_bench.core.device import arithmetic, pick_device

ROOT = Path(__file__).parents[1]
DEVICE = pick_device()
Found = dict[str, Any]
NETWORKS = ("resnet18", "vit_tiny_patch16_224", "convnext_atto")


def main() -> None:
    """Run the parts and write the report."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    options.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options.add_argument("--tiny", action="store_true", help="small shapes, whose numbers mean nothing")
    options.add_argument("--one", action="store_true", help="print the one PART's numbers as JSON")
    chosen = options.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        options.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if chosen.one:
        print(json.dumps(PARTS[chosen.parts[0]][0](chosen.tiny)))
        return
    found = {part: measured(part, chosen.tiny) for part in chosen.parts or PARTS}
    document = {"device": device(), "tiny": chosen.tiny, "wanted": WANTED, "parts": found}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "gpu_check.json").write_text(json.dumps(document, indent=1) + "\n")
    (chosen.out / "gpu_check.md").write_text(page(document))
    print((chosen.out / "gpu_check.md").read_text())
    if any("error" in numbers for numbers in found.values()):
        sys.exit(1)


def measured(part: str, tiny: bool) -> Found:
    """The part's numbers, from a process of its own, or why there are none."""
    command = [sys.executable, __file__, "--one", part, *(["--tiny"] if tiny else [])]
    limit = PARTS[part][1] * (10 if tiny else 1)  # a rehearsal is of what is done, not of how fast
    begun = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        numbers = {"error": done.stderr[-800:]} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        numbers = {"error": f"not done in {limit} s"}
    print(part, f"{time.monotonic() - begun:.0f} s", json.dumps(numbers), file=sys.stderr, flush=True)
    return numbers


def device() -> Found:
    """What it was measured on."""
    from cgh_bench.evaluation import commit, device_name, versions

    found = {"name": device_name(), "cuda": torch.version.cuda, "cores": os.cpu_count(), "commit": commit()}
    return {**found, "system": platform.platform(), "versions": versions()}


def page(document: Found) -> str:
    """The report as Markdown: every number, and for ratios what is wanted."""
    lines = [
        "# GPU check" + (" (tiny: a rehearsal, its speeds mean nothing)" if document["tiny"] else ""),
        "",
        f"{document['device']['name']}, torch {document['device']['versions']['torch']}, commit "
        f"{document['device']['commit']}. `python benchmarks/gpu_check.py`",
    ]
    for part, numbers in document["parts"].items():
        lines += ["", f"## {part}", "", "| | | wanted |", "|---|---|---|"]
        for name, value in numbers.items():
            wanted = document["wanted"].get(f"{part}.{name}", "")
            lines.append(f"| {name} | {' '.join(str(value).split()).replace('|', '/')} | {wanted} |")
    return "\n".join(lines) + "\n"


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """The median of `repeats`, after two that do not count."""
    taken = []
    for _ in range(repeats + 2):
        begun = time.perf_counter()
        function()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return median(taken[2:])


def ceilings(tiny: bool) -> Found:
    """Products in TFLOP/s, and copies in GB/s."""
    n = 256 if tiny else 8192
    a, b = torch.randn(n, n, device=DEVICE), torch.randn(n, n, device=DEVICE)
    found = {}
    for precision in ("fp32", "tf32", "bf16") if DEVICE.type == "cuda" else ("fp32", "bf16"):
        with arithmetic(precision, DEVICE):  # type: ignore[arg-type]
            found[f"{precision} TFLOP/s"] = round(2 * n**3 / seconds(lambda: a @ b) / 1e12, 2)
    host = torch.empty(n, n, pin_memory=DEVICE.type == "cuda")
    found["to the device, GB/s"] = round(4 * n * n / seconds(lambda: host.to(DEVICE, non_blocking=True)) / 1e9, 1)
    return found


def same(tiny: bool) -> Found:
    """Relative difference of features and gradients from float64 on the CPU, and rows of the search."""
    from cgh_bench.checkpoint import random_checkpoint
    from cgh_bench.frozen.neighbours import neighbours

    found: Found = {}
    for name in NETWORKS:
        checkpoint, images = random_checkpoint(name), torch.rand(1 if tiny else 4, 3, 224, 224)
        with torch.inference_mode(), arithmetic("fp32", DEVICE):
            exact = checkpoint.backbone().double().eval()(images.double())
            got = checkpoint.backbone().eval().to(DEVICE)(images.to(DEVICE)).cpu().double()
        found[f"features of {name}"] = float((got - exact).norm() / exact.norm())
    draw = np.random.default_rng(0)
    bank, queries = (draw.standard_normal((n, 64), dtype=np.float32) for n in (500 if tiny else 50_000, 64))
    answers = [neighbours(bank, queries, 20, "torch")]
    try:
        answers.append(neighbours(bank, queries, 20, "faiss"))
    except ImportError:
        found["kNN, faiss"] = "not installed"
    found["kNN, rows and bits equal"] = all(
        np.array_equal(a, b) for other in answers for a, b in zip(answers[0], other, strict=True)
    )
    return found


def knn(tiny: bool) -> Found:
    """The exact search against its bare product and top-k in float32."""
    from cgh_bench.frozen.neighbours import neighbours

    found: Found = {}
    for rows, queries in ((4096, 128),) if tiny else ((262_144, 4_096),):
        draw, k = np.random.default_rng(0), 20 if tiny else 200
        bank, asked = (draw.standard_normal((n, 64 if tiny else 2048), dtype=np.float32) for n in (rows, queries))
        x, y = (torch.nn.functional.normalize(torch.from_numpy(a).to(DEVICE)) for a in (bank, asked))

        def bare(x: torch.Tensor = x, y: torch.Tensor = y, k: int = k) -> None:
            for part in torch.split(y, 1024):
                (part @ x.T).topk(k)

        with arithmetic("fp32", DEVICE):
            limit = seconds(bare, 3)
        del x
        whole = seconds(lambda bank=bank, asked=asked, k=k: neighbours(bank, asked, k), 3)  # type: ignore[misc]
        found |= {"bare, s": round(limit, 4), "whole, s": round(whole, 4), "times the bare": round(whole / limit, 2)}
    return found


def relation(tiny: bool) -> Found:
    """The relation loss, forward and backward, against the plain formula: time, and memory beyond the inputs."""
    from cgh_bench.pretrain.relation import relation as chunked

    b, d, k = (16, 32, 4096) if tiny else (256, 512, 131_072)
    student, teacher, own, other = (
        torch.nn.functional.normalize(torch.randn(n, d, device=DEVICE)) for n in (b, b, k, k)
    )
    student.requires_grad_()

    def plain() -> torch.Tensor:
        with torch.no_grad():
            target = (teacher @ other.T / 0.08).softmax(dim=1)
        return -(target * (student @ own.T / 0.1).log_softmax(dim=1)).sum(dim=1).mean()

    def ours() -> torch.Tensor:
        return chunked(student, own, teacher, other, (0.1, 0.08))

    found: Found = {}
    for precision in ("fp32", "tf32") if DEVICE.type == "cuda" else ("fp32",):
        with arithmetic(precision, DEVICE):  # type: ignore[arg-type]
            taken = [seconds(lambda f=f: f().backward()) for f in (ours, plain)]  # type: ignore[misc]
            found[f"{precision}, times the plain"] = round(taken[0] / taken[1], 3)
            found[f"{precision}, ms"] = round(1e3 * taken[0], 3)
            found[f"{precision}, difference"] = abs(float((ours() - plain()).detach()))
    if DEVICE.type == "cuda":
        extra = [peak_bytes(lambda f=f: f().backward()) for f in (ours, plain)]  # type: ignore[misc]
        found |= {"memory, MiB": round(extra[0] / 2**20, 1), "memory, of the plain": round(extra[0] / extra[1], 3)}
    return found


def peak_bytes(function: Callable[[], object]) -> int:
    """The most GPU memory beyond what is held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def extraction(tiny: bool) -> Found:
    """Features of images in memory against the bare network in the same precision, images a second."""
    from cgh_bench.checkpoint import random_checkpoint
    from cgh_bench.data.image_set import ColourImages
    from cgh_bench.data.transform import AS_IS
    from cgh_bench.frozen.extraction import Work, layout
    from cgh_bench.frozen.features import extract

    found: Found = {}
    side, count = (32, 8) if tiny else (224, 4096)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    for name in ("resnet18",) if tiny else ("resnet18", "resnet50", "vit_small_patch16_224"):
        checkpoint = random_checkpoint(name)
        targets = checkpoint.architecture.targets("layer4")
        network = checkpoint.backbone().to(DEVICE).to(memory_format=layout(DEVICE))
        for precision in ("fp32", "bf16"):
            images = ColourImages("noise", ("noise",), np.zeros(count, np.int64), name, pixels)
            work = Work(checkpoint, images, AS_IS, (targets,), precision)  # type: ignore[arg-type]
            batch = torch.from_numpy(pixels[:256]).to(DEVICE)
            with torch.inference_mode():
                bare = len(batch) / seconds(lambda w=work, n=network, b=batch: w.forward(n, b))  # type: ignore[misc]
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                extract(checkpoint, images, AS_IS, "layer4", Path(folder), precision)  # type: ignore[arg-type]
                rate = count / (time.perf_counter() - begun)
            found[f"{name} {precision}, images/s"] = round(rate, 1)
            found[f"{name} {precision}, of the bare"] = round(rate / bare, 3)
    return found


def loop(tiny: bool) -> Found:
    """The pretraining loop, fed from memory, against its bare networks; peak memory, and what is estimated of it."""
    from cgh_bench.backbones.resnet import ResNet
    from cgh_bench.data.image_set import GreyImages
    from cgh_bench.pretrain.batches import Batch, Batches
    from cgh_bench.pretrain.folder import RunFolder
    from cgh_bench.pretrain.recipe import find
    from cgh_bench.pretrain.run import AUTOCAST, begin, descend, planned_bytes

    found: Found = {}
    size, side, names = (
        (4, 48, ("cgh_r50_in1k_200ep",)) if tiny else (256, 224, ("cgh_r50_in1k_200ep", "moco_v2_r50_in1k_200ep"))
    )
    for name in names:
        for precision in ("fp32", "tf32", "bf16") if DEVICE.type == "cuda" else ("fp32",):
            recipe = find(name)
            method = replace(recipe.method, bn_groups=1, **({"queue_length": 64} if tiny else {}))  # type: ignore[arg-type, type-var]
            architecture = ResNet("resnet18" if tiny else "resnet50")
            recipe = replace(recipe, method=method, architecture=architecture, batch_size=size, precision=precision)  # type: ignore[arg-type]
            labels = torch.zeros(size, dtype=torch.int64)
            images = GreyImages("none", ("none",), labels.numpy(), "0" * 16, labels[:, None, None].byte().numpy())
            run = begin(recipe, RunFolder(Path(tempfile.mkdtemp())), DEVICE, Batches(recipe, images))
            batch = Batch([torch.rand(size, 3, side, side, device=DEVICE) for _ in range(2)], labels.to(DEVICE), [])
            views = [v.contiguous(memory_format=torch.channels_last) for v in batch.views]  # type: ignore[union-attr]
            late: list[Callable[[], object]] = []

            def step(run: Any = run, batch: Batch = batch, late: list[Callable[[], object]] = late) -> None:
                run.step = 5
                late.append(descend(run, batch))
                if len(late) > 1:
                    late.pop(0)()

            def networks(run: Any = run, views: Any = views) -> None:
                method, low = run.method, AUTOCAST.get(run.recipe.precision)
                with torch.autocast(DEVICE.type, low, enabled=low is not None):
                    embeddings = method.student(views[1])
                    (method.teacher if hasattr(method, "teacher") else method.keys)(views[0])
                embeddings = embeddings if isinstance(embeddings, tuple) else (embeddings,)
                torch.autograd.backward(embeddings, [torch.ones_like(e) for e in embeddings])
                run.optimizer.zero_grad()

            key = f"{name.partition('_r50')[0]} {precision}"
            with arithmetic("tf32" if precision == "tf32" else "fp32", DEVICE):
                pairs = [(seconds(networks, 3), seconds(step, 3)) for _ in range(2)]
            found[f"{key}, images/s"] = round(size / min(pair[1] for pair in pairs), 1)
            found[f"{key}, of the bare"] = round(median(bare / whole for bare, whole in pairs), 3)
            if DEVICE.type == "cuda":
                held = torch.cuda.max_memory_allocated() / 2**30
                found[f"{key}, GiB"] = f"{held:.1f}, planned {planned_bytes(recipe) / 2**30:.1f}"
                del run, batch, views
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    return found


def data(tiny: bool) -> Found:
    """Two views of JPEGs a second, by all cores, those of a GPU finished there."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import data_path
    from cgh_bench.data import load
    from cgh_bench.data.image_set import workers
    from cgh_bench.pretrain.augmentation import Cut, finish
    from cgh_bench.pretrain.batches import Batches, loader
    from cgh_bench.pretrain.recipe import find

    data_path.IMAGES = 16 if tiny else 512
    with tempfile.TemporaryDirectory() as folder:
        data_path.write_jpegs(Path(folder))
        recipe = replace(
            find("cgh_r50_in1k_200ep"), data=folder, batch_size=8 if tiny else 256, epochs=2 if tiny else 12
        )
        batches = Batches(recipe, load(folder, "train"), for_gpu=True)
        seen, begun = 0, 0.0
        for number, batch in enumerate(loader(batches, 0)):
            for augment, view in zip(recipe.views.augments, batch.views, strict=True):
                assert isinstance(view, Cut)
                finish(augment, view._replace(pixels=view.pixels.to(DEVICE, non_blocking=True)))
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            seen += recipe.batch_size if begun else 0
            begun = begun or time.perf_counter()
            if time.perf_counter() - begun > 20 or number + 1 == len(batches):
                break
        rate = seen / (time.perf_counter() - begun)
        processes = workers(batches.images, batches.bytes, len(batches))
        return {"two views, images/s": round(rate, 1), "workers": processes}


def tests(tiny: bool) -> Found:
    """The tests marked `gpu`; without one they are skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        return {"error": done.stdout[-800:]}
    return {"pytest -m gpu": done.stdout.splitlines()[-1]}


PARTS: dict[str, tuple[Callable[[bool], Found], int]] = {
    "ceilings": (ceilings, 30),
    "same": (same, 40),
    "knn": (knn, 50),
    "relation": (relation, 30),
    "extraction": (extraction, 60),
    "loop": (loop, 90),
    "data": (data, 45),
    "tests": (tests, 100),
}
"""What is measured, and the seconds that it may take."""
WANTED = {
    **{f"same.features of {name}": "≤ 1e-5" for name in NETWORKS},
    "same.kNN, rows and bits equal": "True",
    "knn.times the bare": "≤ 3",
    "relation.fp32, times the plain": "≤ 1",
    "relation.tf32, times the plain": "≤ 0.6",
    "relation.memory, of the plain": "≤ 0.1",
    **{f"extraction.{name} fp32, of the bare": "≥ 0.9" for name in ("resnet50", "vit_small_patch16_224")},
    "extraction.resnet18 fp32, of the bare": "≥ 0.8",
    **{f"loop.{name} fp32, of the bare": "≥ 0.95" for name in ("cgh", "moco_v2")},
    **{f"loop.{name} {p}, of the bare": "≥ 0.9" for name in ("cgh", "moco_v2") for p in ("tf32", "bf16")},
}

if __name__ == "__main__":
    main()
