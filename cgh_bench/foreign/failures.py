"""Why a framework's process failed, from its exit code and its log."""

import re
import signal

LINES = 10
"""How many lines of the end of a log are shown."""
TORCHRUN = re.compile(r"^.*torch[./]distributed[./]elastic[./].*(?:closing signal|failed \(exitcode)", re.MULTILINE)
"""The first of torchrun's own lines, when one of its processes has failed and it ends the others."""


def explain(code: int, log: str) -> tuple[str, list[str]]:
    """Why a process failed, in one line, and the last lines of its log if they are needed to understand it.

    Args:
        code: the exit code; negative if a signal ended the process.
        log: what the process printed in this run.
    """
    log, report = _without_launcher(log)
    killed_child = re.search(r"Signal \d+ \((SIG\w+)\) received by PID", report)
    by_signal = signal.Signals(-code).name if code < 0 else killed_child and killed_child[1]
    if by_signal:
        return f"killed by {by_signal}, usually because memory ran out", _last_lines(log)
    explained = _errors(log) or (code == 1 and "Traceback" not in log)  # `train` itself stopped with its last line
    return reason(log), [] if explained else _last_lines(log)


def reason(log: str) -> str:
    """The line of a failed run's log that says why: the last one that names an error, else the last with words."""
    return [*_last_lines(log)[-1:], *_errors(log)][-1] if _last_lines(log) else "it printed nothing"


def _without_launcher(log: str) -> tuple[str, str]:
    """The log without torchrun's own lines, and what they report about the process that failed first.

    torchrun ends the other processes by a signal; what they print about the lost connection is left out as well.
    """
    own = TORCHRUN.split(log, maxsplit=1)[0]
    _, found, report = log.rpartition("Root Cause")
    rank = re.search(r"rank +: (\d+)", report) if found else None
    first = f"[rank{rank[1]}]" if rank else "[rank"
    kept = [line for line in own.splitlines() if line.startswith(first) or not line.startswith("[rank")]
    return "\n".join(kept), report


def _errors(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if re.search(r"\b\w*(Error|Exception)\b\S*: \S", line)]


def _last_lines(log: str) -> list[str]:
    """The last lines with words."""
    return [line.strip() for line in log.splitlines() if re.search(r"\w", line)][-LINES:]
