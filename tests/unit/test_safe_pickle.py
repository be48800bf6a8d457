"""Files that are damaged, malicious or no checkpoints: one line each, and nothing that they say is run."""

import argparse
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgh_bench.core.errors import UserError
from cgh_bench.reading.loading import load
from cgh_bench.reading.weights_file import open_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.int64)}


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class Custom:
    def __init__(self) -> None:
        self.value = 1


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def write(path: Path, document: Any, how: str) -> Path:
    if how == "pickle":
        path.write_bytes(pickle.dumps(document))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, os.remove], ids=lambda f: f.__name__)
def test_malicious_files_are_refused_and_not_run(tmp_path: Path, how: str, function: Any) -> None:
    witness = tmp_path / "witness"
    witness.write_text("alive")
    argument = {
        os.system: f"rm {witness}",
        eval: f"__import__('os').remove({str(witness)!r})",
        exec: f"import os; os.remove({str(witness)!r})",
        __import__: "antigravity",
        os.remove: str(witness),
    }[function]
    path = write(tmp_path / "evil.pth", {"state_dict": {"w": Calls(function, argument)}}, how)
    with pytest.raises(UserError, match=rf"would run .*{function.__name__}") as error:
        load(path)
    one_line(error)
    assert witness.exists()


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_unknown_classes_are_empty_shells(tmp_path: Path, how: str) -> None:
    path = write(
        tmp_path / "custom.pth", {"custom": Custom(), "a": np.ones(2) if how == "pickle" else torch.ones(2)}, how
    )
    for trusted in (False, True):
        file = open_weights(path, trust_pickle=trusted)
        assert torch.equal(file.tensors["a"].float(), torch.ones(2))
    assert open_weights(path).facts == {"custom/value": 1}


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_harmless_company_is_read_without_its_packages(tmp_path: Path, how: str) -> None:
    document = {
        "args": argparse.Namespace(arch="resnet50", lr=0.1),
        "counts": collections.defaultdict(list, {"x": [1]}),
        "metric": np.float64(3.5),
        "array": np.arange(3),
        "path": Path("/data"),
        "model": {"w": torch.nn.Parameter(torch.ones(2))},
    }
    file = open_weights(write(tmp_path / "c.pth", document, how))
    assert torch.equal(file.tensors["model/w"], torch.ones(2))
    assert file.facts["args/arch"] == "resnet50"


def test_mutual_references_in_settings_end(tmp_path: Path) -> None:
    first, second = argparse.Namespace(), argparse.Namespace()
    first.other, second.other, second.name = second, first, "x"
    assert open_weights(write(tmp_path / "c.pth", {"args": first}, "zip")).facts == {"args/other/name": "x"}


def test_a_pickled_module_gives_its_state_dict(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Softmax(0))
    file = open_weights(write(tmp_path / "m.pth", model, "zip"))
    assert file.tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(file.tensors[key], tensor) for key, tensor in model.state_dict().items())


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([Calls(os.system, "true")], dtype=object)}))
    with pytest.raises(UserError):
        open_weights(path)


def _shared_dictionaries() -> bytes:
    inner: Any = {}
    for _ in range(8):
        inner = {str(number): inner for number in range(30)}
    return pickle.dumps(inner)


def _shared_modules() -> bytes:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1))
    for _ in range(60):
        module = torch.nn.Sequential(module, module)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    return buffer.getvalue()


def _nested_key(times: int, made: bytes = b"2\x86") -> bytes:
    """{(((…), (…)), …): 1}: each tuple holds the one before twice."""
    return b"\x80\x02}" + b"K\x01" + made * times + b"K\x01s."


def _called(name: bytes, arguments: bytes) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00ac" + name + b"\n" + arguments + b"Rs."


