"""How long reading, converting and certifying a ResNet-50 takes, and how much memory, for every target.

    python benchmarks/conversion.py

Each measurement is a process of its own. Saves `results/conversion.json`. Seconds are of the wall clock. `imports` are
those of our package with torch, before the work; the target framework's import is in `convert_and_certify`, whose
`_cpu` is the processor time of all its processes: it hardly depends on what else the machine does (`load`).
Memory is the peak beyond what the imports take, over the size of the file; a target's own process is not in it.
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

TARGETS = {
    "torchvision": "x.pth",
    "timm": "x.safetensors",
    "huggingface": "x",
    "mmdet": "x.pth",
    "mmseg": "x.pth",
    "detectron2": "x.pkl",
}


def main() -> None:
    """Measure all and write it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--one", nargs=3, metavar=("WHAT", "FILE", "FOLDER"), help="a single measurement, as JSON")
    options.add_argument("--repeats", type=int, default=2, help="the best of so many is taken")
    chosen = options.parse_args()
    if chosen.one:
        what, file, folder = chosen.one
        print(json.dumps(measure(what, Path(file), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "resnet50.pth")
        _write_resnet50(file)
        found = {what: _best(what, file, Path(folder), chosen.repeats) for what in ("read", "inspect", *TARGETS)}
        size = file.stat().st_size
    document = {
        "command": "python benchmarks/conversion.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "file_bytes": size,
        "repeats": chosen.repeats,
        "measured": found,
    }
    out = Path(__file__).parent / "results" / "conversion.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(out.read_text())


def _write_resnet50(path: Path) -> None:
    import torch

    from cgh_bench.checkpoint import random_checkpoint

    torch.save(dict(random_checkpoint("resnet50").weights), path)


def _best(what: str, file: Path, folder: Path, repeats: int) -> dict[str, float]:
    """The smallest of several measurements, as the machine may have other work."""
    runs = [_run(what, file, folder / f"{what}{repeat}") for repeat in range(repeats)]
    return {key: round(min(run[key] for run in runs), 2) for key in runs[0]}


def _run(what: str, file: Path, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", what, str(file), str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measure(what: str, file: Path, folder: Path) -> dict[str, float]:
    """One measurement in this process."""
    started = time.monotonic()
    from cgh_bench.converters.convert import convert
    from cgh_bench.reading import inspection
    from cgh_bench.reading.loading import load

    imported = time.monotonic()
    before = _peak()
    if what == "inspect":
        inspection.inspect(file)
    else:
        read = load(file)
    found = {"imports": imported - started, what if what == "inspect" else "read": time.monotonic() - imported}
    if what in TARGETS:
        middle, worked = time.monotonic(), _work()
        certificate = convert(read, what, folder / TARGETS[what])
        found["convert_and_certify"] = time.monotonic() - middle
        found["convert_and_certify_cpu"] = _work() - worked
        found["of_that_frameworks_import"] = certificate["seconds_of_import"]
    found["memory_over_file"] = (_peak() - before) / file.stat().st_size
    if what in TARGETS:
        middle = time.monotonic()
        convert(read, what, folder / "unproven" / TARGETS[what], verify=False)
        found["convert_only"] = time.monotonic() - middle
    return found


def _work() -> float:
    """Seconds of processor time, of the target's process too."""
    return sum(os.times()[:4])


def _peak() -> int:
    """Bytes; from Linux itself, as `getrusage` starts a process at its parent's peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()
