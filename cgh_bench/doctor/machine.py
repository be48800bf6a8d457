"""What the machine gives: room, memory for loaders, open files, permission to write, the time."""

import datetime
import fcntl
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from cgh_bench.doctor.finding import Finding

GIGABYTE = 1024**3
ROOM_WANTED = 10 * GIGABYTE
"""A pretraining state of ResNet-50 is 0.3 GB, ImageNet's features of width 2,048 are 10.5 GB."""
SHARED_MEMORY_WANTED = 2 * GIGABYTE
"""Docker gives 64 MB; eight workers that hold two batches of 256 float images of 224 pixels each need 2.4 GB."""
OPEN_FILES_WANTED = 4096
SECONDS_OFF = 60.0
OLDEST_DATE = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
"""Before this version was written."""


def disk(work: Path) -> Finding:
    """Room in the work folder."""
    usage = shutil.disk_usage(_nearest(work))
    found = f"{usage.free / GIGABYTE:.0f} GB of {usage.total / GIGABYTE:.0f} GB free for {work}"
    if usage.free >= ROOM_WANTED:
        return Finding("disk", "ok", found)
    return Finding(
        "disk",
        "note",
        found,
        "a long run may stop for want of room; it then goes on from its last saved state",
        f"du -xhd2 {_nearest(work)} | sort -h | tail, and remove; or export CGH_WORK=/big/disk/work",
    )


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Shared memory, by which loader processes hand over images."""
    if not folder.is_dir():
        return Finding(
            "shared memory",
            "note",
            f"no {folder}",
            "loader processes cannot hand over images; folders of images and frameworks need them",
            f"mount -t tmpfs -o size=8g tmpfs {folder}",
        )
    free = shutil.disk_usage(folder).free
    found = f"{free / GIGABYTE:.1f} GB free in {folder}"
    if free >= SHARED_MEMORY_WANTED:
        return Finding("shared memory", "ok", found)
    return Finding(
        "shared memory",
        "note",
        found,
        "loader processes may die: `Bus error`, `DataLoader worker is killed by signal`",
        f"docker run --shm-size=8g … (or --ipc=host); outside of containers: mount -o remount,size=8g {folder}",
    )


def open_files() -> Finding:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = f"{'unlimited' if unlimited else soft} open files a process"
    if unlimited or soft >= OPEN_FILES_WANTED:
        return Finding("open files", "ok", found)
    allowed = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    return Finding(
        "open files",
        "note",
        found,
        "many loader processes may fail: `Too many open files`, `received 0 items of ancdata`",
        f"ulimit -n {allowed}",
    )


def writable(work: Path) -> Finding:
    """Permission to write, and locks, in the work folder."""
    folder = _nearest(work)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Finding(
            "writing",
            "broken",
            f"cannot write and lock files in {folder} ({error.strerror})",
            "nothing can be saved",
            "export CGH_WORK=/a/folder/of/yours",
        )
    return Finding("writing", "ok", f"can write to {work}")


def clock(work: Path) -> Finding:
    """The time of this machine, alone and against that of the work folder's disk, which may be another machine's."""
    now = time.time()
    shown = datetime.datetime.fromtimestamp(now, datetime.UTC)
    try:
        with tempfile.NamedTemporaryFile(dir=_nearest(work)) as file:
            off = Path(file.name).stat().st_mtime - now
    except OSError:  # `writable` tells of it
        off = 0.0
    if shown >= OLDEST_DATE and abs(off) < SECONDS_OFF:
        return Finding("clock", "ok", f"{shown:%Y-%m-%d %H:%M} UTC")
    return Finding(
        "clock",
        "note",
        f"{shown:%Y-%m-%d %H:%M} UTC, the disk of {work} is {off:+.0f} s off",
        "results carry wrong dates; nothing that is computed depends on it",
        "timedatectl set-ntp true",
    )


def all_checks(work: Path) -> list[Finding]:
    """Every check of this file."""
    return [disk(work), writable(work), shared_memory(), open_files(), clock(work)]


def _nearest(folder: Path) -> Path:
    """`folder`, or the first above it that exists: nothing is made for a check."""
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 (a broken link must not be followed)
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
