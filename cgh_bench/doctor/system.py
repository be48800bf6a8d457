"""The installed packages and the machine: versions that fit each other, disk, memory, open files, clock."""

import datetime
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from cgh_bench.core.files import hold
from cgh_bench.doctor.finding import Finding
from cgh_bench.doctor.interpreter import as_line

PYTHONS = ((3, 11), (3, 14))
"""The lowest that is supported, and the first that is not."""
OURS = "cgh-bench"
CORE = ("torch", "torchvision", "numpy")
"""Nearly every module imports these."""
DRIVERS = {11: 450, 12: 525, 13: 580}
"""CUDA's major version: the oldest driver branch that runs all of its minor versions.
Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
DRIVER_FILE = Path("/proc/driver/nvidia/version")
GIGABYTE = 1024**3
ROOM_WANTED = 10 * GIGABYTE
"""A pretraining state of ResNet-50 is 0.3 GB, ImageNet's features of width 2,048 are 10.5 GB."""
SHARED_MEMORY_WANTED = 2 * GIGABYTE
"""Docker's default is 64 MB; eight workers that hold two batches of 256 float images of 224 pixels each need 2.4 GB."""
OPEN_FILES_WANTED = 4096
SECONDS_OFF = 60.0
OLDEST_DATE = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
"""Earlier than this version was written."""


def python() -> Finding:
    """The version of this interpreter."""
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        return Finding("python", "ok", found)
    return Finding(
        "python",
        "broken",
        found,
        "dependencies have no wheels for it",
        "python3.12 -m venv .venv && .venv/bin/pip install -e '.[cpu,openmmlab]'",
    )


def requirements() -> Finding:
    """Whether every required package is installed, in a version that is allowed."""
    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires(OURS) or ()]
    except importlib.metadata.PackageNotFoundError:
        install = f"{sys.executable} -m pip install -e ."
        return Finding("packages", "note", f"{OURS} is not installed", "its requirements cannot be checked", install)
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [complaint for each in wanted if (complaint := _complaint(each))]
    if not wrong:
        return Finding("packages", "ok", f"all {len(wanted)} required packages")
    named = " ".join(f"'{each}'" for each in wanted if _complaint(each))
    return Finding("packages", "broken", "; ".join(wrong), "imports fail", f"{sys.executable} -m pip install {named}")


def _complaint(requirement: Requirement) -> str:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} {version} is not {requirement.specifier}"


def torch() -> Finding:
    """Whether torch can be imported, and use the GPU that the driver offers."""
    module = _import("torch")
    if isinstance(module, Finding):
        return module
    cuda = module.version.cuda
    found = f"{module.__version__}, {f'built for CUDA {cuda}' if cuda else 'built for the CPU only'}"
    if cuda and module.cuda.is_available():
        return _gpus(module, found)
    driver = _driver()
    if driver is None:
        return Finding("torch", "ok", f"{found}; no NVIDIA driver: runs on the CPU")
    slow = f"everything runs on the CPU; the GPU (driver {driver}) is not used"
    newest = max((major for major, needed in DRIVERS.items() if driver >= needed), default=None)
    if newest is None:
        remedy = f"install NVIDIA's driver {DRIVERS[max(DRIVERS)]} or newer"
    elif cuda and int(cuda.split(".")[0]) <= newest:
        remedy = "nvidia-smi; echo CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES (the driver fits: is a GPU visible?)"
    else:
        remedy = (
            f"install NVIDIA's driver {DRIVERS[max(DRIVERS)]} or newer, or a torch for CUDA {newest}: "
            "https://pytorch.org/get-started/locally/"
        )
    return Finding("torch", "note", found, slow, remedy)


def _gpus(module: Any, found: str) -> Finding:
    """Whether each GPU computes, in float32 and bf16, and several could talk to each other."""
    count = module.cuda.device_count()
    found += f"; {count} GPUs ({', '.join(sorted({module.cuda.get_device_name(i) for i in range(count)}))})"
    try:
        for kind, index in itertools.product((module.float32, module.bfloat16), range(count)):
            ones = module.ones(8, 8, device=f"cuda:{index}", dtype=kind)
            assert (ones @ ones).sum().item() == 8**3
    except Exception as error:
        newer = f"{sys.executable} -m pip install --upgrade torch torchvision"
        return Finding("torch", "broken", f"{found}; they cannot compute ({as_line(error)})", "nothing can run", newer)
    if count > 1 and not module.distributed.is_nccl_available():
        install = "install a torch for Linux with CUDA: https://pytorch.org/get-started/locally/"
        return Finding("torch", "note", f"{found}, no NCCL", "one GPU per run: torchrun cannot use several", install)
    return Finding("torch", "ok", f"{found}, float32 and bf16 work{', NCCL is there' if count > 1 else ''}")


def torchvision() -> Finding:
    """Whether torchvision was built for this torch, and its operators load; all of it takes seconds to import."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return _broken("torchvision", "ModuleNotFoundError: No module named 'torchvision'")
    torch_version = Version(importlib.metadata.version("torch"))
    version = Version(importlib.metadata.version("torchvision"))
    # torch 2.0 came with torchvision 0.15, and each next one with the next.
    partner = torch_version.minor + 15
    operators = _has_nms([Path(folder) for folder in spec.submodule_search_locations or ()])
    if version.minor == partner and operators:
        return Finding("torchvision", "ok", f"{version}, built for torch {torch_version.major}.{torch_version.minor}")
    return Finding(
        "torchvision",
        "note" if operators else "broken",
        f"{version} beside torch {torch_version}{'' if operators else '; its operators do not load'}",
        "detection fails: `operator torchvision::nms does not exist`",
        f"{sys.executable} -m pip install 'torch=={torch_version.public}' 'torchvision==0.{partner}.*'",
    )


def _has_nms(folders: list[Path]) -> bool:
    """Whether the compiled part in torchvision's folder can be loaded, and has it."""
    import torch

    try:
        for compiled in (file for folder in folders for file in folder.glob("_C*.so")):
            torch.ops.load_library(str(compiled))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def numpy() -> Finding:
    """Whether numpy can be imported and used by torch."""
    module = _import("numpy")
    if isinstance(module, Finding):
        return module
    try:
        importlib.import_module("torch").zeros(1).numpy()
    except Exception as error:
        return Finding(
            "numpy",
            "broken",
            f"{module.__version__}; torch cannot use it ({as_line(error)})",
            "no image can be loaded",
            f"{sys.executable} -m pip install --upgrade numpy torch torchvision",
        )
    return Finding("numpy", "ok", str(module.__version__))


