"""The campaign: many mutated files for every reader, each read within bounds of time and memory, or refused in a line.

CGH_MUTATIONS=100000 CGH_FAULT_SEED=1 pytest -m slow tests/unit/test_campaign.py
"""

import contextlib
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_foreign_data as images
import test_foreign_records as records
import test_safe_pickle as weights
import torch
from PIL import features
from test_outcomes import multi_label_data
from toy_images import toy_pair

from cgh_bench import bundles, importers, outcomes
from cgh_bench.checkpoint import from_description
from cgh_bench.core.config import override
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data import contents, load
from cgh_bench.data.decoding import decode
from cgh_bench.data.pairs import _annotation as spair_annotation
from cgh_bench.frozen.given import from_files, write_features
from cgh_bench.outcomes.classification import classification
from cgh_bench.outcomes.multi_label import multi_label
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.reading import reference, reference_script
from cgh_bench.reading.inspection import inspect
from cgh_bench.reading.weights_file import open_weights
from cgh_bench.report import definition
from cgh_bench.results import Result
from cgh_bench.site import charts, page

FILES = int(os.environ.get("CGH_MUTATIONS", "10000"))
SEED = int(os.environ.get("CGH_FAULT_SEED", "17"))
SECONDS = 10
"""Seconds of processor time, for each file."""
MEGABYTES = 500
"""More than the process had, for each file."""
NUMBERS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WORDS = (b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"[[[[", b"9" * 400, b"\xff\xfe", b"\0", b"../..")

Read = Callable[[Path], Any]


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Some of it flipped, cut, doubled, replaced by extreme numbers or words; of a zip archive, mostly its members."""
    if content[:4] == b"PK\x03\x04" and dice.random() < 0.7:
        return _packed_again(content, dice)
    changed = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.choice(("flip", "flip", "cut", "double", "number", "word", "end")):
            case "flip" if at < len(changed):
                changed[at] ^= 1 << dice.randrange(8)
            case "cut":
                del changed[at : at + dice.randint(1, 64)]
            case "double":
                changed[at:at] = changed[max(0, at - dice.randint(1, 200)) : at] * dice.randint(1, 4)
            case "number":
                size, order = dice.choice((2, 4, 8)), dice.choice(("little", "big"))
                changed[at : at + size] = (dice.choice(NUMBERS) % 256**size).to_bytes(size, order)
            case "word":
                changed[at : at + dice.choice((0, 1, 8))] = dice.choice(WORDS)
            case "end":
                del changed[at:]
    return bytes(changed)


def _packed_again(content: bytes, dice: random.Random) -> bytes:
    """The archive with one member mutated, and its checksum right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {item: archive.read(item) for item in archive.infolist()}
    chosen = dice.choice(list(members))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for item, each in members.items():
            archive.writestr(item.filename, mutated(each, dice) if item is chosen else each)
    return packed.getvalue()


# the readers, each with the files that are mutated for it


def _pictures() -> dict[str, bytes]:
    more = {"ico": {}, "jpeg2000": {}, **({"avif": {}} if features.check("avif") else {})}
    return {**images.PICTURES, **{kind: images._picture(kind, **options) for kind, options in more.items()}}


def _feature_files(folder: Path) -> dict[str, bytes]:
    values, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    for suffix in ("npz", "npy", "safetensors", "parquet"):
        write_features(folder / f"f.{suffix}", values, labels, classes=("a", "b"), paths=("1", "2", "3", "4"))
    return {suffix: (folder / f"f.{suffix}").read_bytes() for suffix in ("npz", "npy", "safetensors", "parquet")}


