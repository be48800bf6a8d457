"""The command that runs many tasks on a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import printable, unknown

if TYPE_CHECKING:
    from cgh_bench.results import Result


@click.command(cls=options.Command, options_metavar="--ckpt CKPT [OPTIONS]")
@click.argument("suite")
@click.option("--ckpt", multiple=True, required=True, metavar="CKPT", help="Checkpoint or pattern; may be repeated.")
@options.arch
@options.limits
@options.seeds
@click.option("--format", default="terminal", metavar="FORMAT", help="terminal, md or csv.")
@options.dry_run
@options.flag("--quiet", "-q", help="Show no progress.")
@options.work
def suite(
    suite: str,
    ckpt: tuple[str, ...],
    arch: str | None,
    seeds: int,
    format: str,
    dry_run: bool,
    quiet: bool,
    work: Path,
) -> None:
    """Evaluate checkpoints with many tasks, as one table.

    SUITE is a name from `cgh-bench list suites`, or a .toml file. Finished evaluations are reused; tasks whose data are
    missing are skipped and listed at the end. Intervals are over images, for these weights.

    \b
    Examples:
      cgh-bench suite embedded --ckpt random:resnet18
      cgh-bench suite frozen --ckpt timm/convnext_tiny.fb_in22k --ckpt moco_v2_800ep.pth.tar --dry-run
      cgh-bench suite vtab --ckpt dinov2_small.pth --format md
    """
    from cgh_bench.report import suite as tables

    if format not in tables.FORMATS:
        raise unknown("table format", format, tables.FORMATS)
    chosen, names = tables.load(suite), options.checkpoints(ckpt)
    from rich.console import Console

    from cgh_bench.core import dist
    from cgh_bench.core.progress import showing
    from cgh_bench.reading.loading import load
    from cgh_bench.report.formats import show_result
    from cgh_bench.suite import Runner
    from cgh_bench.workspace import Workspace

    log = Console(stderr=True, highlight=False, quiet=quiet)

    def show(result: "Result", reused: bool) -> None:
        show_result(result, reused=reused, console=log)

    runner = Runner(chosen, click.get_current_context().with_resource(Workspace(work).planning(dry_run)))
    with showing(not quiet), dist.process_group():
        for name in names:
            checkpoint = load(name, arch=arch)
            if dry_run:
                for line in runner.plan(checkpoint, seeds):
                    print(printable(line))
            else:
                runner.run(checkpoint, seeds, show)
    if dry_run:
        print("\n".join(map(printable, tables.notes(runner.filled))))
    else:
        print(tables.FORMATS[format](runner.filled), end="")
