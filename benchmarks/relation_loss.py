"""The relation loss in chunks against the plain formula: seconds and extra memory of forward and backward.

    python benchmarks/relation_loss.py

B 256, D 512, K 131,072, float32, one thread, seconds of the processor. The plain formula is ReSSL's and CGH's released
code: two (B, K) similarities, softmax, log-softmax, product. Each variant is a process of its own, for its peak memory;
the fastest of three counts. Saves `results/relation_loss.json`.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from cgh_bench.pretrain.relation import relation

B, D, K, THREADS, ROUNDS = 256, 512, 131_072, 1, 1
TEMPERATURES = (0.1, 0.08)


def main() -> None:
    """Measure and write it down; with a variant's name as argument, measure it alone and print."""
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1])))
        return
    found: dict[str, list[dict[str, float]]] = {"chunks": [], "plain": []}
    for _ in range(ROUNDS):
        for name, rounds in found.items():
            done = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
            rounds.append(json.loads(done.stdout))
    least = {name: {key: min(r[key] for r in rounds) for key in rounds[0]} for name, rounds in found.items()}
    document = {
        "command": "python benchmarks/relation_loss.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "shape": {"B": B, "D": D, "K": K},
        "measured": least,
        "ratio": {key: round(least["chunks"][key] / least["plain"][key], 3) for key in ("seconds", "extra_mebibytes")},
        "wanted": {"seconds": 0.85, "extra_mebibytes": 0.1},
        "difference": {key: abs(least["chunks"][key] - least["plain"][key]) for key in ("loss", "gradient")},
    }
    out = Path(__file__).parent / "results" / "relation_loss.json"
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def measure(name: str) -> dict[str, float]:
    """Least seconds of three runs, peak memory beyond the inputs, loss and the gradient's length."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    student, teacher, own, other = (torch.randn(n, D) for n in (B, B, K, K))
    for rows in (student, teacher, own, other):
        rows.div_(rows.norm(dim=1, keepdim=True))  # in place, for the peak of memory is what is measured
    student.requires_grad_()
    torch.randn(8, D) @ own[:64].T  # the libraries' own buffers
    before, seconds, loss = _peak(), [], torch.zeros(())
    for _ in range(3):
        student.grad = None
        start = time.process_time()
        loss = {"chunks": _chunks, "plain": _plain}[name](student, own, teacher, other)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.process_time() - start)
    assert student.grad is not None
    return {
        "seconds": min(seconds),
        "extra_mebibytes": (_peak() - before) / 1024,
        "loss": float(loss.detach()),
        "gradient": float(student.grad.norm()),
    }


def _chunks(student: Tensor, own: Tensor, teacher: Tensor, other: Tensor) -> Tensor:
    return relation(student, own, teacher, other, TEMPERATURES)


def _plain(student: Tensor, own: Tensor, teacher: Tensor, other: Tensor) -> Tensor:
    with torch.no_grad():
        target = (teacher @ other.T / TEMPERATURES[1]).softmax(dim=1)
    return -(target * (student @ own.T / TEMPERATURES[0]).log_softmax(dim=1)).sum(dim=1).mean()


def _peak() -> int:
    """KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
