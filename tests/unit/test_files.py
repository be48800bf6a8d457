import errno
import multiprocessing
import os
import resource
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cgh_bench.core import registry
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in, replacing, scratch, sha256, write_text
from cgh_bench.core.registry import registered


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_is_told_as_such_whatever_torch_makes_of_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x"):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_and_its_libraries_left_is_removed(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(tmp_path / "run" / "x",))
    child.start()
    child.join()
    assert len(list((tmp_path / "run").iterdir())) == 1
    with alone_in(tmp_path / "run"):
        assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("flush", [True, False])
def test_what_was_left_more_than_a_day_ago_is_removed_by_the_next_who_writes_there(tmp_path: Path, flush: bool) -> None:
    """Where no lock says that nobody is writing."""
    for _ in range(2):
        child = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(tmp_path / "x",))
        child.start()
        child.join()
    old, new = tmp_path.iterdir()
    os.utime(old, (0, 0))
    write_text(tmp_path / "x", "whole", flush)
    assert set(tmp_path.iterdir()) == {new, tmp_path / "x"}


def test_the_temporary_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    """That of one that lives is not, however long it has been there."""
    child = multiprocessing.get_context("fork").Process(target=_killed_in_scratch, args=(tmp_path,))
    child.start()
    child.join()
    (left_behind,) = tmp_path.iterdir()
    with scratch(tmp_path) as used:
        assert left_behind.exists(), "perhaps it is not locked yet"
        for folder in (left_behind, used):
            os.utime(folder, (0, 0))
        with scratch(tmp_path) as other:
            assert set(tmp_path.iterdir()) == {used, other}
    assert list(tmp_path.iterdir()) == []


def _killed_in_scratch(place: Path) -> None:
    with scratch(place) as folder:
        (folder / "page.html").touch()
        os._exit(9)


def _killed_while_writing(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.with_name(".tmpOfALibrary").write_text("x")
        os._exit(9)


def test_a_new_file_takes_its_place_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "deep" / f"{'ä' * 120}.txt"
    old = os.umask(0o022)
    try:
        write_text(path, "text")
    finally:
        os.umask(old)
    assert path.read_text() == "text"
    assert path.stat().st_mode & 0o777 == 0o644
    assert sha256(path) == "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"


def test_two_files_that_register_one_name_are_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "claims"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("THINGS = {'a': 1}")
    (package / "two.py").write_text("THINGS = {'b': 2}")
    (package / "three.py").write_text("OTHERS = {'a': 1}")
    (package / "four.py").write_text("OTHERS = {'a': 1}")
    monkeypatch.syspath_prepend(tmp_path)
    assert registered("claims", "THINGS") == {"a": 1, "b": 2}
    with pytest.raises(AssertionError, match="'a' is in both claims.four and claims.three"):
        registered("claims", "OTHERS")


def test_a_file_that_cannot_be_imported_is_named_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "partly"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "good.py").write_text("THINGS = {'good': 1}")
    (package / "odd.py").write_text("import a_package_of_nobody\nTHINGS = {'odd': 2}")
    (package / "torn.py").write_text("THINGS = {")
    (package / "inner" / "__init__.py").write_text("raise RuntimeError('first\\nsecond')")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.registered("partly", "THINGS") == {"good": 1}
    assert registry.find("partly", "THINGS", "good", "thing") == 1
    assert [sentence.split()[0] for sentence in registry.broken("partly")] == [
        "partly.inner",
        "partly.odd",
        "partly.torn",
    ]
    with pytest.raises(UserError, match="^unknown thing 'odd'.*partly.odd cannot be imported .*a_package_of_nobody"):
        registry.find("partly", "THINGS", "odd", "thing")


def _hold(folder: Path, ready: Connection) -> None:
    with alone_in(folder):
        ready.send("in")
        ready.recv()


def test_one_process_a_folder_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    folder, forks = tmp_path / "run", multiprocessing.get_context("fork")
    folder.mkdir()
    (folder / ".unfinished-checkpoint.pt.x1").touch()
    mine, its = forks.Pipe()
    other = forks.Process(target=_hold, args=(folder, its))
    other.start()
    assert mine.recv() == "in"
    assert list(folder.iterdir()) == [], "what a killed process had not finished is removed, once nobody else is in"
    with pytest.raises(UserError, match=f"in use by process {other.pid} on .*choose another folder"), alone_in(folder):
        pass
    other.kill()
    other.join()
    with alone_in(folder):
        pass
    with pytest.raises(UserError, match="in /proc/self .*choose another folder"), alone_in(Path("/proc/self/run")):
        pass


def test_to_wait_is_to_come_when_the_other_has_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    forks = multiprocessing.get_context("fork")
    mine, its = forks.Pipe()
    other = forks.Process(target=_hold, args=(tmp_path / "run", its))
    other.start()
    assert mine.recv() == "in"
    threading.Timer(0.3, mine.send, ["go"]).start()
    with alone_in(tmp_path / "run", wait=True):
        assert f"process {other.pid} on " in capfd.readouterr().err
    other.join()


def test_threads_of_one_process_keep_each_other_out(tmp_path: Path) -> None:
    refused = []

    def second() -> None:
        try:
            with alone_in(tmp_path / "run"):
                pass
        except UserError as error:
            refused.append(str(error))

    with alone_in(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1 and f"process {os.getpid()} on " in refused[0]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=f"cannot lock .*{os.strerror(number)}"), alone_in(tmp_path / "run"):
        raise AssertionError("the work has begun")


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_full_disk_is_told_as_such_whoever_writes(tmp_path: Path, kind: str) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    weights = {"a": torch.zeros(100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error, replacing(tmp_path / "x") as temporary:
            torch.save(weights, temporary) if kind == "torch" else safetensors.torch.save_file(weights, temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
