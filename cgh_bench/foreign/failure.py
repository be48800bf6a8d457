"""Why a framework's process ended: its exit code, what it printed, and, where that does not say it, the end of that."""

import re
import signal

LINES = 10
"""Of a log's end that are shown."""
LAUNCHER = re.compile(r"^.*torch[./]distributed[./]elastic[./].*(closing signal|failed \(exitcode)", re.MULTILINE)
"""The first of torchrun's own lines, when one of its processes has failed and it ends the others."""


def told(code: int, log: str) -> tuple[str, list[str]]:
    """The cause in a line, and the last lines of the log where more than that is needed to understand it.

    Args:
        code: the exit code; negative where a signal ended the process.
        log: what the process printed in this run.
    """
    by_signal = signal.Signals(-code).name if code < 0 else _signal_of_a_child(log)
    launched = LAUNCHER.search(log)
    log = log[: launched.start()] if launched else log
    if by_signal:
        return f"killed by {by_signal}, often for want of memory", _end(log)
    explained = _errors(log) or (code == 1 and "Traceback" not in log)  # `train.py` itself stopped with its last line
    return reason(log), [] if explained else _end(log)


def reason(log: str) -> str:
    """The line of a failed run's log that says why: the last that names an error, else the last with words."""
    return [*_end(log)[-1:], *_errors(log)][-1] if _end(log) else "it printed nothing"


def _signal_of_a_child(log: str) -> str:
    """As torchrun reports it of the first of its processes to fail; the others it ends by a signal of its own."""
    _, _, first = log.rpartition("Root Cause")
    found = re.findall(r"Signal \d+ \((SIG\w+)\) received by PID", first)
    return found[-1] if found else ""


def _errors(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if re.search(r"\b\w*(Error|Exception)\b\S*: \S", line)]


def _end(log: str) -> list[str]:
    """The last lines with words."""
    return [line.strip() for line in log.splitlines() if re.search(r"\w", line)][-LINES:]
