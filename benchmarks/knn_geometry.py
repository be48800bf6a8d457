"""Exact kNN of features that lie close together: what it costs beside features that are spread out.

    python benchmarks/knn_geometry.py [--rows 20000] [--queries 200] [--label after]

`noise` is how far the rows are from one common direction: 1 is spread out, 1e-3 is like random weights, 1e-5 collapsed,
0 one and the same row. CPU seconds, the smaller of two. Added to `results/knn_geometry.json` under the label.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from cgh_bench.evaluation import commit
from cgh_bench.frozen.neighbours import neighbours

DIM, K, REPEATS = 512, 20, 2
NOISES = (1.0, 1e-1, 1e-2, 1e-3, 1e-5, 0.0)
OUT = Path(__file__).parent / "results" / "knn_geometry.json"


def main() -> None:
    """Measure every geometry and write it down beside what is there."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--label", default="after")
    chosen = options.parse_args()
    seconds = {str(noise): measure(noise, chosen.rows, chosen.queries) for noise in NOISES}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    shape = {"rows": chosen.rows, "queries": chosen.queries, "dim": DIM, "k": K}
    slowest = round(max(seconds.values()) / seconds["1.0"], 1)
    found = {**shape, "commit": commit(), "machine": machine, "cpu_seconds": seconds, "slowest_to_spread_out": slowest}
    document = json.loads(OUT.read_text()) if OUT.is_file() else {}
    OUT.write_text(json.dumps({**document, chosen.label: found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measure(noise: float, rows: int, queries: int) -> float:
    """CPU seconds of one search."""
    draw = np.random.default_rng(0)
    centre = np.zeros(DIM) if noise == 1 else draw.standard_normal(DIM)
    bank, asked = (
        (centre + noise * draw.standard_normal((count, DIM))).astype(np.float32) for count in (rows, queries)
    )
    neighbours(bank[:100], asked[:2], K)
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        neighbours(bank, asked, K)
        taken.append(time.process_time() - start)
    return round(min(taken), 3)


if __name__ == "__main__":
    main()
