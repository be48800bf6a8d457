import os
from pathlib import Path

import pytest

from cgh_bench.discovery import registered
from cgh_bench.files import replacing, sha256, write_text


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_takes_its_place_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ä.txt"
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
    monkeypatch.syspath_prepend(tmp_path)
    assert registered("claims", "THINGS") == {"a": 1, "b": 2}
    (package / "three.py").write_text("OTHERS = {'a': 1}")
    (package / "four.py").write_text("OTHERS = {'a': 1}")
    with pytest.raises(AssertionError, match="'a' is in both claims.four and claims.three"):
        registered("claims", "OTHERS")
