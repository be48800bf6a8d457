"""Verbs that show results."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgh_bench.cli.options import HERE, DryRun, Seeds, Work

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.report.cells import Table
    from cgh_bench.report.definition import Definition

verbs = typer.Typer()


Name = Annotated[str, typer.Argument(help="A name from `cgh-bench list tables`, or a .toml file.")]
Rows = Annotated[list[str] | None, typer.Option("--row", help="Only the row of this label; may be repeated.")]
Checkpoints = Annotated[
    Path | None, typer.Option(help="Where the files are that rows name.  [default: $CGH_DATA/checkpoints]")
]


@verbs.command()
def table(
    name: Name,
    run: Annotated[bool, typer.Option("--run", help="First pretrain and evaluate what is missing.")] = False,
    seeds: Seeds = 1,
    format: Annotated[str, typer.Option(help="terminal, md, tex, csv or html.")] = "terminal",
    check: Annotated[bool, typer.Option("--check", help="Then judge it by its reference; exit 1 if it fails.")] = False,
    rows: Rows = None,
    checkpoints: Checkpoints = None,
    work: Work = HERE,
) -> None:
    """Print a table of the results, with spread over seeds, published figures beside measured ones.

    \b
    Examples:
      cgh-bench table animals --run --seeds 3
      cgh-bench table animals --format tex
      cgh-bench table voc_det
    """
    from cgh_bench.report import table as tables

    filled = _fill(name, range(seeds if run else 0), rows, checkpoints, work)
    if format == "terminal":
        from rich.console import Console

        from cgh_bench.report.formats import rich_table

        Console().print(rich_table(filled))
    else:
        print(tables.render(filled, format))
    if check:
        _judge(filled)


@verbs.command()
def reproduce(
    name: Name,
    seeds: Seeds = 1,
    rows: Rows = None,
    checkpoints: Checkpoints = None,
    dry_run: DryRun = False,
    work: Work = HERE,
) -> None:
    """Evaluate what a table lacks, and judge it: reference, measured, difference, verdict; exit 1 if it fails.

    The reference is the table that comes with the package, else the published figures with the spread that is known
    of their protocol.

    \b
    Examples:
      cgh-bench reproduce animals --seeds 3 --dry-run
      cgh-bench reproduce animals --seeds 3
      cgh-bench reproduce coco_c4_1x --row "MoCo v2, 200 epochs" --checkpoints ~/downloads
    """
    if dry_run:
        from cgh_bench import reproduce
        from cgh_bench.workspace import Workspace

        chosen = _chosen(name, rows, run=True)
        for line in reproduce.plan(chosen, range(seeds), Workspace(work), _foresee, _below(checkpoints)):
            print(line)
        return
    _judge(_fill(name, range(seeds), rows, checkpoints, work))


def _chosen(name: str, rows: list[str] | None, run: bool) -> "Definition":
    """The table of these rows; to `run` it, all its recipes must exist."""
    from cgh_bench.core.registry import registered
    from cgh_bench.report import definition

    chosen = definition.choose(definition.load(name), rows or ())
    if run:
        definition.require_recipes(chosen, registered("cgh_bench.pretrain.methods", "RECIPES"))
    return chosen


def _below(checkpoints: Path | None) -> Path:
    return checkpoints or Path(os.environ.get("CGH_DATA", "data")) / "checkpoints"


def _fill(name: str, seeds: range, rows: list[str] | None, checkpoints: Path | None, work: Path) -> "Table":
    """The table, after evaluating what is missing for each of the seeds."""
    from cgh_bench import reproduce, results
    from cgh_bench.report import table as tables
    from cgh_bench.workspace import Workspace

    workspace = Workspace(work)
    chosen = _chosen(name, rows, run=bool(seeds))
    if seeds:
        reproduce.run(chosen, seeds, workspace, reproduce.Weights(_pretrain, _below(checkpoints)))
    records, complaints = results.read(workspace.store)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return tables.fill(chosen, records)


def _judge(filled: "Table") -> None:
    from cgh_bench.report import check

    verdicts = check.judge(filled)
    print(check.markdown(verdicts))
    for note in filled.notes:
        print(note, file=sys.stderr)
    check.require(verdicts)


def _foresee(recipe: str, seed: int, folder: Path) -> "tuple[Checkpoint, bool]":
    """The trunk that a run has trained, or one as it begins with."""
    from cgh_bench.checkpoint import Checkpoint, Origin
    from cgh_bench.pretrain.folder import RunFolder
    from cgh_bench.pretrain.recipe import find
    from cgh_bench.reading.loading import load

    trained = RunFolder(folder).weights
    if trained.exists():
        return load(trained), True
    chosen = find(recipe)
    weights = chosen.architecture.build().state_dict()
    return Checkpoint(recipe, chosen.architecture, weights, chosen.preprocessing, Origin("random", seed=seed)), False


def _pretrain(recipe: str, seed: int, folder: Path) -> Path:
    """With `_foresee` the one place where the evaluating package uses the training one."""
    from dataclasses import replace

    from cgh_bench.pretrain.recipe import find
    from cgh_bench.pretrain.train import train

    return train(replace(find(recipe), seed=seed), recipe, folder)


@verbs.command()
def published(
    protocol: Annotated[str, typer.Option(help="A protocol; without one, and without a method: what there is.")] = "",
    method: Annotated[str, typer.Option(help="A method, by any name that is used for it.")] = "",
) -> None:
    """Figures that others published, with their sources, and where sources disagree.

    \b
    Examples:
      cgh-bench published
      cgh-bench published --protocol voc_det --method "MoCo v2"
    """
    from cgh_bench.report.terminal import show_published

    show_published(protocol, method)


@verbs.command()
def report(
    name: Annotated[str | None, typer.Argument(help="A table: one page of it. Without: a site of all results.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: WORK/report/NAME.html, WORK/site]")] = None,
    work: Work = HERE,
) -> None:
    """Write web pages that open from disk: tables, training curves, retrievals, detections, segmentations.

    \b
    Examples:
      cgh-bench report animals -o page.html
      cgh-bench report -o site
    """
    from cgh_bench.site import page, site
    from cgh_bench.workspace import Workspace

    workspace = Workspace(work)
    if name:
        written = page.write(name, workspace.store, workspace.root, out or work / "report" / f"{name}.html")
    else:
        written = site.write(workspace.store, workspace.root, out or work / "site")
    print(f"page: {written.resolve().as_uri()}")


@verbs.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on; only this machine by default.")] = "127.0.0.1",
    work: Work = HERE,
) -> None:
    """Show the site in a browser while results come in; read-only, until Ctrl-C.

    \b
    Examples:
      cgh-bench serve
      cgh-bench serve --port 9000 --work /mnt/runs/work
    """
    from cgh_bench.site.server import serving
    from cgh_bench.workspace import Workspace

    workspace = Workspace(work)
    with serving(workspace.store, workspace.root, host, port) as server:
        print(f"http://{host}:{server.server_address[1]}/ shows {workspace.store}; Ctrl-C stops", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
