"""The search of in-context segmentation against the usual formulation: time, memory, and whether they say the same.

    python benchmarks/incontext.py [--rows 2000000] [--images 16]

The usual code, for each image: the product of its patches with the whole memory, `topk`, softmax, and the weighted
mean of the neighbours' labels (the exact form of vpariza/open-hummingbird-eval's). Its memory is normalised and in
memory; ours is a memory-mapped file of any norms, searched for all images in passes. Ratios are of CPU seconds, which
other work on the machine hardly changes. Saves `results/incontext.json`.

The aim, three times faster than the usual code, cannot be met on cores that multiply float32 alone: `product` is the
matrix product by itself, in blocks that fit the cache, and both ways must compute it to be exact. It says how much
faster than the usual code any exact search could be there.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cgh_bench.frozen.neighbours import neighbours, planned_bytes

DIM, CLASSES, PATCHES, K, TEMPERATURE = 384, 21, 1_024, 30, 0.02
CENTRES, NOISE = 500, 1.5
ROUNDS, BLOCK = 3, 16_384


def main() -> None:
    """Measure both and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--images", type=int, default=16)
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, DIM), np.float32)
    labels = torch.from_numpy(rng.dirichlet(np.full(CLASSES, 0.1), chosen.rows).astype(np.float32))
    queries = made(rng, centres, chosen.images * PATCHES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.npy"
        memory = np.lib.format.open_memmap(path, "w+", np.float32, (chosen.rows, DIM))
        for start in range(0, chosen.rows, 50_000):
            memory[start : start + 50_000] = made(rng, centres, min(50_000, chosen.rows - start))
        memory.flush()
        bank = torch.nn.functional.normalize(torch.from_numpy(np.load(path)))
        ways = {
            "ours": lambda: found(np.load(path, mmap_mode="r"), queries, labels),
            "usual": lambda: usual(bank, queries, labels),
            "product": lambda: product(bank, queries),
        }
        answers, seconds = {}, {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, work in ways.items():
                answers[name], took = timed(work)
                seconds[name].append(took)
    document = {
        "command": " ".join(["python", *sys.argv]),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "rows": chosen.rows,
        "dim": DIM,
        "queries": len(queries),
        "cpu_seconds": {name: round(min(each), 2) for name, each in seconds.items()},
        "times_faster_than_usual": {name: round(min(seconds["usual"]) / min(seconds[name]), 2) for name in ways},
        "same_classes": float((answers["ours"].argmax(1) == answers["usual"].argmax(1)).double().mean()),
        "planned_megabytes": round(planned_bytes(chosen.rows, len(queries), DIM, K) / 1e6),
    }
    text = json.dumps(document, indent=1)
    (Path(__file__).parent / "results" / "incontext.json").write_text(text + "\n")
    print(text)


def made(rng: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    """Noise around centres."""
    return centres[rng.integers(0, CENTRES, count)] + NOISE * rng.standard_normal((count, DIM), np.float32)


def timed(work) -> tuple[torch.Tensor, float]:
    """What `work` gives, and the CPU seconds it takes."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def product(bank: torch.Tensor, queries: np.ndarray) -> torch.Tensor:
    """The sum of the last block of the product alone: nothing is selected."""
    unit, block = torch.nn.functional.normalize(torch.from_numpy(queries)), torch.empty(0)
    for rows in bank.split(BLOCK):
        for part in unit.split(256):
            block = part @ rows.T
    return block.sum()


def found(memory: np.ndarray, queries: np.ndarray, labels: torch.Tensor) -> torch.Tensor:
    """Ours: all queries at once."""
    similarity, rows = neighbours(memory, queries, K)
    return weighted(torch.from_numpy(similarity), torch.from_numpy(rows), labels)


def usual(bank: torch.Tensor, queries: np.ndarray, labels: torch.Tensor) -> torch.Tensor:
    """The usual: one image at a time."""
    parts = []
    for start in range(0, len(queries), PATCHES):
        unit = torch.nn.functional.normalize(torch.from_numpy(queries[start : start + PATCHES]))
        parts.append(weighted(*(unit @ bank.T).topk(K), labels))
    return torch.cat(parts)


def weighted(similarity: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The labels of the neighbours, (Q, C)."""
    return torch.einsum("qk,qkc->qc", (similarity / TEMPERATURE).softmax(dim=1), labels[rows])


if __name__ == "__main__":
    main()
