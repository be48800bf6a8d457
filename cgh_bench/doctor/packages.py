"""What is installed beside us: Python, torch and its CUDA, torchvision, numpy, faiss, and all that we require."""

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from cgh_bench.doctor.finding import Finding
from cgh_bench.doctor.interpreter import IMPORT_ERRORS

PYTHONS = ((3, 11), (3, 14))
"""From, and below."""
OURS = "cgh-bench"
CORE = ("torch", "torchvision", "numpy")
"""Imported by nearly every file of ours."""
DRIVERS = {11: 450, 12: 525, 13: 580}
"""CUDA's major version: the oldest driver branch for all of its minor ones.
Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
DRIVER_FILE = Path("/proc/driver/nvidia/version")


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
    """Every package that ours requires, in a version that it allows."""
    wanted = [Requirement(text) for text in importlib.metadata.requires(OURS) or ()]
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [complaint for each in wanted if (complaint := _complaint(each))]
    if not wrong:
        return Finding("packages", "ok", f"all {len(wanted)} that are required")
    named = " ".join(f"'{each}'" for each in wanted if _complaint(each))
    return Finding("packages", "broken", "; ".join(wrong), "imports fail", f"{sys.executable} -m pip install {named}")


def _complaint(requirement: Requirement) -> str:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is absent"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} {version} is not {requirement.specifier}"


def torch() -> Finding:
    """Whether torch can be imported, and use the GPU that the driver offers."""
    module = _import("torch")
    if isinstance(module, Finding):
        return module
    cuda = module.version.cuda
    found = f"{module.__version__}, {f'built for CUDA {cuda}' if cuda else 'built for the CPU alone'}"
    if cuda and module.cuda.is_available():
        cards = ", ".join(sorted({module.cuda.get_device_name(i) for i in range(module.cuda.device_count())}))
        return Finding("torch", "ok", f"{found}; {module.cuda.device_count()} GPUs ({cards})")
    driver = _driver()
    if driver is None:
        return Finding("torch", "ok", f"{found}; no NVIDIA driver: computes on the CPU")
    slow = f"everything runs on the CPU, the GPU (driver {driver}) idles"
    newest = max((major for major, needed in DRIVERS.items() if driver >= needed), default=None)
    if newest is None:
        remedy = f"install NVIDIA's driver {DRIVERS[max(DRIVERS)]} or newer"
    elif cuda and int(cuda.split(".")[0]) <= newest:
        remedy = "nvidia-smi; echo CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES (the driver would do: is a GPU visible?)"
    else:
        remedy = (
            f"install NVIDIA's driver {DRIVERS[max(DRIVERS)]} or newer, or a torch for this one, for CUDA {newest}: "
            "https://pytorch.org/get-started/locally/"
        )
    return Finding("torch", "note", found, slow, remedy)


def torchvision() -> Finding:
    """Whether torchvision is the one that was built for this torch, its operators included."""
    module = _import("torchvision")
    if isinstance(module, Finding):
        return module
    torch_version = Version(importlib.metadata.version("torch"))
    version = Version(importlib.metadata.version("torchvision"))
    # torch 2.0 came with torchvision 0.15, and each next one with the next.
    partner = torch_version.minor + 15
    operators = _has_nms()
    if version.minor == partner and operators:
        return Finding("torchvision", "ok", f"{version}, made for torch {torch_version.major}.{torch_version.minor}")
    return Finding(
        "torchvision",
        "note" if operators else "broken",
        f"{version} beside torch {torch_version}{'' if operators else '; its operators do not load'}",
        "detection fails: `operator torchvision::nms does not exist`",
        f"{sys.executable} -m pip install 'torch=={torch_version.public}' 'torchvision==0.{partner}.*'",
    )


def _has_nms() -> bool:
    import torch

    return hasattr(torch.ops.torchvision, "nms")


def numpy() -> Finding:
    """Whether numpy can be imported, and torch use it."""
    module = _import("numpy")
    if isinstance(module, Finding):
        return module
    try:
        importlib.import_module("torch").zeros(1).numpy()
    except IMPORT_ERRORS as error:
        return Finding(
            "numpy",
            "broken",
            f"{module.__version__}; torch cannot use it ({_line(error)})",
            "no image can be loaded",
            f"{sys.executable} -m pip install --upgrade numpy torch torchvision",
        )
    return Finding("numpy", "ok", str(module.__version__))


def faiss() -> Finding:
    """Whether faiss is there; torch does the same without it."""
    install = f"{sys.executable} -m pip install faiss-cpu (or, with an NVIDIA GPU, faiss-gpu)"
    try:
        module: Any = importlib.import_module("faiss")
    except IMPORT_ERRORS as error:
        return Finding("faiss", "note", _line(error), "kNN searches with torch: the same answers", install)
    gpus = module.get_num_gpus()
    return Finding("faiss", "ok", f"{module.__version__}, {f'{gpus} GPUs' if gpus else 'on the CPU'}")


def all_checks() -> list[Finding]:
    """Every check of this file; without torch, those that ask it have no answer."""
    first = [python(), requirements(), torch()]
    return first if first[-1].prevents else [*first, torchvision(), numpy(), faiss()]


def _import(name: str) -> ModuleType | Finding:
    """The module, or what to do about an import that fails."""
    try:
        return importlib.import_module(name)
    except IMPORT_ERRORS as error:
        remedy = f"{sys.executable} -m pip install --force-reinstall torch torchvision 'numpy>=2'"
        return Finding(name, "broken", f"cannot be imported ({_line(error)})", "nothing can run", remedy)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _driver() -> int | None:
    """The branch of NVIDIA's driver (535), None without one."""
    try:
        text = DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Module.*?\s(\d{3,})\.\d+", text)
    return int(match[1]) if match else None
