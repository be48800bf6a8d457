"""Commands that fill tables and show results."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgh_bench.cli import options
from cgh_bench.cli.results import read_results
from cgh_bench.core.errors import printable

if TYPE_CHECKING:
    from cgh_bench.report.cells import Table
    from cgh_bench.report.definition import Definition


COMPARED = {"cgh_r18_animals": "CGH", "moco_v2_r18_animals": "MoCo v2"}
"""The recipes of the demo's last sentence, and their names."""


@click.command(cls=options.Command)
@options.seeds
@options.jobs
@options.work
def demo(seeds: int, jobs: int | None, work: Path) -> None:
    """Run everything end to end on the bundled synthetic images.

    Fills the table `demo` (pretraining, frozen evaluation, detection), converts CGH's backbone for mmdetection with
    proof, and writes the web site. Finished steps are reused.

    \b
    Examples:
      cgh-bench demo
      cgh-bench demo --seeds 3
    """
    from cgh_bench.report.control_runs import run_controls
    from cgh_bench.workspace import Workspace

    _fill("demo", range(seeds), (), None, work, jobs)
    controlled = run_controls(_chosen("demo", (), run=False), Workspace(work))
    _print(_fill("demo", range(0), (), None, work, jobs), "terminal")
    for line in [*controlled, _verdict(work), _conversion(work)]:
        print(line)
    _write_pages(None, work, work / "site")


@click.command(cls=options.Command)
@click.argument("table")
@options.flag("--run", help="Pretrain and evaluate missing cells first.")
@options.seeds
@click.option("--format", default="terminal", metavar="FORMAT", help="terminal, md, tex, csv or html.")
@options.flag("--check", help="Compare with the reference table; exit 1 if any cell disagrees.")
@options.rows_and_checkpoints
@options.jobs
@options.work
def table(
    table: str,
    run: bool,
    seeds: int,
    format: str,
    check: bool,
    rows: tuple[str, ...],
    checkpoints: Path | None,
    jobs: int | None,
    work: Path,
) -> None:
    """Print a table of measured and published results.

    TABLE is a name from `cgh-bench list tables`, or a .toml file. Measured results have their spread over seeds.

    \b
    Examples:
      cgh-bench table animals --run --seeds 3
      cgh-bench table animals --format tex
      cgh-bench table voc_det
    """
    filled = _fill(table, range(seeds if run else 0), rows, checkpoints, work, jobs)
    _print(filled, format)
    if check:
        _judge(filled)


@click.command(cls=options.Command)
@click.argument("table")
@options.seeds
@options.rows_and_checkpoints
@options.jobs
@options.dry_run
@options.work
def reproduce(
    table: str,
    seeds: int,
    rows: tuple[str, ...],
    checkpoints: Path | None,
    jobs: int | None,
    dry_run: bool,
    work: Path,
) -> None:
    """Run what is missing from a table and compare it with the reference.

    TABLE is a name from `cgh-bench list tables`, or a .toml file. The reference is the table shipped with the package,
    or else the published results with the known spread of their protocol. Prints reference, measured value, difference
    and verdict for each cell; exits 1 on a mismatch.

    \b
    Examples:
      cgh-bench reproduce animals --seeds 3 --dry-run
      cgh-bench reproduce animals --seeds 3
      cgh-bench reproduce coco_c4_1x --row "MoCo v2, 200 epochs" --checkpoints downloads
    """
    if dry_run:
        from cgh_bench import reproduce
        from cgh_bench.workspace import Workspace

        chosen = _chosen(table, rows, run=True)
        for line in reproduce.plan(chosen, range(seeds), Workspace(work), _below(checkpoints)):
            print(line)
        return
    _judge(_fill(table, range(seeds), rows, checkpoints, work, jobs))


@click.command(cls=options.Command)
@options.text("--protocol", metavar="PROTOCOL", help="Protocol name. Without --protocol and --method: list them.")
@options.text("--method", help="Method, by any of its names.")
def published(protocol: str, method: str) -> None:
    """Show published results with their sources.

    If sources disagree, all values are shown.

    \b
    Examples:
      cgh-bench published
      cgh-bench published --protocol voc_det --method "MoCo v2"
    """
    from cgh_bench.report.formats import show_published

    show_published(protocol, method)


