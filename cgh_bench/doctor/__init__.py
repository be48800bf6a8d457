"""What would go wrong on this machine, before it does: checks, what each means, and the command that mends it.

This file and those that it imports at first need neither torch nor any other package that may be broken.
"""

from collections.abc import Iterable
from pathlib import Path

from cgh_bench.core.registry import registered
from cgh_bench.doctor import machine, packages
from cgh_bench.doctor.finding import Finding
from cgh_bench.doctor.verdict import Verdict, Work, judge

__all__ = ["Finding", "Verdict", "examine"]


def examine(work: Path, thoroughly: bool = False) -> tuple[list[Finding], list[Verdict]]:
    """All findings, and a verdict for every task and recipe.

    Args:
        work: the folder that would be written to; nothing is left in it but, `thoroughly`, the embedded data sets.
        thoroughly: go through the data sets: count files, decode some. Takes as long as listing them does.
    """
    found = [*packages.all_checks(), *machine.all_checks(work)]
    if any(finding.prevents and finding.subject in packages.CORE for finding in found):
        # Without them nothing of ours can be imported, not even to ask what there is.
        return found, judge([Work("anything", "any task or recipe")], found)
    from cgh_bench.doctor import data_sets, others

    questions = others.ask_all()
    works, names = everything()
    found += data_sets.all_checks(names, work / "cache", thoroughly)
    for question in questions:
        found += others.findings(question)
    return found, judge(works, found)


def everything() -> tuple[list[Work], list[str]]:
    """Every recipe and task with what it needs, and the data sets that they name."""
    from cgh_bench.doctor.data_sets import subject

    works, names = [], []
    for name, kind, needed, data in _all():
        works.append(Work(kind, name, (*needed, *([subject(data)] if data else []))))
        names += [data] if data else []
    return works, list(dict.fromkeys(names))


def _all() -> Iterable[tuple[str, str, tuple[str, ...], str]]:
    """Name, kind, what it needs beside data, and data, of every recipe and task."""
    for name, recipe in registered("cgh_bench.pretrain.methods", "RECIPES").items():
        yield name, "pretrain", (), recipe.data
    for name, task in registered("cgh_bench.tasks", "TASKS").items():
        framework = getattr(task, "framework", "")
        yield name, framework or "frozen", ((framework, f"{framework} operators") if framework else ()), task.data
