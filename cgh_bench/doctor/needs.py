"""What tasks need beside us: datasets, and frameworks, each asked for in the interpreter that would run it."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from cgh_bench import data
from cgh_bench.core.errors import UserError
from cgh_bench.data import dense
from cgh_bench.data.decoding import read_image
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.doctor import interpreter
from cgh_bench.doctor.finding import Finding
from cgh_bench.foreign.frameworks import FRAMEWORKS, Framework

SECONDS_ALLOWED = 120.0
"""For imports from a slow disk; longer is a hang."""
COMPILED = {"mmcv": "mmcv._ext", "detectron2": "detectron2._C"}
"""The module with a package's compiled operators."""
ABSENT = "ModuleNotFoundError: No module named"
NEED_DETECTRON2 = (
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2 (a C++ compiler, minutes)"
)


class Asked(NamedTuple):
    """A running interpreter that was asked for modules."""

    python: str
    process: subprocess.Popen[str] | None
    error: str


def ask(python: str, modules: Sequence[str], environment: Mapping[str, str]) -> Asked:
    """Start asking `python` for `modules`; several interpreters can be asked at the same time."""
    command, pipe = [python, interpreter.__file__, *modules], subprocess.PIPE
    try:
        return Asked(python, subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=dict(environment)), "")
    except OSError as error:
        return Asked(python, None, str(error.strerror))


def answer(asked: Asked) -> dict[str, dict[str, str]]:
    """Its answer by module: `version`, pip `package`, and `error` if the import fails.

    Raises:
        ValueError: the interpreter does not run or crashed; the message is one line.
    """
    if asked.process is None:
        raise ValueError(asked.error)
    try:
        out, errors = asked.process.communicate(timeout=SECONDS_ALLOWED)
    except subprocess.TimeoutExpired:
        asked.process.kill()
        asked.process.communicate()
        raise ValueError(f"no answer in {SECONDS_ALLOWED:.0f} s") from None
    if asked.process.returncode:
        last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
        raise ValueError(f"exit code {asked.process.returncode}: {''.join(last) or 'no message'}")
    return json.loads(out.splitlines()[-1])


@dataclass(frozen=True)
class Question:
    """An interpreter that was asked for the modules that the frameworks in it need."""

    frameworks: Mapping[str, Framework]
    asked: Asked


def ask_all() -> list[Question]:
    """Ask all interpreters at the same time."""
    together: dict[tuple[str, str], dict[str, Framework]] = {}
    for name, framework in FRAMEWORKS.items():
        together.setdefault((framework.python, framework.folder), {})[name] = framework
    return [
        Question(group, ask(python, _modules(group), next(iter(group.values())).environment))
        for (python, _), group in together.items()
    ]


def check_frameworks(question: Question) -> list[Finding]:
    """One finding per framework that was asked for, and one per set of compiled operators."""
    try:
        answers = answer(question.asked)
    except ValueError as error:
        return [_dead(name, framework, str(error)) for name, framework in question.frameworks.items()]
    found = [_framework(name, framework, answers) for name, framework in question.frameworks.items()]
    return found + [
        _operators(whole, answers[part])
        for whole, part in COMPILED.items()
        if not answers.get(whole, {"error": " "})["error"]
    ]


def _modules(frameworks: Mapping[str, Framework]) -> list[str]:
    needed = dict.fromkeys(module for framework in frameworks.values() for module in framework.modules)
    return [*needed, *(part for whole, part in COMPILED.items() if whole in needed)]


def _dead(name: str, framework: Framework, reason: str) -> Finding:
    return Finding(
        name,
        "broken",
        f"{framework.python} does not answer ({reason})",
        f"tasks of {name} cannot run",
        f"unset {framework.interpreter_variable}, or set it to a Python interpreter",
    )


def _framework(name: str, framework: Framework, answers: Mapping[str, Mapping[str, str]]) -> Finding:
    answered = [(module, answers[module]) for module in framework.modules]
    absent = [module for module, each in answered if each["error"].startswith(f"{ABSENT} '{module.split('.')[0]}'")]
    if absent:
        found = f"{', '.join(absent)} not installed in {framework.python}"
        return Finding(name, "absent", found, f"tasks of {name} cannot run", framework.how_to_install)
    broken = [f"{module}: {each['error']}" for module, each in answered if each["error"]]
    if broken:
        return Finding(name, "broken", "; ".join(broken), f"tasks of {name} cannot run", framework.how_to_install)
    named = ", ".join(f"{each['package'] or module} {each['version']}" for module, each in answered)
    return Finding(name, "ok", f"{named} in {framework.python}")


