"""The search of in-context segmentation against the usual formulation: time, memory, and whether they say the same.

    python benchmarks/incontext.py [--rows 2000000] [--images 16]

The usual code, for each image: the product of its patches with the whole memory, `topk`, softmax, and the weighted
mean of the neighbours' labels (the exact form of vpariza/open-hummingbird-eval's). Its memory is normalised and in
memory; ours is a memory-mapped file of any norms, searched for all images in passes. Ratios are of CPU seconds, which
other work on the machine hardly changes, and of the wall clock. Saves `results/incontext.json`. The saved result is of
`--rows 200000 --images 4` on two busy cores; there ours is not three times faster, which is the aim.
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
        ours, ours_seconds = timed(lambda: found(np.load(path, mmap_mode="r"), queries, labels))
        bank = torch.nn.functional.normalize(torch.from_numpy(np.load(path)))
        theirs, usual_seconds = timed(lambda: usual(bank, queries, labels))
    document = {
        "command": " ".join(["python", *sys.argv]),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "rows": chosen.rows,
        "dim": DIM,
        "queries": len(queries),
        "ours": ours_seconds,
        "usual": usual_seconds,
        "times_faster": {clock: round(usual_seconds[clock] / ours_seconds[clock], 2) for clock in ours_seconds},
        "same_classes": float((ours.argmax(1) == theirs.argmax(1)).double().mean()),
        "planned_megabytes": round(planned_bytes(chosen.rows, len(queries), DIM, K) / 1e6),
    }
    text = json.dumps(document, indent=1)
    (Path(__file__).parent / "results" / "incontext.json").write_text(text + "\n")
    print(text)


def made(rng: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    """Noise around centres."""
    return centres[rng.integers(0, CENTRES, count)] + NOISE * rng.standard_normal((count, DIM), np.float32)


def timed(work) -> tuple[torch.Tensor, dict[str, float]]:
    """What `work` gives, and the seconds it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}


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
