"""Files that are whole or not there after a crash, a full disk or Ctrl-C; locks; hashes."""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import BaseFileLock, FileLock, Timeout
from safetensors import SafetensorError

from cgh_bench.core.errors import UserError

UNFINISHED = ".unfinished-"
"""How the names of temporary files and folders begin; a process that is killed leaves them behind."""
SCRATCH = ".cgh-bench-"
"""How the names of `scratch` folders begin."""
SECONDS_TO_LOCK = 60
"""The seconds within which a new scratch folder is locked."""
SECONDS_TO_FORGET = 24 * 3600
"""No file takes so long to be written."""
MEBIBYTE = 1024**2


@contextmanager
def replacing(path: Path, flush: bool = True) -> Iterator[Path]:
    """A temporary path that replaces `path` if the block ends without an error.

    The bytes are flushed to disk before the rename, so that after a power cut `path` is the old file or the new one.
    Without `flush` that holds only for a crash of the process: for many files that are quickly made again.

    Raises:
        OSError: the disk is full or broken, also where torch or safetensors raise something else.
        KeyboardInterrupt: Ctrl-C, also where torch raises something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_forgotten(path.parent)
    # In a folder of its own, where the temporary files of libraries are found and removed, too.
    folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
    temporary = folder / path.name
    temporary.touch()
    try:
        yield temporary
        if flush:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except (RuntimeError, SafetensorError) as error:
        _raise_cause(error, temporary, path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _raise_cause(error: Exception, temporary: Path, path: Path) -> None:
    """Raise what made torch or safetensors fail: Ctrl-C, or the disk (torch hides that, so it is written to again)."""
    if isinstance(error.__context__, KeyboardInterrupt):
        raise error.__context__
    number = re.search(r"os error (\d+)", str(error))
    if number:
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    try:
        with temporary.open("ab") as file:
            file.write(bytes(MEBIBYTE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def write_text(path: Path, text: str, flush: bool = True) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all; `flush` as in `replacing`."""
    with replacing(path, flush) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def scratch(within: Path | None = None) -> Iterator[Path]:
    """A new folder for temporary files, removed at the end; those that killed processes have left there are, too.

    A process has the kernel's lock on its own, so that the others know whether it lives.

    Args:
        within: the folder to make it in; by default the system's for temporary files.
    """
    place = within or Path(tempfile.gettempdir())
    for left_behind in place.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):  # it is in use, or another user's
            if time.time() - left_behind.stat().st_mtime > SECONDS_TO_LOCK:
                with _open_folder(left_behind) as folder:
                    hold(folder, wait=False)
                    shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=place) as made, contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # no locks here; then nobody removes what is left
            hold(opened.enter_context(_open_folder(Path(made))))
        yield Path(made)


@contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Others who write into `folder`, made where it is not there, wait; what killed ones left half written is removed.

    Nothing is needed beside the folder, unlike for `alone_in`. On a disk without locks nobody waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _open_folder(folder) as descriptor:
        with contextlib.suppress(OSError):
            hold(descriptor)
        for place in (folder, *filter(Path.is_dir, folder.iterdir())):
            remove_unfinished(place)
        yield


@contextmanager
def alone_in(folder: Path, wait: bool = False, tidy: bool = False) -> Iterator[None]:
    """Keep every other process and thread out of this block for the same `folder`; to `wait`, they come one by one.

    The lock is the kernel's, on a small file beside the folder: it is gone with the process, however that ends. What a
    killed process has not finished writing in `folder` is removed; `tidy` removes the file as well.

    Raises:
        UserError: another process is in (it is named), or the disk cannot be written to or has no locks.
    """
    real = Path(os.path.realpath(folder))  # a linked folder is locked where it is; a link to itself fails below
    place = real.parent / f".{real.name}.lock"
    lock = FileLock(place, fallback_to_soft=False)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder, wait)
        place.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot lock and write files in {folder.parent} ({reason}); choose another folder") from None
    try:
        remove_unfinished(folder)  # nobody else is here, so nobody is writing it
        yield
    finally:
        if tidy:
            place.unlink(missing_ok=True)  # who waits opens it anew at each try
        lock.release()


def _acquire(lock: BaseFileLock, folder: Path, wait: bool) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        try:
            holder = Path(lock.lock_file).read_text(encoding="utf-8", errors="replace") or "another process"
        except FileNotFoundError:  # its holder has just removed it, or it cannot be made
            lock.acquire(timeout=1)
            return
        if not wait:
            raise UserError(f"{folder} is in use by {holder}; wait for it, stop it or choose another folder") from None
        print(f"waiting for {holder}, which is using {folder}", file=sys.stderr, flush=True)
        lock.acquire()


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """The file `path`, made where it is not there, to read and append to while no other process or thread does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        hold(file)
        yield file


def hold(file: IO[Any] | int, shared: bool = False, wait: bool = True) -> None:
    """Hold the kernel's lock of an open file or folder until it is closed; several can hold it `shared`.

    Raises:
        BlockingIOError: another holds it, and this call does not `wait`.
    """
    import fcntl  # Windows has none

    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half written, or half removed, in `folder`."""
    for left_behind in folder.glob(f"{UNFINISHED}*"):
        if left_behind.is_dir():
            shutil.rmtree(left_behind)
        else:
            left_behind.unlink(missing_ok=True)


@functools.cache
def _remove_forgotten(folder: Path) -> None:
    """Remove, once a process, what was left half written in `folder` more than a day ago."""
    for left_behind in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left_behind.stat().st_mtime > SECONDS_TO_FORGET:
                shutil.rmtree(left_behind)


def remove_tree(folder: Path) -> None:
    """Remove `folder` with everything in it; if interrupted, no half of it is left under its name."""
    doomed = folder.with_name(f"{UNFINISHED}{folder.name}")
    if doomed.exists():
        shutil.rmtree(doomed)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def order_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in the order of their names: the library writes a random one each time.

    So the same weights are the same bytes.
    """
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the library writes no shorter JSON"
        file.seek(8)
        file.write(text.ljust(size))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