def _tables(folder: Path) -> dict[str, bytes]:
    import pyarrow
    import pyarrow.parquet

    rows = [{"path": f"{n}.png", "label": "ab"[n % 2], "split": ("train", "val")[n // 2]} for n in range(4)]
    for row in rows:
        (folder / row["path"]).write_bytes(images.PICTURES["png"])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
    return {
        "csv": ("path,label,split\n" + "\n".join(",".join(row.values()) for row in rows)).encode(),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "parquet": (folder / "t.parquet").read_bytes(),
    }


def _outcomes(folder: Path) -> dict[str, bytes]:
    _, val = toy_pair()
    several = multi_label_data().val
    measured = {
        "classification": classification(val, val.labels),
        "multi_label": multi_label(several, several.labels, several.labels.astype(np.float64), {"mAP": "mAP"}),
    }
    for name, each in measured.items():
        each.save(folder / name)
    return {name: (folder / name / outcomes.FILE).read_bytes() for name in measured}


def _bundle(folder: Path) -> bytes:
    (folder / "run").mkdir()
    (folder / "run" / outcomes.FILE).write_bytes(_outcomes(folder)["classification"])
    record = Result(**{**records.RECORD, "metrics": {"top1": 100.0}, "work": "run"})
    bundles.write([record], folder, folder / "b.zip")
    return (folder / "b.zip").read_bytes()


def _remembered(folder: Path) -> bytes:
    (folder / "a").write_bytes(b"a")
    contents.contents(folder, ["a"], folder)
    return (folder / contents.MEMORY).read_bytes()


def _reference() -> bytes:
    file = io.BytesIO()
    reference_script.record(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()), file, None, (32, 32))
    return file.getvalue()


def _saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def _in(name: str, read: Read) -> Callable[[Path, bytes], Any]:
    """`read` given the file `name`, which the content is written to."""

    def written(folder: Path, content: bytes) -> Any:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return written


def _shard(path: Path) -> None:
    (path.parent / "classes.txt").write_text("a\nb\n")
    (path.parent / "train").mkdir(exist_ok=True)
    path.replace(path.parent / "train/0.tar")
    images.look_at_all(path.parent)


def _every_image(path: Path) -> None:
    for split in ("train", "val"):
        found = load(str(path), split)
        for index in range(len(found)):
            found.image(index)


def _claimed(path: Path) -> None:
    path.with_name("checkpoint.pt").touch()
    RunFolder(path.parent).claim(recipes.find("cgh_r18_animals"), "cgh_r18_animals", toy_pair()[0], True)


def _settings(path: Path) -> None:
    override(recipes.find("cgh_r18_animals"), path.read_text(errors="replace").splitlines())


def _recalled(path: Path) -> None:
    assert contents.contents(path.parent, ["a"], path.parent) == [contents.digest(path.parent / "a")]


def readers(folder: Path) -> dict[str, tuple[dict[str, bytes], Callable[[Path, bytes], Any]]]:
    """What is read, by name: whole files, and what reads a mutated one in a folder."""
    certificate = {"checkpoint": {"id": "a"}, "target": "timm", "verdict": "ok", "tensors": 3, "read_back": "equal"}
    pair = {"category": "cat", "src_kps": [[1, 2]], "trg_kps": [[3, 4]], "src_imsize": [9, 9], "trg_imsize": [9, 9]}
    pair |= {"trg_bndbox": [1, 2, 5, 6], "src_imname": "a.jpg", "trg_imname": "b.jpg"}
    config = {"model_type": "resnet", "hidden_sizes": [64], "architecture": "resnet18", "num_features": 512}
    hub = {"config.json": json.dumps(config).encode(), "preprocessor_config.json": b'{"image_mean": [0.5, 0.5, 0.5]}'}

    def folder_of_hub(place: Path, content: bytes) -> None:
        (place / "model.safetensors").write_bytes(weights.SEEDS["safetensors"])
        _in("config.json", lambda path: inspect(path.parent))(place, content)

    return {
        "weights": (weights.SEEDS, _in("w.pth", inspect)),
        "weights opened": (weights.SEEDS, _in("w.pth", open_weights)),
        "hub": (hub, folder_of_hub),
        "index": (
            {"index": b'{"weight_map": {"a": "model.safetensors.index.json"}}'},
            _in("model.safetensors.index.json", lambda path: open_weights(path.parent)),
        ),
        "description": (
            {"resnet18": records.describe(records.GIVEN).encode()},
            lambda _, content: from_description(content.decode(errors="replace"), records.GIVEN.weights),
        ),
        "reference": ({"reference": _reference()}, _in("r.npz", reference.read)),
        "image": (_pictures(), lambda _, content: decode(io.BytesIO(content), "image")),
        "shard": ({"tar": _tar(folder)}, _in("0.tar", _shard)),
        **{
            f"annotation {kind}": (
                {kind: whole},
                lambda place, content, kind=kind: images.verified(place, kind, content),
            )
            for kind, (_, _, whole) in images.KINDS.items()
        },
        **{
            f"table {suffix}": ({suffix: whole}, _beside_pictures(f"t.{suffix}"))
            for suffix, whole in _tables(folder).items()
        },
        **{
            f"features {suffix}": ({suffix: whole}, _in(f"f.{suffix}", _both(suffix)))
            for suffix, whole in _feature_files(folder).items()
        },
        "pair": ({"pair": json.dumps(pair).encode()}, _in("p.json", spair_annotation)),
        "pictures of CIFAR": ({"batch": pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]})}, _cifar),
        "results": ({"line": json.dumps(records.RECORD).encode()}, records.read_results),
        "bundle": ({"bundle": _bundle(folder)}, _in("b.zip", bundles.verify)),
        "outcomes": (_outcomes(folder), _in(outcomes.FILE, lambda path: outcomes.load(path.parent))),
        "log": ({"log": b'{"epoch": 1, "loss": 2, "step": 3}\n' * 3}, _in("log.jsonl", _curves)),
        "table of results": ({"animals": records.TABLE}, _in("t.toml", lambda path: definition.load(str(path)))),
        "certificate": (
            {"certificate": json.dumps(certificate).encode()},
            _in("x.certificate.json", lambda path: page.proofs([], path.parent, path.parent, [])),
        ),
        **{
            f"measured by {tool}": ({tool: text.encode()}, _in("m", lambda path, tool=tool: _imported(path, tool)))
            for tool, text in records.SAMPLES.items()
        },
        "recipe": ({"recipe": json.dumps({"name": "n", "recipe": {}}).encode()}, _in("recipe.json", _claimed)),
        "state": (
            {"state": _saved({"step": 3, "method": {"a": torch.ones(3)}, "rng": torch.get_rng_state()})},
            _in("checkpoint.pt", lambda path: RunFolder(path.parent).load()),
        ),
        "settings": ({"settings": b"epochs=2\nmethod.momentum=0.5\nviews.augments.0.size=32\n"}, _in("s", _settings)),
        "memory of hashes": ({"sqlite": _remembered(folder)}, _in(contents.MEMORY, _recalled)),
    }


