"""Verbs that show results."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cgh_bench.cli.options import HERE, Seeds, Work

verbs = typer.Typer()


@verbs.command()
def table(
    name: Annotated[str, typer.Argument(help="A name from `cgh-bench list tables`, or a .toml file.")],
    run: Annotated[bool, typer.Option("--run", help="First pretrain and evaluate what is missing.")] = False,
    seeds: Seeds = 1,
    format: Annotated[str, typer.Option(help="terminal, md, tex or csv.")] = "terminal",
    check: Annotated[bool, typer.Option("--check", help="Then judge it by its reference; exit 1 if it fails.")] = False,
    work: Work = HERE,
) -> None:
    """Print a table of the results, with spread over seeds, published figures beside measured ones.

    \b
    Examples:
      cgh-bench table animals --run --seeds 3
      cgh-bench table animals --format tex
      cgh-bench table voc_det
    """
    from cgh_bench import reproduce, results
    from cgh_bench.discovery import registered
    from cgh_bench.evaluate import Workspace
    from cgh_bench.report import check as checks
    from cgh_bench.report import definition
    from cgh_bench.report import table as tables

    workspace = Workspace(work)
    definition_ = definition.load(name)
    if run:
        definition.require_recipes(definition_, registered("pretrain.methods", "RECIPES"))
        reproduce.run(definition_, range(seeds), workspace, _pretrain)
    records, complaints = results.read(workspace.store)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    filled = tables.build(name, records)
    if format == "terminal":
        from rich.console import Console

        from cgh_bench.report.formats import rich_table

        Console().print(rich_table(filled))
    else:
        print(tables.render(filled, format))
    if check:
        verdicts = checks.judge(filled)
        print(checks.markdown(verdicts))
        checks.require(verdicts)


def _pretrain(recipe: str, seed: int, folder: Path) -> Path:
    """The one place where the evaluating package uses the training one."""
    from dataclasses import replace

    from pretrain.recipe import find
    from pretrain.train import train

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
    from cgh_bench.evaluate import Workspace
    from cgh_bench.report import page, site

    workspace = Workspace(work)
    if name:
        written = page.write(name, workspace.store, workspace.root, out or work / "report" / f"{name}.html")
    else:
        written = site.write(workspace.store, workspace.root, out or work / "site")
    print(f"page: {written.resolve().as_uri()}")
