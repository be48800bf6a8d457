"""The verb that says what there is."""

from typing import Annotated, Any

import typer

from cgh_bench.core.errors import unknown

verbs = typer.Typer()


LISTS = ("tasks", "recipes", "converters", "sources", "data", "tables", "importers")


@verbs.command("list")
def list_(kind: Annotated[str, typer.Argument(help=", ".join(LISTS))]) -> None:
    """What there is, a line each.

    \b
    Example:
      cgh-bench list tasks
    """
    if kind not in LISTS:
        raise unknown("list", kind, LISTS)
    entries = _entries(kind)
    width = max(map(len, entries))
    for name, description in entries.items():
        print(f"{name:{width}}  {description}")


def _entries(kind: str) -> dict[str, str]:
    from cgh_bench import evaluate
    from cgh_bench.core.registry import registered
    from cgh_bench.data import catalog
    from cgh_bench.report import definition

    entries: dict[str, Any]
    if kind == "tasks":
        entries = registered("cgh_bench.tasks", "TASKS")
        return {
            name: f"{evaluate.protocol_id(name, task)} on {task.data or 'your --data'}: {_summary(task)}"
            for name, task in entries.items()
        }
    if kind == "recipes":
        return {
            name: f"{r.architecture.name} on {r.data}, {r.epochs} epochs, batches of {r.batch_size}"
            for name, r in registered("cgh_bench.pretrain.methods", "RECIPES").items()
        }
    if kind == "data":
        return {name: entry.description for name, entry in catalog().items()}
    if kind == "tables":
        return {name: definition.load(name).title for name in definition.names()}
    if kind == "converters":
        return {name: _summary(entry) for name, entry in registered("cgh_bench.converters", "CONVERTERS").items()}
    from cgh_bench.importers import IMPORTERS
    from cgh_bench.reading.readers import READERS

    entries = dict(IMPORTERS if kind == "importers" else READERS)
    return {name: entry.description for name, entry in entries.items()}


def _summary(entry: object) -> str:
    return (type(entry).__doc__ or "").splitlines()[0]
