"""Why a framework's process ended: its exit code, what it printed, and, where that does not say it, the end of that."""

import re
import signal

LINES = 10
"""Of a log's end that are shown."""
LAUNCHER = re.compile(r"^.*torch[./]distributed[./]elastic[./].*(?:closing signal|failed \(exitcode)", re.MULTILINE)
"""The first of torchrun's own lines, when one of its processes has failed and it ends the others."""


def told(code: int, log: str) -> tuple[str, list[str]]:
    """The cause in a line, and the last lines of the log where more than that is needed to understand it.

    Args:
        code: the exit code; negative where a signal ended the process.
        log: what the process printed in this run.
    """
    log, report = _without_launcher(log)
    of_a_child = re.search(r"Signal \d+ \((SIG\w+)\) received by PID", report)
    by_signal = signal.Signals(-code).name if code < 0 else of_a_child and of_a_child[1]
    if by_signal:
        return f"killed by {by_signal}, often for want of memory", _end(log)
    explained = _errors(log) or (code == 1 and "Traceback" not in log)  # `train.py` itself stopped with its last line
    return reason(log), [] if explained else _end(log)


def reason(log: str) -> str:
    """The line of a failed run's log that says why: the last that names an error, else the last with words."""
    return [*_end(log)[-1:], *_errors(log)][-1] if _end(log) else "it printed nothing"


def _without_launcher(log: str) -> tuple[str, str]:
    """The log without torchrun's own lines, and what these say of the process that failed first.

    The others it ends by a signal of its own; what they say of a neighbour that is gone is left out as well.
    """
    own = LAUNCHER.split(log, maxsplit=1)[0]
    _, found, report = log.rpartition("Root Cause")
    rank = re.search(r"rank +: (\d+)", report) if found else None
    first = f"[rank{rank[1]}]" if rank else "[rank"
    kept = [line for line in own.splitlines() if line.startswith(first) or not line.startswith("[rank")]
    return "\n".join(kept), report


def _errors(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if re.search(r"\b\w*(Error|Exception)\b\S*: \S", line)]


def _end(log: str) -> list[str]:
    """The last lines with words."""
    return [line.strip() for line in log.splitlines() if re.search(r"\w", line)][-LINES:]
