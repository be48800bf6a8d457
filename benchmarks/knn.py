"""kNN at a quarter of ImageNet against the usual exact code: time, memory, and whether they say the same.

    python benchmarks/knn.py [--rows 320000] [--queries 2000]

The usual code is a matrix product, `topk` and one-hot votes, once for each K (as in facebookresearch/dino eval_knn.py;
here 200 queries at a time, which suits it better than DINO's hundredth). It is given its bank normalised and in memory;
ours a memory-mapped file of any norms. Every measurement is a process of its own, the two taking turns; of several the
shortest counts. Ratios are of CPU seconds, which other work on the machine hardly changes, and of the wall clock.
Memory is the peak beyond imports, files' mapped pages included. Saves `results/knn.json`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

KS = (10, 20, 100, 200)
DIM = 2048
CLASSES = 1000
TEMPERATURE = 0.07
QUERIES_AT_A_TIME = 200
NOISE = 6.0
"""Spread of the made features around the centre of their class; so much that predictions are not all right."""


def main() -> None:
    """Measure all and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=320_000)
    options.add_argument("--queries", type=int, default=2_000)
    options.add_argument("--repeats", type=int, default=2)
    options.add_argument("--one", nargs=3, metavar=("WHOSE", "KS", "FOLDER"), help="a single measurement, as JSON")
    chosen = options.parse_args()
    if chosen.one:
        whose, ks, folder = chosen.one
        print(json.dumps({"ours": ours, "usual": usual}[whose](Path(folder), [int(k) for k in ks.split(",")])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, chosen.rows, chosen.queries)
        document = compare(folder, chosen.repeats)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    machine = {
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    shape = {"rows": chosen.rows, "dim": DIM, "queries": chosen.queries, "classes": CLASSES, "ks": KS}
    out = Path(__file__).parent / "results" / "knn.json"
    text = json.dumps({"command": " ".join(["python", *sys.argv]), "machine": machine, **shape, **document}, indent=1)
    out.write_text(text + "\n")
    print(text)


def make(folder: Path, rows: int, queries: int) -> None:
    """Write bank.npy, queries.npy and their labels: noise around the centre of each class."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, DIM), dtype=np.float32)
    for name, n in (("bank", rows), ("queries", queries)):
        labels = rng.integers(0, CLASSES, n)
        features = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n, DIM))
        for start in range(0, n, 10_000):
            part = labels[start : start + 10_000]
            noise = NOISE * rng.standard_normal((len(part), DIM), dtype=np.float32)
            features[start : start + 10_000] = centres[part] + noise
        features.flush()
        np.save(folder / f"{name}_labels.npy", labels)


def compare(folder: Path, repeats: int) -> dict[str, object]:
    """Both codes, taking turns."""
    grid = ",".join(map(str, KS))
    kinds = [("ours", grid), ("ours", "20"), *(("usual", str(k)) for k in KS)]
    runs: dict[tuple[str, str], list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            command = [sys.executable, __file__, "--one", *kind, str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[kind].append(json.loads(done.stdout))
            print(kind, runs[kind][-1], file=sys.stderr, flush=True)
    clocks = {clock: _ratios(runs, grid, clock) for clock in ("cpu_seconds", "seconds")}
    same = {}
    for k in KS:
        a, b = (np.load(folder / f"{whose}_{k}.npy") for whose in ("ours", "usual"))
        same[str(k)] = float((a == b).mean())
    whole = runs["ours", grid][0]
    return {
        **clocks,
        "same_predictions": same,
        "accuracy": whole["accuracy"],
        "planned_megabytes": whole["planned_megabytes"],
        "peak_megabytes": max(run["peak_megabytes"] for run in runs["ours", grid]),
        "usual_peak_megabytes": max(run["peak_megabytes"] for run in runs["usual", str(KS[-1])]),
    }


def _ratios(runs: dict[tuple[str, str], list[dict[str, float]]], grid: str, clock: str) -> dict[str, object]:
    taken = {kind: min(run[clock] for run in found) for kind, found in runs.items()}
    once_per_k = sum(taken["usual", str(k)] for k in KS)
    return {
        **{" ".join(kind): round(value, 1) for kind, value in taken.items()},
        "grid_times_faster": round(once_per_k / taken["ours", grid], 2),
        "one_k_times_faster": round(taken["usual", "20"] / taken["ours", "20"], 2),
    }


def ours(folder: Path, ks: list[int]) -> dict[str, float]:
    """The whole grid from one search of the mapped bank."""
    import faiss  # noqa: F401  (imports are not measured)

    from cgh_bench.frozen.metrics import rank
    from cgh_bench.frozen.neighbours import neighbours, planned_bytes

    bank, queries = np.load(folder / "bank.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    labels, truth = np.load(folder / "bank_labels.npy"), np.load(folder / "queries_labels.npy")
    neighbours(bank[:100], queries[:2], 5)
    before, started, cpu = peak_bytes(reset=True), time.perf_counter(), time.process_time()
    similarity, row = neighbours(bank, queries, max(ks))
    answers = rank(similarity, labels[row], truth, CLASSES, (ks, [TEMPERATURE]))
    seconds, cpu, peak = time.perf_counter() - started, time.process_time() - cpu, peak_bytes() - before
    for k in ks:
        np.save(folder / f"ours_{k}.npy", answers[k, TEMPERATURE].predicted.numpy())
    planned = planned_bytes(len(bank), len(queries), DIM, max(ks)) / 1e6
    accuracy = answers[ks[-1], TEMPERATURE].top1
    memory = {"peak_megabytes": peak / 1e6, "planned_megabytes": planned}
    return {"seconds": seconds, "cpu_seconds": cpu, **memory, "accuracy": accuracy}


def usual(folder: Path, ks: list[int]) -> dict[str, float]:
    """One K at a time, the bank in memory."""
    import torch

    before = peak_bytes(reset=True)
    bank = torch.nn.functional.normalize(torch.from_numpy(np.load(folder / "bank.npy"))).T
    queries = torch.nn.functional.normalize(torch.from_numpy(np.load(folder / "queries.npy")))
    labels = torch.from_numpy(np.load(folder / "bank_labels.npy"))
    (queries[:2] @ bank[:, :100]).topk(5)
    started, cpu = time.perf_counter(), time.process_time()
    for k in ks:
        predicted = []
        for start in range(0, len(queries), QUERIES_AT_A_TIME):
            similarity, row = (queries[start : start + QUERIES_AT_A_TIME] @ bank).topk(k)
            candidates = labels.view(1, -1).expand(len(row), -1).gather(1, row)
            one_hot = torch.zeros(len(row) * k, CLASSES).scatter_(1, candidates.view(-1, 1), 1)
            weights = (similarity / TEMPERATURE).exp()
            scores = (one_hot.view(len(row), -1, CLASSES) * weights.view(len(row), -1, 1)).sum(1)
            predicted.append(scores.argmax(1))
        np.save(folder / f"usual_{k}.npy", torch.cat(predicted).numpy())
    taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return {**taken, "peak_megabytes": (peak_bytes() - before) / 1e6}


def peak_bytes(reset: bool = False) -> int:
    """The most memory that this process has held (Linux); with `reset` what it holds now, and the count starts anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()