def _tar(folder: Path) -> bytes:
    members = [images._member(*each) for each in (("b.png", images.PICTURES["png"]), ("b.json", b'{"label": 1}'))]
    return (images.shards(folder / "shards", *members) / "train/0.tar").read_bytes()


def _beside_pictures(name: str) -> Callable[[Path, bytes], Any]:
    def read(folder: Path, content: bytes) -> None:
        for number in range(4):
            (folder / f"{number}.png").write_bytes(images.PICTURES["png"])
        _in(name, _every_image)(folder, content)

    return read


def _both(suffix: str) -> Read:
    def read(path: Path) -> None:
        np.save(path.with_name("f.labels.npy"), np.array([0, 1, 0, 1]))
        from_files(path, path)

    return read


def _cifar(folder: Path, content: bytes) -> None:
    from cgh_bench.core.pickles import load_numpy

    _in("batch", load_numpy)(folder, content)


def _curves(path: Path) -> None:
    charts.read_log(path.parent, [])
    charts.last_seconds(path.parent)


def _imported(path: Path, tool: str) -> None:
    importers.read(importers.Import(path, tool, "theirs", ""))


# the campaign


def attack(name: str, folder: Path, count: int) -> None:
    """In a process of its own: read so many mutated files; what is wrong goes to `folder/wrong`."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wholes, read = readers(folder)[name]
    for content in wholes.values():
        with contextlib.suppress(UserError):
            read(_fresh(folder), content)  # imports what it needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20, resource.RLIM_INFINITY))
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        for number in range(count):
            dice = random.Random(f"{SEED} {name} {number}")
            content = mutated(dice.choice(list(wholes.values())), dice)
            (folder / "now").write_text(str(number))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of processor time; they end the process
            signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
            try:
                read(_fresh(folder), content)
            except (UserError, CheckFailed) as error:
                wrong = "" if "\n" not in str(error) else f"two lines: {error}"
            except OSError as error:  # of a path in the file; the command line makes it one line
                wrong = "" if error.filename else traceback.format_exc()
            except MemoryError:
                wrong = f"took {MEGABYTES} MB"
            except BaseException:
                wrong = traceback.format_exc()
            else:
                wrong = ""
            if wrong:
                with (folder / "wrong").open("a") as file:
                    file.write(f"--- {name} {number}\n{wrong[-1500:]}\n")


def _fresh(folder: Path) -> Path:
    place = folder / "place"
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return list(readers(tmp_path_factory.mktemp("readers")))


@pytest.mark.slow
def test_mutated_files_are_read_or_refused_within_bounds(names: list[str], tmp_path: Path) -> None:
    forks = multiprocessing.get_context("fork")
    each = -(-FILES // len(names))
    wrong = []
    for name in names:
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        started = time.monotonic()
        process = forks.Process(target=attack, args=(name, folder, each))
        process.start()
        process.join()
        print(f"{name}: {each} files in {time.monotonic() - started:.0f} s")
        if process.exitcode:
            at = (folder / "now").read_text() if (folder / "now").exists() else "the whole file"
            wrong.append(f"--- {name} {at}: ended by {process.exitcode} (-27: it took {SECONDS} s)")
        if (folder / "wrong").exists():
            wrong.append((folder / "wrong").read_text())
    assert not wrong, f"CGH_FAULT_SEED={SEED}\n" + "\n".join(wrong)
