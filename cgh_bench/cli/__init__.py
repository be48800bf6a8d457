"""The command `cgh-bench`: one verb a step. Heavy packages are imported inside the verbs, so that help is instant."""

import errno
import os
import sys
from typing import Annotated

import typer

from cgh_bench import __version__
from cgh_bench.cli import (
    checkpoints,
    demo,
    doctor,
    evaluating,
    listing,
    pretraining,
    protocols,
    reporting,
    results,
    watching,
)
from cgh_bench.core.errors import CheckFailed, UserError

app = typer.Typer(
    help="Is this pretrained backbone any good, and is it better than the others?",
    epilog="Start with: cgh-bench demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for group in (demo, doctor, pretraining, checkpoints, evaluating, reporting, results, protocols, watching, listing):
    app.add_typer(group.verbs)

INTERRUPTED = 130
"""Exit code after Ctrl-C, which typer has made of it before it comes to `main`."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Full or not writable: what a user can mend."""


def main() -> None:
    """Run the command line; every error that a user can mend is one line and exit code 2."""
    try:
        app()
    except UserError as error:
        _stop(f"error: {error}", 2)
    except CheckFailed as error:
        _stop(f"check failed: {error}", 1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _stop("stopped; what was done is saved: the same command goes on from here", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        _stop("error: a loader process was killed, mostly for want of memory; see `cgh-bench doctor`, then go on", 2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _stop(f"error: {error.strerror}{where}; mend it or choose another --work; the same command goes on", 2)


def _stop(line: str, code: int) -> None:
    """Say why, and leave; names out of files may hold line ends, and escape sequences that command a terminal."""
    printable = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    print("".join(printable), file=sys.stderr)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cgh-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass
