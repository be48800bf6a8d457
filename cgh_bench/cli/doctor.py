"""The command that checks an installation."""

import json
from pathlib import Path

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import CheckFailed

MARKS = {"ok": "✓", "note": "!", "absent": "–", "broken": "✗"}


@click.command(cls=options.Command)
@options.flag("--data", help="Also check the datasets: count the files, decode a sample.")
@options.as_json
@options.work
def doctor(data: bool, as_json: bool, work: Path) -> None:
    """Check this installation and say how to fix it.

    Lists problems, their consequences and the command that fixes each; then what can run here and what cannot.
    Exits 1 if something must be fixed; missing optional parts are not errors.

    \b
    Examples:
      cgh-bench doctor
      cgh-bench doctor --data --json
    """
    from cgh_bench.doctor import examine
    from cgh_bench.doctor.finding import as_json as to_json
    from cgh_bench.doctor.finding import sentences

    findings, verdicts = examine(work, data)
    if as_json:
        print(json.dumps(to_json(findings, verdicts), indent=1))
    else:
        not_fetched = [f for f in findings if f.state == "absent" and f.subject.startswith("data ") and not data]
        for finding in (f for f in findings if f not in not_fetched):
            print(f"{MARKS[finding.state]} {finding.subject:20} {finding.found}")
            if finding.state != "ok":
                print(f"{'':22} effect: {finding.consequence}\n{'':22} fix: {finding.remedy}")
        if not_fetched:
            names = ", ".join(f.subject.removeprefix("data ") for f in not_fetched)
            print(f"{MARKS['absent']} {'datasets':20} not found: {names}")
            print(f"{'':22} effect: tasks on these datasets are unavailable")
            print(f"{'':22} fix: cgh-bench doctor --data says how to get each")
        print("", *sentences(verdicts, brief=not data), sep="\n")
    broken = [finding.subject for finding in findings if finding.state == "broken"]
    if broken:
        raise CheckFailed(f"fix first: {', '.join(broken)}")
