"""Checks of an installation: what is wrong, its effect and the command that fixes it, before a long run finds out.

This file and those that it imports at first need neither torch nor any other package that may be broken.
"""

from collections.abc import Iterable
from pathlib import Path

from cgh_bench.core.registry import registered
from cgh_bench.doctor import system
from cgh_bench.doctor.finding import Finding, Verdict, Work, judge


def examine(work: Path, thoroughly: bool = False) -> tuple[list[Finding], list[Verdict]]:
    """All findings, and one verdict per task and recipe.

    Args:
        work: the folder for outputs; nothing is left in it but, with `thoroughly`, the bundled datasets.
        thoroughly: check the datasets too: count the files, decode a sample. Takes as long as listing them.
    """
    found = system.all_checks(work)
    if any(finding.prevents and finding.subject in system.CORE for finding in found):
        # Without them no task can be imported, not even to list what there is.
        return found, judge([Work("anything", "any task or recipe")], found)
    from cgh_bench.doctor import needs

    questions = needs.ask_all()
    works, names = everything()
    found += needs.check_data(names, work / "cache", thoroughly)
    for question in questions:
        found += needs.check_frameworks(question)
    return found, judge(works, found)


def everything() -> tuple[list[Work], list[str]]:
    """Every recipe and task with what it needs, and the datasets that they name."""
    from cgh_bench.doctor.needs import subject

    works, names = [], []
    for name, kind, needed, data in _all():
        works.append(Work(kind, name, (*needed, *([subject(data)] if data else []))))
        names += [data] if data else []
    return works, list(dict.fromkeys(names))


def _all() -> Iterable[tuple[str, str, tuple[str, ...], str]]:
    """Name, kind, what it needs apart from data, and its data, for every recipe and task."""
    for name, recipe in registered("cgh_bench.pretrain.methods", "RECIPES").items():
        yield name, "pretrain", (), recipe.data
    for name, task in registered("cgh_bench.tasks", "TASKS").items():
        framework = getattr(task, "framework", "")
        yield name, framework or "frozen", ((framework, f"{framework} operators") if framework else ()), task.data
