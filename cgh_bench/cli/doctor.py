"""The verb that says what is wrong with an installation."""

import json
from typing import Annotated

import typer

from cgh_bench.cli.options import HERE, Work
from cgh_bench.core.errors import CheckFailed

verbs = typer.Typer()

MARKS = {"ok": "✓", "note": "!", "absent": "–", "broken": "✗"}


@verbs.command()
def doctor(
    data: Annotated[
        bool, typer.Option("--data", help="Go through the data sets too: count files, decode some.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    work: Work = HERE,
) -> None:
    """Say what is wrong here, what follows from it and the command that mends it; then what can run and what cannot.

    Exit code 1 where something must be mended; what is optional and absent is no fault.

    \b
    Examples:
      cgh-bench doctor
      cgh-bench doctor --data --json
    """
    from cgh_bench.doctor import examine
    from cgh_bench.doctor.verdict import as_json as to_json
    from cgh_bench.doctor.verdict import sentences

    findings, verdicts = examine(work, data)
    if as_json:
        print(json.dumps(to_json(findings, verdicts), indent=1))
    else:
        not_fetched = [f for f in findings if f.state == "absent" and f.subject.startswith("data ") and not data]
        for finding in (f for f in findings if f not in not_fetched):
            print(f"{MARKS[finding.state]} {finding.subject:20} {finding.found}")
            if finding.state != "ok":
                print(f"{'':22} so: {finding.consequence}\n{'':22} do: {finding.remedy}")
        if not_fetched:
            names = ", ".join(f.subject.removeprefix("data ") for f in not_fetched)
            print(f"{MARKS['absent']} {'data sets':20} not there: {names}")
            print(f"{'':22} do: cgh-bench doctor --data says how to get each")
        print("", *sentences(verdicts, brief=not data), sep="\n")
    broken = [finding.subject for finding in findings if finding.state == "broken"]
    if broken:
        raise CheckFailed(f"to be mended: {', '.join(broken)}")