def faiss() -> Finding:
    """Whether faiss is installed for this machine; without it torch does the same."""
    from cgh_bench.core.device import pick_device

    install = f"{sys.executable} -m pip install faiss-cpu (or, with an NVIDIA GPU, faiss-gpu)"
    try:
        module: Any = importlib.import_module("faiss")
    except Exception as error:
        return Finding("faiss", "note", as_line(error), "kNN searches with torch: same results", install)
    if gpus := module.get_num_gpus():
        return Finding("faiss", "ok", f"{module.__version__}, {gpus} GPUs")
    torch = "; on the GPU kNN searches with torch" if pick_device().type == "cuda" else ""
    return Finding("faiss", "ok", f"{module.__version__}, on the CPU{torch}")


def disk(work: Path) -> Finding:
    """Free space for the work folder."""
    usage = shutil.disk_usage(_nearest(work))
    found = f"{usage.free / GIGABYTE:.0f} GB of {usage.total / GIGABYTE:.0f} GB free for {work}"
    if usage.free >= ROOM_WANTED:
        return Finding("disk", "ok", found)
    return Finding(
        "disk",
        "note",
        found,
        "a long run may fill the disk and stop; it resumes from its last saved state",
        f"du -xhd2 {_nearest(work)} | sort -h | tail, remove what is not needed; or export CGH_WORK=/big/disk/work",
    )


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Shared memory, through which data-loader processes pass images."""
    if not folder.is_dir():
        return Finding(
            "shared memory",
            "note",
            f"no {folder}",
            "data-loader processes cannot pass images; image folders and frameworks need them",
            f"mount -t tmpfs -o size=8g tmpfs {folder}",
        )
    free = shutil.disk_usage(folder).free
    found = f"{free / GIGABYTE:.1f} GB free in {folder}"
    if free >= SHARED_MEMORY_WANTED:
        return Finding("shared memory", "ok", found)
    return Finding(
        "shared memory",
        "note",
        found,
        "data-loader processes may crash: `Bus error`, `DataLoader worker is killed by signal`",
        f"docker run --shm-size=8g … (or --ipc=host); outside containers: mount -o remount,size=8g {folder}",
    )


def open_files() -> Finding:
    """The limit of open files per process."""
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "no limit" if unlimited else f"limit {soft:,} per process"
    if unlimited or soft >= OPEN_FILES_WANTED:
        return Finding("open files", "ok", found)
    allowed = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    return Finding(
        "open files",
        "note",
        found,
        "many data-loader processes may fail: `Too many open files`, `received 0 items of ancdata`",
        f"ulimit -n {allowed}",
    )


def writable(work: Path) -> Finding:
    """Whether files can be written and locked in the work folder."""
    folder = _nearest(work)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            hold(file, wait=False)
    except OSError as error:
        return Finding(
            "writing",
            "broken",
            f"cannot write and lock files in {folder} ({error.strerror})",
            "nothing can be saved",
            "export CGH_WORK=/path/to/a/writable/folder",
        )
    return Finding("writing", "ok", f"can write to {work}")


def clock(work: Path) -> Finding:
    """The clock of the machine, compared with that of the disk, which may be on another one."""
    now = time.time()
    shown = datetime.datetime.fromtimestamp(now, datetime.UTC)
    try:
        with tempfile.NamedTemporaryFile(dir=_nearest(work)) as file:
            off = Path(file.name).stat().st_mtime - now
    except OSError:  # `writable` reports it
        off = 0.0
    if shown >= OLDEST_DATE and abs(off) < SECONDS_OFF:
        return Finding("clock", "ok", f"{shown:%Y-%m-%d %H:%M} UTC")
    return Finding(
        "clock",
        "note",
        f"{shown:%Y-%m-%d %H:%M} UTC, the disk of {work} differs by {off:+.0f} s",
        "results get wrong dates; no number depends on it",
        "timedatectl set-ntp true",
    )


def all_checks(work: Path) -> list[Finding]:
    """Every check of this file; without torch those that use it are left out."""
    found = [python(), requirements(), torch()]
    if not found[-1].prevents:
        found += [torchvision(), numpy(), faiss()]
    return [*found, disk(work), writable(work), shared_memory(), open_files(), clock(work)]


def _import(name: str) -> ModuleType | Finding:
    """The module, or the finding of an import that fails."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        return _broken(name, as_line(error))


def _broken(name: str, error: str) -> Finding:
    remedy = f"{sys.executable} -m pip install --force-reinstall torch torchvision 'numpy>=2'"
    return Finding(name, "broken", f"cannot be imported ({error})", "nothing can run", remedy)


def _driver() -> int | None:
    """The branch of NVIDIA's driver, such as 535; None without a driver."""
    try:
        text = DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Module.*?\s(\d{3,})\.\d+", text)
    return int(match[1]) if match else None


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest parent that exists: a check makes no folders."""
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 (a broken link must not be followed)
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
