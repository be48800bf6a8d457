"""A process that ends with the one that started it: else it would go on in a folder that the next run takes over."""

import ctypes
import os
import signal
import sys

VARIABLE = "CGH_PARENT"
SET_SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2); it outlives exec, not fork


def follow() -> None:
    """Be killed when the parent dies, whatever of; to be called first.

    Only on Linux, and only where `CGH_PARENT` names a process that wants it: a run by hand may outlive its shell.
    """
    named = os.environ.get(VARIABLE)
    if named is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)
    try:
        os.kill(int(named), 0)
    except ProcessLookupError:  # it died before it could be followed
        raise SystemExit(f"process {named}, which started this one, is gone") from None


def lead() -> None:
    """Let those follow this process that follow its parent; to be called before it becomes a launcher of others."""
    if VARIABLE in os.environ:
        os.environ[VARIABLE] = str(os.getpid())