@click.command(cls=options.Command)
@click.argument("table", required=False)
@click.option("--bundles", type=options.PATH, metavar="FOLDER", help="Verify and show the bundles (*.zip) in it.")
@click.option("--out", "-o", type=options.PATH, help="[default: WORK/site, or WORK/report/TABLE.html]")
@options.work
def report(table: str | None, bundles: Path | None, out: Path | None, work: Path) -> None:
    """Write a website of all results, or the page of one table.

    The pages open from disk and show tables, training curves, retrievals, detections and segmentations. --bundles
    builds a leaderboard from a folder of bundles (`results bundle`), each verified first.

    \b
    Examples:
      cgh-bench report -o site
      cgh-bench report --bundles leaderboard -o site
      cgh-bench report animals -o page.html
    """
    from cgh_bench.bundles import gather
    from cgh_bench.core.files import scratch

    with scratch() as folder:
        shown = folder if bundles else work
        if bundles:
            print(f"{len(gather(bundles, shown))} results verified")
        _write_pages(table, shown, out or (work / "report" / f"{table}.html" if table else work / "site"))


@click.command(cls=options.Command)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, metavar="N", help="Port (0: any free one).")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on.")
@options.work
def serve(port: int, host: str, work: Path) -> None:
    """Show the site in a browser while results come in.

    Read-only; runs until Ctrl-C.

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


def _verdict(work: Path) -> str:
    """Whether CGH is better than MoCo v2, in a sentence."""
    from cgh_bench import results
    from cgh_bench.report.comparison import compared
    from cgh_bench.report.sides import main_metric, sides
    from cgh_bench.workspace import Workspace

    records, _ = results.read(Workspace(work).store)
    ((first, second),) = sides(records, work, list(COMPARED), "animals_knn")
    found = compared(first, second, main_metric(first))
    return replace(found, names=(COMPARED[first.name], COMPARED[second.name])).sentence() + "."


def _conversion(work: Path) -> str:
    """CGH's backbone as mmdetection's own ResNet; its certificate in a sentence."""
    from cgh_bench.converters import convert
    from cgh_bench.reading.loading import load
    from cgh_bench.workspace import Workspace

    backbone = load(Workspace(work).pretraining("cgh_r18_animals", 0) / "backbone.safetensors")
    out = work / "converted" / "cgh_r18_animals.pth"
    return printable(convert.sentence({"out": out, **convert.convert(backbone, "mmdet", out)}))


def _print(filled: "Table", format: str) -> None:
    if format == "terminal":
        from rich.console import Console

        from cgh_bench.report.formats import rich_table

        Console().print(rich_table(filled))
    else:
        from cgh_bench.report import table

        print(table.render(filled, format))


def _write_pages(table: str | None, work: Path, out: Path) -> None:
    """The page of a table, or the site of all results."""
    from cgh_bench.site import page, site
    from cgh_bench.workspace import Workspace

    store = Workspace(work).store
    written = page.write(table, store, work, out) if table is not None else site.write(store, work, out)
    print(f"page: {written.resolve().as_uri()}")


def _chosen(name: str, rows: tuple[str, ...], run: bool) -> "Definition":
    """The table of these rows; to `run` it, all its recipes must exist."""
    from cgh_bench.core.registry import registered
    from cgh_bench.report import definition

    chosen = definition.choose(definition.load(name), rows)
    if run:
        definition.require_recipes(chosen, registered("cgh_bench.pretrain.methods", "RECIPES"))
    return chosen


def _below(checkpoints: Path | None) -> Path:
    return checkpoints or Path(os.environ.get("CGH_DATA", "data")) / "checkpoints"


def _fill(
    name: str, seeds: range, rows: tuple[str, ...], checkpoints: Path | None, work: Path, jobs: int | None
) -> "Table":
    """The table, after evaluating what is missing for each of the seeds."""
    from cgh_bench.report import table as tables

    chosen = _chosen(name, rows, run=bool(seeds))
    if seeds:
        from cgh_bench import reproduce
        from cgh_bench.core.device import pick_device
        from cgh_bench.workspace import Workspace

        jobs = jobs or ((os.cpu_count() or 1) if pick_device().type == "cpu" else 1)
        reproduce.run(chosen, seeds, Workspace(work), _below(checkpoints), jobs)
    return tables.fill(chosen, read_results(work))


def _judge(filled: "Table") -> None:
    from cgh_bench.report import check

    verdicts = check.judge(filled)
    print(check.markdown(verdicts))
    for note in filled.notes:
        print(note, file=sys.stderr)
    check.require(verdicts)
