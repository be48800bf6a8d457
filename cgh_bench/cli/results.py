"""Verbs on the result store."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgh_bench.cli.options import HERE, Work

if TYPE_CHECKING:
    from cgh_bench.results import Result

verbs = typer.Typer()
group = typer.Typer(help="Look at the result store, join several, export it, import what other tools measured.")
verbs.add_typer(group, name="results")

Task = Annotated[str, typer.Option(help="Only of this task.")]
Protocol = Annotated[str, typer.Option(help="Only under this protocol id.")]
Ckpt = Annotated[str, typer.Option(help="Only of checkpoints with this in their name, or with this id.")]
Method = Annotated[str, typer.Option(help="Only of recipes with this in their name.")]


@group.command("list")
def list_(task: Task = "", protocol: Protocol = "", ckpt: Ckpt = "", method: Method = "", work: Work = HERE) -> None:
    """A line for every result, with its number.

    \b
    Examples:
      cgh-bench results list
      cgh-bench results list --task animals_knn --method cgh
    """
    from cgh_bench.report.terminal import show_results
    from cgh_bench.results import select

    show_results(select(_read(work), task, protocol, ckpt, method))


@group.command()
def show(
    number: Annotated[int, typer.Argument(min=1, help="As `cgh-bench results list` has it.")], work: Work = HERE
) -> None:
    """Everything that is known of one result: weights, protocol and every setting, data, seed, code, versions.

    \b
    Example:
      cgh-bench results show 17
    """
    from cgh_bench.core.errors import UserError
    from cgh_bench.results import export_json

    records = _read(work)
    if number > len(records):
        raise UserError(f"no result {number}; {work} holds {len(records)}: `cgh-bench results list` shows them")
    print(export_json(records[number - 1 : number]), end="")


@group.command()
def merge(
    stores: Annotated[list[Path], typer.Argument(help="Other result stores: files, or the folders that hold them.")],
    work: Work = HERE,
) -> None:
    """Append the results of other stores to WORK/results.jsonl, each once.

    \b
    Example:
      cgh-bench results merge /mnt/gpu1/work /mnt/gpu2/work
    """
    from cgh_bench import results
    from cgh_bench.core.errors import UserError
    from cgh_bench.workspace import Workspace

    files = [Workspace(path).store if path.is_dir() else path for path in stores]
    if absent := [str(path) for path in files if not path.is_file()]:
        raise UserError(f"no result store {', '.join(absent)}; name a folder that was --work, or its results.jsonl")
    added, complaints = results.merge(files, Workspace(work).store)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    print(f"{added} results added to {Workspace(work).store}")


@group.command()
def export(
    format: Annotated[str, typer.Option(help="csv (a line a metric) or json (every field).")] = "csv",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file.  [default: standard output]")] = None,
    task: Task = "",
    protocol: Protocol = "",
    ckpt: Ckpt = "",
    method: Method = "",
    work: Work = HERE,
) -> None:
    """Write results for other programs.

    \b
    Examples:
      cgh-bench results export -o results.csv
      cgh-bench results export --format json --task animals_det
    """
    from cgh_bench import results
    from cgh_bench.core.errors import unknown
    from cgh_bench.core.files import write_text

    formats = {"csv": results.export_csv, "json": results.export_json}
    if format not in formats:
        raise unknown("export format", format, formats)
    text = formats[format](dict(results.select(_read(work), task, protocol, ckpt, method)).values())
    if out:
        write_text(out, text)
    else:
        print(text, end="")


@group.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that another tool left.")],
    tool: Annotated[str, typer.Option("--from", help="Which tool: `cgh-bench list importers`.")],
    ckpt: Annotated[str, typer.Option(help="Name of the checkpoint, as rows of tables have it.")],
    label: Annotated[str, typer.Option(help="Which evaluation, where the file holds several.")] = "",
    protocol: Annotated[str, typer.Option(help="The task whose protocol that run followed, if you vouch for it.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of that evaluation.")] = 0,
    work: Work = HERE,
) -> None:
    """Add what another tool measured, marked as imported; it fills no table unless you name its protocol.

    \b
    Examples:
      cgh-bench results import out/metrics.json --from detectron2 --ckpt moco_v2_200ep_pretrain --protocol coco_det
      cgh-bench results import results-imagenet.csv --from timm --ckpt resnet50 --label resnet50.a1_in1k
    """
    from cgh_bench import importers, results
    from cgh_bench.workspace import Workspace

    result = importers.read(importers.Import(file, tool, ckpt, label, protocol, seed))
    records = _read(work)
    if result in records:
        print(f"{file} is there already")
        return
    results.append(Workspace(work).store, result)
    figures = ", ".join(f"{name} {value:.2f}" for name, value in result.metrics.items())
    filling = f"under {result.protocol}" if protocol else "under no protocol: it fills no table"
    print(f"{figures} of {ckpt}, {filling}")


def _read(work: Path) -> "list[Result]":
    from cgh_bench import results
    from cgh_bench.workspace import Workspace

    records, complaints = results.read(Workspace(work).store)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return records
