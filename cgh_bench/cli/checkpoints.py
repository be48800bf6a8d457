"""Verbs that read checkpoints and write them for others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cgh_bench.cli.options import Branch, DryRun, Source, Trust
from cgh_bench.core.errors import CheckFailed

verbs = typer.Typer()


@verbs.command()
def inspect(
    ckpt: Annotated[Path, typer.Argument(help="A checkpoint file, or a Hugging Face folder.")],
    source: Source = None,
    branch: Branch = None,
    trust_pickle: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say what a checkpoint is: origin, network, preprocessing, what is used, whether it looks trained.

    \b
    Examples:
      cgh-bench inspect moco_v2_800ep.pth.tar
      cgh-bench inspect dino.pth --branch student --json
    """
    from rich.console import Console

    from cgh_bench.reading import inspection

    report = inspection.inspect(ckpt, source, branch, trust_pickle)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        Console(highlight=False).print(inspection.render(report))
    if report["problem"]:
        raise CheckFailed("the file cannot be used as it is")


@verbs.command()
def convert(
    ckpt: Annotated[list[str], typer.Argument(help="Checkpoints of any origin, or patterns of them.")],
    to: Annotated[str, typer.Option(help="A target from `cgh-bench list converters`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; for several inputs a folder.")] = None,
    source: Source = None,
    branch: Branch = None,
    trust_pickle: Trust = False,
    verify: Annotated[bool, typer.Option(help="Compare the outputs of source and target, stage by stage.")] = True,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificates as JSON.")] = False,
) -> None:
    """Write checkpoints for another framework, with its preprocessing, and prove it computes the same.

    Beside each file: the configuration that the weights imply, and FILE.certificate.json. Where the target computes
    something else, nothing is left in place and the exit code is 1.

    \b
    Examples:
      cgh-bench convert moco_v2_800ep.pth.tar --to mmdet -o moco_v2.pth
      cgh-bench convert 'runs/*/checkpoint.pth' --to detectron2 -o converted
      cgh-bench convert dino.pth --branch student --to huggingface --dry-run
    """
    from cgh_bench import conversion

    reading = conversion.Reading(source, branch, trust_pickle)
    planned = conversion.plan(ckpt, to, out)
    if dry_run:
        for line in conversion.preview(planned, to, reading):
            print(line)
        return
    for certificate in (certificates := conversion.run(planned, to, reading, verify)):
        if not as_json:
            print(conversion.sentence(certificate))
    if as_json:
        print(json.dumps(certificates, indent=1))
