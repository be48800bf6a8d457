"""Hashes of what files hold, each made once and remembered until the file changes."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in
from cgh_bench.core.progress import progress

MEMORY = "contents.sqlite"
"""The file in the cache that remembers; removing it makes every file be read again."""
SECONDS_BETWEEN_SAVES = 10.0
FILES_SHOWN = 2_000
"""The number of files to read from which a progress bar is shown."""
FILES_AT_A_TIME = 1_024
THREADS = 8

State = tuple[int, int, int, int]
"""Size, time of the last change of content, time of any change (which nobody can set), inode."""
Read = Callable[[Path], bytes]


def digest(path: Path) -> bytes:
    """Sixteen bytes that change with the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def contents(
    root: Path, names: Sequence[str], cache: Path | None, read: Read = digest, kind: str = "", title: str = "hashing"
) -> list[bytes]:
    """What `read` makes of each file, in the order of `names`.

    Args:
        root: the folder that the files are below.
        names: of the files, relative to it.
        cache: where to remember; None reads every file.
        read: called only for files that are new, or have another `State` than remembered.
        kind: the name of what `read` makes, if it is not `digest`.
        title: of the progress bar.

    Raises:
        UserError: a file is absent or cannot be read.
    """
    if cache is None:
        each = dict(_read_all(root, [*dict.fromkeys(names)], read, title))  # a name may be listed twice
        return [each[name] for name in names]
    states = {name: _state(root / name) for name in names}
    memory = _Memory(cache / MEMORY, root, kind)
    known = memory.recall(states)
    if len(known) < len(states):
        with alone_in(cache / "contents", wait=True):  # of several processes, one reads
            known = memory.recall(states)
            fresh: dict[str, bytes] = {}
            saved = time.monotonic()
            try:
                for name, found in _read_all(root, [name for name in states if name not in known], read, title):
                    known[name] = fresh[name] = found
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        memory.save(states, fresh)
                        fresh, saved = {}, time.monotonic()
            finally:
                memory.save(states, fresh)
    return [known[name] for name in names]


def _state(path: Path) -> State:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path} ({error.strerror}); restore the file or remove it from the dataset")


def _read_all(root: Path, names: Sequence[str], read: Read, title: str) -> Iterator[tuple[str, bytes]]:
    """Each name with what is read of the file, in order; by several threads, which hashing leaves free."""

    def one(name: str) -> tuple[str, bytes]:
        try:
            return name, read(root / name)
        except OSError as error:
            raise _unreadable(root / name, error) from None

    def results() -> Iterator[tuple[str, bytes]]:
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(names), FILES_AT_A_TIME):
                yield from pool.map(one, names[start : start + FILES_AT_A_TIME])

    if len(names) < FILES_SHOWN:
        yield from results()
        return
    with progress(f"{title} {root.name}", len(names)) as tick:
        for done, result in enumerate(results(), start=1):
            yield result
            tick(done)


class _Memory:
    """A database of what was read below `root`. Where it cannot be used, nothing is remembered."""

    def __init__(self, path: Path, root: Path, kind: str) -> None:
        self.path, self.root = path, os.fsencode(root.resolve()) + (f"\0{kind}".encode() if kind else b"")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS files (root BLOB, name BLOB, size INT, modified INT, changed INT, "
                "inode INT, found BLOB, PRIMARY KEY (root, name)) WITHOUT ROWID"
            )
            yield database

    def recall(self, states: Mapping[str, State]) -> dict[str, bytes]:
        """What is remembered of the files that are still in these states."""
        query = "SELECT name, size, modified, changed, inode, found FROM files WHERE root = ?"
        try:
            with self._opened() as database:
                rows = database.execute(query, (self.root,)).fetchall()
        except sqlite3.OperationalError:  # no locks, no room, not ours
            return {}
        except sqlite3.DatabaseError:  # damaged
            self.path.unlink()
            return {}
        return {name: found for raw, *state, found in rows if states.get(name := os.fsdecode(raw)) == tuple(state)}

    def save(self, states: Mapping[str, State], fresh: Mapping[str, bytes]) -> None:
        """Remember these, too."""
        rows = [(self.root, os.fsencode(name), *states[name], found) for name, found in fresh.items()]
        with suppress(sqlite3.OperationalError), self._opened() as database:
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
