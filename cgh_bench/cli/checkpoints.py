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

    CKPT is a file, a Hugging Face folder or the name of published weights (see `cgh-bench list checkpoints`). Printed
    are its origin, network and preprocessing, which tensors are used and which are not, and how every property that
    tensors do not determine is known. Exits 1 if it cannot be used or its outputs differ from the reference's.

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
@click.option("--out", "-o", type=options.PATH, help="Output file; for several checkpoints a folder.")
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
    with the configuration that the weights imply, and FILE.certificate.json: proof that the converted network computes
    the same. If it does not, nothing is written and the exit code is 1. With --reference the certificate begins at the
    outputs of the file's own model.

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
    """Compare what is read from a file with what its own model computes."""


@reference.command()
def script() -> None:
    """Print a Python script that records what a model computes.

    It needs torch and NumPy only. Run it where the model is; --reference then compares every layer, and names the
    cause where one differs.

    \b
    Example:
      cgh-bench reference script > reference.py
    """
    from cgh_bench.reading import reference_script

    print(Path(reference_script.__file__).read_text(encoding="utf-8"), end="")