def _operators(whole: str, compiled: Mapping[str, str]) -> Finding:
    subject = f"{whole} operators"
    if not compiled["error"]:
        return Finding(subject, "ok", "compiled")
    if not compiled["error"].startswith(("ModuleNotFoundError", "ImportError: cannot import name")):
        return Finding(
            subject,
            "broken",
            f"built for other versions ({compiled['error']})",
            "the framework fails at its first operator",
            "uninstall it and build it again with this torch; without compiled operators those of torchvision are used",
        )
    if whole == "mmcv":
        return Finding(subject, "ok", "not compiled; torchvision's nms and roi_align serve all protocols")
    return Finding(
        subject,
        "note",
        "not compiled",
        "certificates work; rotated boxes and deformable convolutions do not",
        NEED_DETECTRON2,
    )


DATA_EFFECT = "tasks and recipes on this dataset are unavailable"
BUNDLED_NEED = ("animal_shape_mnist", "skimage")
"""Packages that bundled datasets are made with."""
SAMPLES = 3
"""Images that are decoded per dataset."""


@runtime_checkable
class Fetched(Protocol):
    """A dataset that the user downloads, as the catalogue or the layouts describe it."""

    @property
    def folder(self) -> str:
        """Below `$CGH_DATA`."""
        ...

    @property
    def how(self) -> str:
        """How to get it there."""
        ...


def subject(name: str) -> str:
    """The subject of findings about a dataset."""
    return f"data {name}"


def check_data(names: Iterable[str], cache: Path, thoroughly: bool) -> list[Finding]:
    """One finding per dataset; with `thoroughly`, all files are counted and some are decoded."""
    return [whole(name, cache) if thoroughly else present(name) for name in names]


def present(name: str) -> Finding:
    """Whether the folder of the dataset exists."""
    entry = _entry(name)
    fetched = entry if isinstance(entry, Fetched) else None
    if entry is not None and fetched is None:
        if absent := [package for package in BUNDLED_NEED if find_spec(package) is None]:
            install = f"{sys.executable} -m pip install 'cgh-bench[demo]'"
            return Finding(subject(name), "absent", f"{', '.join(absent)} not installed", DATA_EFFECT, install)
        return Finding(subject(name), "ok", "bundled: made on this machine when needed")
    folder = data.data_root() / (fetched.folder if fetched else name)
    if folder.is_dir():
        return Finding(subject(name), "ok", f"{folder} (exists; cgh-bench doctor --data checks its files)")
    own = f"put train/<class>/* and val/<class>/* into {folder}, or link it: ln -s /your/{name} {folder}"
    return Finding(subject(name), "absent", f"{folder} not found", DATA_EFFECT, _typed(fetched.how if fetched else own))


def whole(name: str, cache: Path) -> Finding:
    """Whether the dataset has the expected layout and number of files, and a sample can be decoded."""
    found_at_all = present(name)
    if found_at_all.prevents:
        return found_at_all
    try:
        found = _scenes(name, cache) if _is_dense(name) else _labelled(name)
    except UserError as error:
        reason, _, how = str(error).rpartition("; ")
        return Finding(subject(name), "broken", reason or how, DATA_EFFECT, _typed(how))
    return Finding(subject(name), "ok", found)


def _labelled(name: str) -> str:
    parts = []
    for split in ("train", "val"):
        images = data.load(name, split)
        for index in {0, len(images) // 2, len(images) - 1}:
            images.image(index)
        parts.append(f"{len(images):,} {split} images of {len(images.classes)} classes")
    return f"{', '.join(parts)}; a sample of each can be decoded"


def _scenes(name: str, cache: Path) -> str:
    located = dense.locate(name, cache)
    entry = _entry(name)
    folder = located.root / (entry.folder if isinstance(entry, Fetched) else name)
    for path in itertools.islice(_images(folder), SAMPLES):
        read_image(path)
    return f"{folder}: layout and file counts are right, a sample can be decoded (fingerprint {located.fingerprint})"


def _images(folder: Path) -> Iterator[Path]:
    """One image per folder."""
    for above, _, files in os.walk(folder):
        yield from (Path(above, file) for file in sorted(files)[:1] if file.lower().endswith(SUFFIXES))


def _is_dense(name: str) -> bool:
    entry = data.catalog().get(name)
    return name in dense.layouts() or (entry is not None and entry.kind == "detection")


def _entry(name: str) -> object:
    return dense.layouts().get(name) or data.catalog().get(name)


def _typed(remedy: str) -> str:
    """The remedy with the folder in place of $CGH_DATA, which may not be set."""
    return remedy.replace("$CGH_DATA", str(data.data_root()))
