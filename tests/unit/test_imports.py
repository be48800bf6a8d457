"""Nothing fails at import where Python lacks what only POSIX has, as on Windows."""

import subprocess
import sys
from pathlib import Path

WITHOUT_POSIX = """
import importlib, pkgutil, signal, sys
for name in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
import cgh_bench
frameworks = ("cgh_bench.transfer_configs.detectron2", "cgh_bench.transfer_configs.openmmlab")
for found in pkgutil.walk_packages(cgh_bench.__path__, "cgh_bench."):
    if not found.name.startswith(frameworks) and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
        print(found.name)
"""


def test_every_module_can_be_imported_without_posix(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    assert done.stdout.count("\n") > 100
