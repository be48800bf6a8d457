"""The command `cgh-bench`. Commands import what they need when they run, so that help and usage errors are instant."""

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import click

from cgh_bench import __version__
from cgh_bench.cli import (
    checkpoints,
    comparing,
    data,
    doctor,
    evaluating,
    features,
    listing,
    pretraining,
    reporting,
    results,
)
from cgh_bench.cli.options import SETTINGS, Group
from cgh_bench.core.errors import CheckFailed, UserError, printable

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Full, not writable or broken: errors that a user can fix, even if the file is unknown."""


@click.group(cls=Group, context_settings=SETTINGS, epilog="Start with: cgh-bench demo")
@click.version_option(__version__, prog_name="cgh-bench", message="%(prog)s %(version)s")
def app() -> None:
    """Pretrain, convert, evaluate and compare vision backbones."""


for command in (
    reporting.demo,
    doctor.doctor,
    data.data,
    pretraining.pretrain,
    checkpoints.inspect,
    checkpoints.convert,
    checkpoints.reference,
    evaluating.eval_,
    evaluating.watch,
    evaluating.suite,
    features.features,
    reporting.table,
    reporting.reproduce,
    comparing.compare,
    comparing.explain,
    comparing.sensitivity,
    reporting.report,
    reporting.serve,
    results.results,
    reporting.published,
    listing.protocol,
    listing.list_,
):
    app.add_command(command)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it: for a terminal that has no ✓ and ×
    with errors_in_one_line():
        _interrupt_on([getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)])
        raise SystemExit(app(prog_name="cgh-bench", standalone_mode=False))


class _Terminated(KeyboardInterrupt):
    """Python 3.11 exits with -2 where KeyboardInterrupt itself, no subclass, passed through `exec` (dataclasses)."""


def _interrupt(*_: object) -> None:
    raise _Terminated


def _interrupt_on(numbers: Sequence[signal.Signals]) -> None:
    """Let these signals end the command in one line; not what is ignored already (nohup), not in child processes."""
    before = {number: signal.getsignal(number) for number in numbers}
    ours = {n: handler for n, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)}
    for number in ours:
        signal.signal(number, _interrupt)
    if hasattr(os, "register_at_fork"):  # Windows has neither
        os.register_at_fork(after_in_child=lambda: [signal.signal(n, handler) for n, handler in ours.items()])


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Report every error that a user can fix as one line on standard error, and exit with its code."""
    threading.excepthook = _report_from_thread
    try:
        yield
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        raise SystemExit(2) from None
    except click.ClickException as error:
        _stop("error", _usage(error), 2)
    except UserError as error:
        _stop("error", str(error), 2)
    except CheckFailed as error:
        _stop("check failed", str(error), 1)
    except (click.Abort, KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _stop("interrupted", "progress is saved; run the same command to resume", INTERRUPTED)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # "Caught … in DataLoader worker process" is told as it is
            raise
        reason = "a data-loader process was killed (usually out of memory)"
        _stop("error", f"{reason}; see `cgh-bench doctor`, then run the same command to resume", 2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in DISK_ERRORS:
            _stop("error", f"{error.strerror}{where}; fix it or choose another --work, then rerun to resume", 2)
        if not where:
            raise
        _stop("error", f"{error.strerror}{where}; fix it, or name another file or folder", 2)


def _report_from_thread(found: threading.ExceptHookArgs) -> None:
    """Report an error of a thread, but none of the disk: TensorBoard raises that again at its next write."""
    if not issubclass(found.exc_type, OSError):
        threading.__excepthook__(found)


def _usage(error: click.ClickException) -> str:
    """What is wrong with the command line, and the first example of the command."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    lines = [line.strip() for line in (context.command.help or "").splitlines()] if context else []
    example = next((line for line in lines if line.startswith("cgh-bench ")), "")
    return message[0].lower() + message[1:] + (f"; example: {example}" if example else "; see `cgh-bench --help`")


def _stop(label: str, message: str, code: int) -> None:
    """Say why, and exit."""
    click.secho(f"{label}: ", err=True, nl=False, fg="red", color=False if "NO_COLOR" in os.environ else None)
    click.echo(printable(message), err=True)
    sys.exit(code)
