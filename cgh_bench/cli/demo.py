"""The whole path in one verb."""

import typer

from cgh_bench.cli.options import HERE, Seeds, Work
from cgh_bench.cli.reporting import report, table

verbs = typer.Typer()


@verbs.command()
def demo(work: Work = HERE, seeds: Seeds = 1) -> None:
    """The whole path on real images: pretrain, convert, evaluate, the table and a web site.

    Uses the images that come with the installation; finished steps are reused.

    \b
    Examples:
      cgh-bench demo
      cgh-bench demo --seeds 3
    """
    table("animals", run=True, seeds=seeds, work=work)
    report(work=work)
