"""Commands that read checkpoints and write them for other frameworks."""

import json
from pathlib import Path
from typing import Any

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import CheckFailed, printable


@click.command(cls=options.Command)
@click.argument("ckpt", metavar="CKPT")
@options.choices
@options.settings
@options.as_json
def inspect(ckpt: str, settings: tuple[str, ...], reference: Path | None, as_json: bool, **choices: Any) -> None:
    """Show what a checkpoint is and whether it looks trained.

    CKPT is a file, a Hugging Face folder or the name of published weights (see `cgh-bench list checkpoints`). Prints
    its origin, network, preprocessing, used and unused tensors, and the properties that tensors do not determine, with
    the evidence for each. Exits 1 if it cannot be used or its outputs differ from the reference.

    \b
    Examples:
      cgh-bench inspect moco_v2_800ep.pth.tar
      cgh-bench inspect dino.pth --branch student --json
      cgh-bench inspect byol_cifar.ckpt --set stem.padding=2
      cgh-bench inspect moco_v2_800ep.pth.tar --reference ref.npz
    """
    (name,) = options.checkpoints((ckpt,))
    from rich.console import Console

    from cgh_bench.reading import inspection

    report = inspection.inspect(name, reference, settings=settings, **choices)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        Console(highlight=False).print(inspection.render(report))
    if report["problem"]:
        raise CheckFailed("the file cannot be used as it is")


@click.command(cls=options.Command)
@click.argument("ckpt", metavar="CKPT…", nargs=-1, required=True)
@click.option("--to", required=True, metavar="TARGET", help="Target framework (`cgh-bench list converters`).")
@click.option("--out", "-o", type=options.PATH, help="Output file, or a folder for several checkpoints.")
@options.choices
@options.settings
@click.option("--verify/--no-verify", default=True, help="Compare the outputs of source and target, stage by stage.")
@options.dry_run
@options.as_json
def convert(
    ckpt: tuple[str, ...],
    to: str,
    out: Path | None,
    settings: tuple[str, ...],
    reference: Path | None,
    verify: bool,
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Convert checkpoints for another framework, with proof.

    CKPT is a file of any origin, a Hugging Face folder, a pattern, or the name of published weights. Each output comes
    with a matching configuration fragment and FILE.certificate.json, which proves that the converted network computes
    the same outputs. If it does not, nothing is written and the exit code is 1. With --reference, the certificate also
    covers the original model's outputs.

    \b
    Examples:
      cgh-bench convert moco_v2_800ep.pth.tar --to mmdet -o moco_v2.pth
      cgh-bench convert 'runs/*/checkpoint.pth' --to detectron2 -o converted
      cgh-bench convert dino.pth --branch student --to huggingface --dry-run
    """
    names = options.checkpoints(ckpt)
    from cgh_bench.converters import convert as conversion
    from cgh_bench.reading.loading import load, proven

    def read(name: str) -> conversion.Read:
        if reference is not None:
            return proven(name, reference, settings=settings, **choices)
        return load(name, settings=settings, **choices), None

    planned = conversion.plan(names, to, out)
    if dry_run:
        for line in conversion.preview(planned, to, read, verify):
            print(printable(line))
        return
    for certificate in (certificates := conversion.run(planned, to, read, verify)):
        if not as_json:
            print(printable(conversion.sentence(certificate)))
    if as_json:
        print(json.dumps(certificates, indent=1))


@click.group(cls=options.Group)
def reference() -> None:
    """Verify a checkpoint against its original model."""


@reference.command()
def script() -> None:
    """Print a Python script that records a model's outputs.

    It needs only torch and NumPy. Run it where the original model can be loaded. With --reference, `inspect`, `convert`
    and `eval` then compare every layer and name the likely cause of a difference.

    \b
    Example:
      cgh-bench reference script > reference.py
    """
    from cgh_bench.reading import reference_script

    print(Path(reference_script.__file__).read_text(encoding="utf-8"), end="")