def _stored(pickled: bytes) -> bytes:
    """As torch.save writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def _legacy_storage(count: int) -> bytes:
    """The old format, with a tensor whose storage is said to have `count` numbers."""
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(7)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(b"K\x07N", b"J" + struct.pack("<i", count) + b"N", 1)


def _expanded() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1).expand(1 << 34)}, buffer)
    return buffer.getvalue()


GREEDY = {
    "shared dictionaries": _shared_dictionaries,
    "shared modules": _shared_modules,
    "a nested key": lambda: _nested_key(45),
    "a nested key, by memo": lambda: _nested_key(45, b"q\x01h\x01\x86"),
    "a deep key": lambda: _nested_key(1_000_000, b"\x85"),
    "a nested key in torch's format": lambda: _stored(_nested_key(45)),
    "punycode": lambda: _stored(
        _called(
            b"_codecs\nencode", b"X" + struct.pack("<I", 300_000) + b"\xc3\xa9" * 150_000 + b"X\x08\0\0\0punycode\x86"
        )
    ),
    "a storage": lambda: _stored(_called(b"torch\nFloatStorage", b"J\xff\xff\xff\x7f\x85")),
    "a byte array": lambda: _stored(_called(b"builtins\nbytearray", b"J\xff\xff\xff\x7f\x85")),
    "an array": lambda: _called(b"numpy\nndarray", b"J\xff\xff\xff\x7f\x85"),
    "a storage by another call": lambda: _stored(
        _called(
            b"torch._tensor\n_rebuild_from_type_v2",
            b"(ctorch\nFloatStorage\nctorch\nTensor\nJ\xff\xff\xff\x7f\x85}t",
        )
    ),
    "a storage beyond the file": lambda: _legacy_storage(0x7FFFFFFF),
    "an expanded tensor": _expanded,
}


READ_ALL = """
import resource, sys
from pathlib import Path
from cgh_bench.core.errors import UserError
from cgh_bench.reading.weights_file import open_weights

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
for path in map(Path, sys.argv[1:]):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    try:
        open_weights(path)
    except UserError as error:
        print(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5, path
"""


def test_small_files_take_little_time_and_memory(tmp_path: Path) -> None:
    for name, content in GREEDY.items():
        (tmp_path / name).write_bytes(content())
    command = [sys.executable, "-c", READ_ALL, *(str(tmp_path / name) for name in GREEDY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.partition(" is damaged")[0] for line in done.stdout.splitlines()] == command[3:]
    for reason in ("without end", "punycode", "has nothing for", "larger than the file"):
        assert reason in done.stdout


def _zip(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def _saved() -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    return buffer.getvalue()


def _compressed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_saved())) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is a text file\n", "not a checkpoint"),
    "html": (b"<!DOCTYPE html><html>404", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
    "gzip": (b"\x1f\x8b" + b"\0" * 30, "compressed"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 30, "HDF5"),
    "other zip": (_zip(readme=b"x"), "without a PyTorch checkpoint"),
    "cut off": (_saved()[:-400], "cut off"),
    "compressed": (_compressed(), "compressed"),
    "torchscript": (_zip(m__data__pkl=b"", m__code__x=b""), "TorchScript"),
    "cut pickle": (pickle.dumps({"a": np.arange(100.0)})[:300], "damaged"),
    "cut legacy": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "damaged"),
    "huge safetensors header": (struct.pack("<Q", 1 << 60) + b"{" + b" " * 50, "damaged"),
    "cut safetensors": (safetensors.torch.save(TENSORS)[:40], "damaged"),
    "numpy pickle of nothing": (pickle.dumps({"a": 1}), "no tensors"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_files(tmp_path: Path, name: str) -> None:
    content, what = BROKEN[name]
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=what) as error:
        load(path)
    assert len(one_line(error)) < 1000 and str(error.value).count(str(path)) == 1


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="folder without"):
        load(tmp_path)


def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "s.pt")
    with pytest.raises(UserError, match="TorchScript"):
        load(tmp_path / "s.pt")


def _legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


SEEDS = {
    "zip": _saved(),
    "legacy": _legacy(),
    "pickle": pickle.dumps({"model": {"a": np.arange(4.0)}, "x": collections.OrderedDict(b=1)}),
    "safetensors": safetensors.torch.save(TENSORS),
}


@pytest.mark.parametrize("kind", list(SEEDS))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_never_do_anything_else(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                content[where] = data.draw(st.integers(0, 255))
            case "cut":
                del content[where : where + data.draw(st.integers(1, 40))]
            case "insert":
                content[where:where] = data.draw(st.binary(max_size=20))
        if not content:
            break
    path = tmp_path / "fuzzed"
    path.write_bytes(content)
    try:
        open_weights(path)
    except UserError as error:
        assert "\n" not in str(error)
