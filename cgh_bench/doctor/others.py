"""The frameworks that tasks run in, each asked in the interpreter that would run it."""

from collections.abc import Mapping
from dataclasses import dataclass

from cgh_bench.doctor.finding import Finding
from cgh_bench.doctor.interpreter import Asked, answer, ask
from cgh_bench.foreign.frameworks import FRAMEWORKS, Framework

COMPILED = {"mmcv": "mmcv._ext", "detectron2": "detectron2._C"}
"""Where a package keeps its compiled operators."""
ABSENT = "ModuleNotFoundError: No module named"
NEED_DETECTRON2 = (
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2 (a C++ compiler, minutes)"
)


@dataclass(frozen=True)
class Question:
    """An interpreter that was asked for all that the frameworks in it need."""

    frameworks: Mapping[str, Framework]
    asked: Asked


def ask_all() -> list[Question]:
    """Ask every interpreter at once."""
    together: dict[tuple[str, str], dict[str, Framework]] = {}
    for name, framework in FRAMEWORKS.items():
        together.setdefault((framework.python, framework.folder), {})[name] = framework
    return [
        Question(group, ask(python, _modules(group), next(iter(group.values())).environment))
        for (python, _), group in together.items()
    ]


def findings(question: Question) -> list[Finding]:
    """A finding for each framework that was asked for, and one for the operators behind them."""
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
        f"no task of {name} can run",
        f"unset {framework.interpreter_variable}, or name a Python interpreter in it",
    )


def _framework(name: str, framework: Framework, answers: Mapping[str, Mapping[str, str]]) -> Finding:
    told = [(module, answers[module]) for module in framework.modules]
    absent = [module for module, each in told if each["error"].startswith(f"{ABSENT} '{module.split('.')[0]}'")]
    if absent:
        found = f"no {', '.join(absent)} in {framework.python}"
        return Finding(name, "absent", found, f"no task of {name} can run", framework.how_to_install)
    broken = [f"{module}: {each['error']}" for module, each in told if each["error"]]
    if broken:
        return Finding(name, "broken", "; ".join(broken), f"no task of {name} can run", framework.how_to_install)
    named = ", ".join(f"{each['package'] or module} {each['version']}" for module, each in told)
    return Finding(name, "ok", f"{named} in {framework.python}")


def _operators(whole: str, compiled: Mapping[str, str]) -> Finding:
    subject = f"{whole} operators"
    if not compiled["error"]:
        return Finding(subject, "ok", "compiled")
    if not compiled["error"].startswith(("ModuleNotFoundError", "ImportError: cannot import name")):
        return Finding(
            subject,
            "broken",
            f"compiled for other versions ({compiled['error']})",
            "the framework stops at its first operator",
            "pip uninstall and install it again with this torch; without a compiled part torchvision's serve",
        )
    if whole == "mmcv":
        return Finding(subject, "ok", "not compiled; nms and roi_align through torchvision, all that the protocols use")
    return Finding(
        subject,
        "note",
        "not compiled",
        "conversion certificates work; rotated boxes and deformable convolutions do not",
        NEED_DETECTRON2,
    )
