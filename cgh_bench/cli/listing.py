"""Commands that list what is available and show protocols."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cgh_bench.cli import options
from cgh_bench.core import registry
from cgh_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    from cgh_bench.backbones import Architecture


@click.command("list", cls=options.Command)
@click.argument("kind")
def list_(kind: str) -> None:
    """List tasks, recipes, backbones, datasets, tables, …

    \b
    KIND is one of
      tasks        evaluations, for `eval`
      recipes      pretraining runs, for `pretrain`
      backbones    families of networks
      archs        every network, for random:ARCH
      checkpoints  how to name a checkpoint
      sources      tools whose checkpoints are recognised
      converters   targets of `convert`
      data         datasets known by name
      tables       for `table` and `reproduce`
      suites       for `suite`
      importers    tools whose results can be imported

    \b
    Example:
      cgh-bench list tasks
    """
    if kind not in LISTS:
        raise unknown("list", kind, LISTS)
    entries = LISTS[kind]()
    width = max(map(len, entries))
    for name, description in entries.items():
        print(f"{name:{width}}  {description}")
    for sentence in registry.broken(PACKAGES[kind]) if kind in PACKAGES else ():
        click.echo(f"warning: {sentence}", err=True)


def _tasks() -> dict[str, str]:
    from cgh_bench.evaluation import protocol_id

    lines = {}
    for name, task in registry.registered("cgh_bench.tasks", "TASKS").items():
        try:
            fingerprint = protocol_id(name, task).removeprefix(name)
            lines[name] = f"{fingerprint} on {task.data or 'your --data'}: {_summary(task)}"
        except UserError as error:  # a broken protocol file is no reason to hide the other tasks
            lines[name] = f"unusable: {error}"
    return lines


def _recipes() -> dict[str, str]:
    return {
        name: f"{r.architecture.name} on {r.data}, {r.epochs} epochs, batch size {r.batch_size}"
        for name, r in registry.registered("cgh_bench.pretrain.methods", "RECIPES").items()
    }


def _backbones() -> dict[str, str]:
    from cgh_bench.backbones import families

    lines = {}
    for family, kind in families().items():
        lines[family] = (kind.__doc__ or "").splitlines()[0]
        if not kind.GENERIC:  # what those build is known to their libraries, which take seconds to import
            names = list(kind.names())
            lines[family] += f" {len(names)}, such as {', '.join(names[:3])}."
        lines[family] += f" Supports: {', '.join(_offered(kind))}"
    return lines


def _offered(family: type["Architecture"]) -> list[str]:
    """What can be done with the networks of `family`; all of them are evaluated frozen, and fine-tuned."""
    converters = registry.registered("cgh_bench.converters", "CONVERTERS")
    targets = [name for name, converter in converters.items() if converter.takes(family)]
    dense = [f"{use} ({family.IN_DETECTORS})" for use in ("detection", "segmentation") if family.IN_DETECTORS]
    return ["frozen", "fine-tuning", *dense, *(f"to {target}" for target in targets)]


def _archs() -> dict[str, str]:
    from cgh_bench.backbones import families

    first = reversed(families().items())  # of several families with a name, the first has it
    return {name: family for family, kind in first for name in kind.names()}


def _converters() -> dict[str, str]:
    return {name: _summary(entry) for name, entry in registry.registered("cgh_bench.converters", "CONVERTERS").items()}


def _checkpoints() -> dict[str, str]:
    from cgh_bench.reading.names import FORMS

    return FORMS


def _sources() -> dict[str, str]:
    from cgh_bench.reading.readers import READERS

    return {name: reader.description for name, reader in READERS.items()}


def _data() -> dict[str, str]:
    from cgh_bench.data import catalog

    return {name: entry.description for name, entry in catalog().items()}


def _tables() -> dict[str, str]:
    from cgh_bench.report import definition

    return {name: definition.load(name).title for name in definition.names()}


def _suites() -> dict[str, str]:
    from cgh_bench.report import definition, suite

    return {name: suite.load(name).title for name in definition.names(suite.SUITES)}


def _importers() -> dict[str, str]:
    from cgh_bench.importers import IMPORTERS

    return {name: importer.description for name, importer in IMPORTERS.items()}


def _summary(entry: Any) -> str:
    return (type(entry).__doc__ or "").splitlines()[0]


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "tasks": _tasks,
    "recipes": _recipes,
    "backbones": _backbones,
    "archs": _archs,
    "converters": _converters,
    "checkpoints": _checkpoints,
    "sources": _sources,
    "data": _data,
    "tables": _tables,
    "suites": _suites,
    "importers": _importers,
}


PACKAGES = {
    "tasks": "cgh_bench.tasks",
    "recipes": "cgh_bench.pretrain.methods",
    "backbones": "cgh_bench.backbones",
    "archs": "cgh_bench.backbones",
    "converters": "cgh_bench.converters",
    "data": "cgh_bench.data",
}
"""Where the entries of a list are registered."""


@click.group(cls=options.Group)
def protocol() -> None:
    """Show or compare detection and segmentation protocols."""


@protocol.command()
@click.argument("task")
@options.text("--framework", help="mmdet or detectron2.  [default: the task's own]")
def show(task: str, framework: str) -> None:
    """Show the effective settings of a protocol.

    Builds network and solver of TASK, a detection or segmentation task, in its framework and prints parameters, norms,
    learning rates, sizes and the metric.

    \b
    Example:
      cgh-bench protocol show coco_det --framework detectron2
    """
    from cgh_bench.tasks.transfer import facts

    for fact, value in facts(task, framework).items():
        print(f"{fact}: {value}")


@protocol.command()
@click.argument("task")
@click.option("--frameworks", default="detectron2,mmdet", metavar="NAME,NAME", help="Frameworks to compare.")
def diff(task: str, frameworks: str) -> None:
    """Compare a protocol's effective settings between frameworks.

    Builds network and solver of TASK in each framework and prints every difference.

    \b
    Example:
      cgh-bench protocol diff coco_det --frameworks detectron2,mmdet
    """
    from cgh_bench.tasks.transfer import differences, facts

    named = frameworks.split(",")
    if len(set(named)) < 2:
        raise UserError(f"--frameworks {frameworks}: expected two different frameworks, such as detectron2,mmdet")
    described = [facts(task, framework) for framework in named]
    found = differences(described)
    for fact, values in found.items():
        print(fact)
        for framework, value in zip(named, values, strict=True):
            print(f"    {framework:12} {value}")
    count = len({fact for one in described for fact in one})
    print(f"{task}: {len(found)} differences; {count - len(found)} settings are equal")
