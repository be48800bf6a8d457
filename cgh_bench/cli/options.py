"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

HERE = Path("work")

Work = Annotated[Path, typer.Option(envvar="CGH_WORK", help="The folder that everything is written to.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; may be repeated.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Repeat with the seeds 0 to N-1.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")]
Slurm = Annotated[str, typer.Option(metavar="KEY=VALUE,…", help="Queue it instead, with --gpus; submitit's options.")]
Source = Annotated[str | None, typer.Option(help="Read it as this origin (`cgh-bench list sources`).")]
Branch = Annotated[str | None, typer.Option(help="Which trunk of a file that has several: student, teacher, ….")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="Let a pickled file run the code that it names.")]
