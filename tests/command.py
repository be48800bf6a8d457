"""The command `cgh-bench` in this process: what a person types, without the seconds that a start of Python takes."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace

from cgh_bench import cli


def run(*arguments: str | Path, cwd: Path) -> SimpleNamespace:
    """Run the command in the folder `cwd`; its exit code and what it wrote, as `subprocess.run` returns them."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with cli.errors_in_one_line():
                code = cli.app([str(word) for word in arguments], prog_name="cgh-bench", standalone_mode=False)
        except SystemExit as stop:
            code = stop.code
    return SimpleNamespace(returncode=code or 0, stdout=out.getvalue(), stderr=err.getvalue())
