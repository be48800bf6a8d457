"""What clusters do to jobs: kill them, fill the disk, start them twice. Nothing is lost or hangs; one line says it."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import faulty
import pretrain_process
import pytest
import torch
from PIL import Image

from cgh_bench import bundles, cli, results
from cgh_bench.checkpoint import load_canonical, random_checkpoint, save
from cgh_bench.core.files import sha256
from cgh_bench.frozen.given import read_features
from cgh_bench.reading.loading import load
from cgh_bench.transfer_configs.contract import PARENT, processes


@pytest.fixture
def folder(tmp_path):
    faulty.images(tmp_path)
    return tmp_path


def measured(folder):
    """Every number in the store, by protocol; each may be there once only."""
    records, complaints = results.read(folder / "work" / "results.jsonl")
    assert len({record.protocol for record in records}) == len(records)
    return {record.task: dict(record.metrics) for record in records}, complaints


def outcome(work, folder):
    """What `work` is for, in a form that can be compared."""
    if work is faulty.pretrain:
        log = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
        return load_canonical(folder / "run/backbone.safetensors").id, [(line["step"], line["loss"]) for line in log]
    if work is faulty.transfer:
        return json.loads((folder / "transfer.json").read_text())
    if work is faulty.report:
        return whole_page(folder / "work/report/animals.html")
    return OUTCOMES.get(work, measured)(folder)


def saved(folder):
    return load_canonical(folder / "out.safetensors").id


def converted(folder):
    certificate = json.loads((folder / "out.pth.certificate.json").read_text())
    assert certificate["sha256"] == sha256(folder / "out.pth")
    return load(folder / "out.pth").id


def exported(folder):
    return [read_features(path).features.tolist() for path in sorted(folder.glob("*.npz"))]


def merged(folder):
    records, complaints = results.read(folder / "work/results.jsonl")
    return sorted(record.seed for record in records), complaints


def whole_page(path):
    text = path.read_text(encoding="utf-8")
    return text.startswith("<!DOCTYPE html>"), text.rstrip().endswith("</html>")


def bundled(folder):
    return [(each.result.protocol, each.confirmed) for each in bundles.verify(folder / "out.zip")]


def pages(folder):
    return {str(path.relative_to(folder)): whole_page(path) for path in (folder / "site").rglob("*.html")}


def flips(folder):
    return {path.name: path.read_bytes() for path in (folder / "flips").iterdir() if not path.name.startswith(".")}


def by_protocol(folder):
    records, complaints = results.read(folder / "work/results.jsonl")
    return sorted((record.protocol, record.checkpoint, dict(record.metrics)) for record in records), complaints


def checked(folder):
    return [line.partition(": ")[2] for line in (folder / "said").read_text().splitlines() if "problem" in line]


OUTCOMES = {
    faulty.save: saved, faulty.convert: converted, faulty.export: exported, faulty.merge: merged,
    faulty.watch: by_protocol, faulty.bundle: bundled, faulty.site: pages, faulty.compare: flips,
    faulty.explain: by_protocol, faulty.check: checked,
}  # fmt: skip


WORKS = (faulty.pretrain, faulty.evaluate, faulty.probe, faulty.transfer, faulty.report, *OUTCOMES)
BEFORE = {
    faulty.compare: (faulty.evaluate, faulty.evaluate_another),
    **dict.fromkeys((faulty.bundle, faulty.site, faulty.explain), (faulty.evaluate,)),
}
"""What a work needs, which is not killed."""


def saved_steps(folder):
    """Up to where a killed pretraining or transfer would go on; fails where that cannot be read."""
    state, other = folder / "run/checkpoint.pt", folder / "transfer/state.pth"
    if state.exists():
        return torch.load(state, weights_only=True)["step"]
    if (folder / "transfer/metrics.json").exists():  # finished: the state is no longer needed
        return math.inf
    return json.loads(other.read_text())[0] if other.exists() else 0


def kill_often(work, folder, kills, tmp_path):
    """Kill `work` at `kills` random moments, always in the same folder; then let it finish."""
    seed = int(os.environ.get("CGH_FAULT_SEED", time.time_ns() % 10**6))
    print(f"CGH_FAULT_SEED={seed}")
    dice = random.Random(seed)
    whole = tmp_path / "whole"
    for each in BEFORE.get(work, ()):
        assert faulty.run(each, folder)[0] == 0
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns("whole", "said"))
    started = time.monotonic()
    assert faulty.run(work, whole)[0] == 0
    seconds = time.monotonic() - started
    steps = 0
    for number in range(kills):
        process = faulty.start(work, folder)
        process.join(dice.uniform(0, seconds))
        process.kill()
        process.join()
        assert saved_steps(folder) >= steps, f"CGH_FAULT_SEED={seed}: kill {number} has lost what was saved"
        steps = saved_steps(folder)
    code, said = faulty.run(work, folder)
    assert code == 0, f"CGH_FAULT_SEED={seed}: {said}"
    assert outcome(work, folder) == outcome(work, whole), f"CGH_FAULT_SEED={seed}"
    left = [*folder.glob("run/.unfinished-*"), *folder.glob(".*.converting")]
    assert left == [], "what the killed have left is removed"


@pytest.mark.parametrize("work", (faulty.evaluate, faulty.transfer), ids=lambda work: work.__name__)
def test_killed_at_a_random_moment(folder, tmp_path, work):
    kill_often(work, folder, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_killed_at_twenty_random_moments(folder, tmp_path, work):
    kill_often(work, folder, 20, tmp_path)


@pytest.mark.parametrize(
    "work, bytes_allowed",
    [
        (faulty.pretrain, 1_000_000),  # the state
        (faulty.evaluate, 20_000),  # the features
        pytest.param(faulty.evaluate, 1_500, marks=pytest.mark.slow),  # anything but what is said
        pytest.param(faulty.report, 20_000, marks=pytest.mark.slow),
        pytest.param(faulty.convert, 1_000_000, marks=pytest.mark.slow),
        (faulty.save, 1_000_000),
        (faulty.transfer, 1_000_000),  # the converted weights
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_full_disk(folder, work, bytes_allowed):
    code, said = faulty.run(work, folder, partial(faulty.no_file_above, bytes_allowed))
    assert code == 2 and "Traceback" not in said, said
    assert "error: " in said.splitlines()[-1] and ("File too large" in said or "cannot write" in said)
    left = [path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= bytes_allowed > 10_000]
    assert left == [], "half of a file is left"
    assert faulty.run(work, folder)[0] == 0, "with room it goes on"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own; `resize` gives it so many bytes. Images and what is printed are elsewhere."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(size, *options):
        flags = ",".join([*options, f"size={size}"])
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", flags, "tmpfs", disk], capture_output=True, text=True, check=False
        )

    if (made := resize("1m")).returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    (disk / "images").symlink_to(faulty.images(tmp_path))
    (disk / "said").symlink_to(tmp_path / "said")
    yield disk, lambda size: resize(size, "remount")
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    "work, room",
    [
        pytest.param(faulty.pretrain, "1m", marks=pytest.mark.slow),  # the first state
        pytest.param(faulty.pretrain, "7m", marks=pytest.mark.slow),  # the second, beside the first
        (faulty.evaluate, "12k"),  # the features
        pytest.param(faulty.evaluate, "60k", marks=pytest.mark.slow),  # the neighbours, behind the features
        pytest.param(faulty.probe, "60k", marks=pytest.mark.slow),
        pytest.param(faulty.report, "16k", marks=pytest.mark.slow),
        pytest.param(faulty.convert, "1m", marks=pytest.mark.slow),
        pytest.param(faulty.save, "1m", marks=pytest.mark.slow),
        pytest.param(faulty.transfer, "1m", marks=pytest.mark.slow),  # the converted weights
        pytest.param(faulty.export, "16k", marks=pytest.mark.slow),
        pytest.param(faulty.merge, "100k", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_file_system_that_is_really_full(small_disk, work, room):
    disk, resize = small_disk
    assert resize(room).returncode == 0
    code, said = faulty.run(work, disk)
    assert code == 2 and "Traceback" not in said, said
    assert "No space left" in said.splitlines()[-1], said
    left = [path for path in disk.rglob("*") if path.name.startswith(".unfinished") or path.suffix == ".part"]
    assert left == [], "half of a file is left"
    steps = saved_steps(disk)
    assert steps == (5 if room == "7m" else 0), "the earlier state is whole"
    assert resize("600m").returncode == 0
    code, said = faulty.run(work, disk)
    assert code == 0, f"with room it goes on: {said}"
    assert results.read(disk / "work/results.jsonl")[1] == []


@pytest.mark.slow
def test_a_reader_under_64_megabytes_of_shared_memory(tmp_path):
    """Docker's default; a batch of 128 x 128 pixels takes 50 of them. It hung."""
    data = faulty.images(tmp_path, each=140)
    size = [word for part in ("resize", "crop") for word in ("--set", f"transform.{part}=128")]
    command = ["-m", "cgh_bench", "eval", "knn", "--ckpt", "random:resnet18", "--data", data, "--work", tmp_path / "w"]
    small = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    words = ["unshare", "-m", "sh", "-c", small, "sh", sys.executable, *command, *size]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "/dev/shm has 67 MB free" in done.stderr and "--shm-size=8g" in done.stderr


def test_a_full_file_system_takes_no_half_result(small_disk):
    disk, _ = small_disk
    assert faulty.run(faulty.evaluate, disk)[0] == 0
    store = disk / "work/results.jsonl"
    (record,), _ = results.read(store)
    before = store.read_bytes()
    (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
    with pytest.raises(OSError, match="No space left"):
        results.append(store, *[record] * 10)
    assert store.read_bytes() == before
    (disk / "ballast").unlink()
    results.append(store, replace(record, seed=1))
    assert [each.seed for each in results.read(store)[0]] == [0, 1]


@pytest.mark.parametrize(
    "work, below",
    [
        (faulty.pretrain, "run"),
        (faulty.evaluate, "work"),
        pytest.param(faulty.report, "work", marks=pytest.mark.slow),
        pytest.param(faulty.transfer, "transfer", marks=pytest.mark.slow),
        pytest.param(faulty.convert, "", marks=pytest.mark.slow),
        (faulty.save, ""),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_output_that_cannot_be_written(folder, work, below):
    (folder / "said").touch()
    (folder / "train.py").touch()  # of the stand-in for a framework
    place = folder / below
    place.mkdir(exist_ok=True)
    place.chmod(0o555)
    code, said = faulty.run(work, folder, faulty.no_privilege)
    place.chmod(0o755)
    assert code == 2 and "Permission denied" in said and "Traceback" not in said, said


@pytest.mark.parametrize(
    "work, below, sign",
    [
        (faulty.pretrain, "run", "checkpoint.pt"),
        pytest.param(faulty.evaluate, "work", "cache/features/*/*", marks=pytest.mark.slow),
        pytest.param(faulty.probe, "work", "cache/features/*/*", marks=pytest.mark.slow),
        pytest.param(faulty.site, "site", "tables/*.html", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_folder_that_is_removed_while_it_is_written_to(folder, tmp_path, work, below, sign):
    """It is told in one line, or the folder is made again; the next run does the whole work."""
    whole = tmp_path / "whole"
    shutil.copytree(folder / "images", whole / "images")
    assert faulty.run(work, whole)[0] == 0
    code, said = faulty.run(work, folder, partial(faulty.folder_is_removed, folder / below, sign))
    assert code in (0, 2) and "Traceback" not in said, said
    assert faulty.run(work, folder)[0] == 0
    assert outcome(work, folder) == outcome(work, whole)


def test_images_that_are_none_are_all_named(folder):
    cats = folder / "images" / "train" / "cat"
    good = (cats / "0.png").read_bytes()
    bad = {
        "empty.png": b"",
        "half.png": good[: len(good) // 2],
        "text.jpg": b"not an image",
        "wild.png": good[:30] + os.urandom(99),
    }
    bomb = bytearray(good)
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2  # 50,000 × 50,000 pixels, says the header
    bad["bomb.png"] = bytes(bomb)
    for name, content in bad.items():
        (cats / name).write_bytes(content)
    frames = [Image.new("L", (40, 40), shade) for shade in (0, 255)]
    frames[0].save(cats / "moves.webp", save_all=True, append_images=frames[1:])
    for mode, name in (("CMYK", "print.jpg"), ("I;16", "deep.png"), ("LA", "clear.png"), ("1", "bits.png")):
        Image.new(mode, (40, 40)).save(cats / name)
    (cats / "notes.txt").write_text("of no interest")
    code, said = faulty.run(faulty.evaluate, folder)
    assert code == 2 and "Traceback" not in said
    for name in (*bad, "moves.webp"):
        assert name in said, name
    for name in ("print.jpg", "deep.png", "clear.png", "bits.png"):
        assert name not in said
    for name in (*bad, "moves.webp"):
        (cats / name).unlink()
    assert faulty.run(faulty.evaluate, folder)[0] == 0


def test_names_that_are_not_utf8(folder):
    """Images may have them; a class may not, as tables and pages show it."""
    for image in (folder / "images").rglob("*.png"):
        image.rename(image.with_name(os.fsdecode(b"\xe9" + os.fsencode(image.name))))
    assert faulty.run(faulty.evaluate, folder)[0] == 0
    broken = folder / "images/train/cat" / os.fsdecode(b"\xff.png")
    broken.write_bytes(b"no image")
    code, said = faulty.run(faulty.evaluate, folder)
    assert code == 2 and "train/cat/" in said and "Traceback" not in said, said
    broken.unlink()
    for split in ("train", "val"):
        (folder / "images" / split / "cat").rename(folder / "images" / split / os.fsdecode(b"caf\xe9"))
    code, said = faulty.run(faulty.evaluate, folder)
    assert code == 2 and "caf\\xe9" in said and "not UTF-8" in said and "Traceback" not in said, said


def test_a_loader_process_is_killed(folder):
    code, said = faulty.run(faulty.evaluate, folder, faulty.loaders_die)
    assert code == 2 and "loader process" in said.splitlines()[-1] and "Traceback" not in said, said


def test_an_error_in_a_loader_is_told_as_it_is():
    """Not as a want of memory; torch's message has "DataLoader worker" in it too."""
    with pytest.raises(RuntimeError, match="in DataLoader worker process 0"), cli.errors_in_one_line():
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback: …")


def test_a_loader_process_of_pretraining_is_killed(folder, tmp_path):
    """In one line, at the cost of what came after the last state; SIGTERM to all processes costs nothing."""
    whole, state = tmp_path / "whole", folder / "run/checkpoint.pt"
    shutil.copytree(folder / "images", whole / "images")
    assert faulty.run(faulty.pretrain_files, whole)[0] == 0
    code, said = faulty.run(faulty.pretrain_files, folder, partial(faulty.loader_of_step_dies, 8, state))
    assert code == 2 and "loader process was killed" in said.splitlines()[-1] and "Traceback" not in said, said
    steps = saved_steps(folder)
    assert steps in (3, 6), "the last state is whole"
    code, said = faulty.run(faulty.pretrain_files, folder, partial(faulty.stop_comes_to_all, 11, state))
    assert code == 130 and "saved; rerun the same command to resume" in said and "Traceback" not in said, said
    assert steps < saved_steps(folder) < 15
    assert faulty.run(faulty.pretrain_files, folder)[0] == 0
    assert outcome(faulty.pretrain, folder) == outcome(faulty.pretrain, whole)


@pytest.mark.parametrize("good", [1, *(pytest.param(good, marks=pytest.mark.slow) for good in (12, 0))])
def test_files_that_cannot_be_read_stop_pretraining_in_one_line(folder, good):
    """Told by a loader process, whose own errors would come as tracebacks."""
    cats = folder / "images/train/cat"
    for image in [*cats.iterdir(), *(folder / "images/train/dog").iterdir()][good:]:
        image.write_bytes(b"no image")
    for number in range(11 if good == 12 else 0):
        (cats / f"broken{number}.png").write_bytes(b"no image")
    code, said = faulty.run(faulty.pretrain_files, folder)
    assert code == 2 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith("error: 11 files cannot be read"), said


def test_two_runs_in_one_folder(folder):
    first = faulty.start(faulty.pretrain, folder, pretrain_process.slowly)
    deadline = time.monotonic() + 60
    while not (folder / "run/checkpoint.pt").exists():
        assert first.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(first.pid, 19)  # SIGSTOP: it cannot finish under the test
    second = folder / "second"
    second.mkdir()
    (second / "run").symlink_to(folder / "run")
    code, said = faulty.run(faulty.pretrain, second)
    assert code == 2 and f"is in use by process {first.pid}" in said
    first.kill()
    first.join()
    assert faulty.run(faulty.pretrain, folder)[0] == 0, "the lock went with its holder"


def framework_of_ours(folder):
    """A process that has started another, as a framework is started."""
    os.environ[PARENT] = str(os.getpid())
    if os.fork() == 0:
        processes.end_with_parent()
        (folder / "pid").write_text(str(os.getpid()))
    time.sleep(60)


def test_a_framework_does_not_outlive_us(tmp_path):
    ours = faulty.start(framework_of_ours, tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists():
        assert ours.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    framework = int((tmp_path / "pid").read_text())
    assert alive(framework)
    ours.kill()
    ours.join()
    while alive(framework):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_clock_that_runs_backwards(folder, tmp_path):
    (back := tmp_path / "back").mkdir()
    assert (
        faulty.run(faulty.pretrain, folder)[0] == faulty.run(faulty.pretrain, back, faulty.clock_runs_backwards)[0] == 0
    )
    assert outcome(faulty.pretrain, folder) == outcome(faulty.pretrain, back)


PLANNED_THEN_RUN = """
import runpy, sys
for more in (["--dry-run"], []):
    words, sys.argv[1:] = sys.argv[1:], [*sys.argv[1:], *more]
    try:
        runpy.run_module("cgh_bench", run_name="__main__")
    except SystemExit as end:
        assert not end.code, more
    sys.argv[1:] = words
"""


def test_any_path_the_c_locale_and_files_of_our_names(tmp_path):
    """Letters that a terminal has not are given by number; files of the current folder are not taken for ours."""
    place = tmp_path / "mit Leerzeichen & 'ähm' 猫"
    data = faulty.images(place, each=2)
    save(random_checkpoint("resnet18"), place / "größe.safetensors")
    for name in ("pretrain", "transfer_configs", "tools", "checkpoint", "data", "site_", "tasks"):
        (place / f"{name}.py").write_text("raise SystemExit('the file of a user was imported')\n")
    command = [sys.executable, "-c", PLANNED_THEN_RUN, "eval", "knn", "--ckpt", "größe.safetensors", "--data", data]
    settings = [word for setting in faulty.EVALUATION for word in ("--set", setting)]
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*command, *settings], check=False, capture_output=True, cwd=place, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    assert rb"\xd7" in done.stdout
    assert measured(place)[1] == [] and measured(place)[0]["knn"]["top1"] >= 0


# several processes

RANK = """
import datetime, os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import pretrain_process
from cgh_bench import cli
from cgh_bench.core import dist
from cgh_bench.pretrain import stopping
from cgh_bench.pretrain.batches import Batches
Path({folder!r}, "pid" + os.environ["RANK"]).write_text(str(os.getpid()))
{fault}
with cli.errors_in_one_line():
    pretrain_process.main({out!r}, "1", "{epochs}")
"""
NO_PATIENCE = "dist.PATIENCE = datetime.timedelta(seconds=5)"
STUCK = """
stopping.SECONDS_FOR_A_BATCH = 1
item = Batches.__getitem__
def stuck(self, step):
    if step == 7 and os.environ["RANK"] == "{rank}":
        Path({folder!r}, "stuck").touch()
        time.sleep(300)
    return item(self, step)
Batches.__getitem__ = stuck
"""


class Several:
    """A pretraining by two processes under torchrun, in `folder/run`; what they print is in `folder/said`."""

    def __init__(self, folder, fault="", epochs=200, out="run"):
        self.folder, self.out = folder, folder / out
        tests = str(Path(pretrain_process.__file__).parent)
        script = folder / "rank.py"
        script.write_text(RANK.format(tests=tests, folder=str(folder), fault=fault, out=str(self.out), epochs=epochs))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
        with (folder / "said").open("w") as said:
            self.torchrun = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=said)

    @property
    def said(self):
        return (self.folder / "said").read_text()

    def step(self):
        """The step of the saved state."""
        return torch.load(self.out / "checkpoint.pt", weights_only=True)["step"]

    def pid(self, rank):
        return int((self.folder / f"pid{rank}").read_text())

    def wait_for(self, name, seconds=180):
        """Until the file `name` is there, as long as torchrun lives."""
        deadline = time.monotonic() + seconds
        while not (self.folder / name).exists():
            assert self.torchrun.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def wait_for_ends(self, *ranks, seconds=60):
        """Until the processes `ranks` have ended."""
        deadline = time.monotonic() + seconds
        while any(alive(self.pid(rank)) for rank in ranks):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def end(self):
        """Whatever the test has left running."""
        for pid in [self.torchrun.pid, *(self.pid(rank) for rank in (0, 1) if (self.folder / f"pid{rank}").exists())]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.torchrun.wait()


def alive(pid):
    """Whether there is such a process that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def several(tmp_path):
    """Starts such pretrainings, and ends what is left of them."""
    started = []

    def start(*arguments, **options):
        started.append(Several(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.mark.slow
def test_a_killed_process_of_several_stops_all_within_a_minute(several):
    job = several()
    job.wait_for("run/checkpoint.pt")
    os.kill(job.pid(1), signal.SIGKILL)
    assert job.torchrun.wait(60) != 0
    assert "SIGKILL" in job.said and job.step() > 0
    assert job.said.count("Traceback") <= 1, "but for torchrun's own"


@pytest.mark.slow
def test_several_processes_that_are_told_to_stop_save_and_go_on(several):
    """SIGTERM to torchrun, as from a cluster's queue; then the same command again."""
    whole = several(epochs=4, out="whole")
    assert whole.torchrun.wait(300) == 0, whole.said
    job = several(epochs=4)
    job.wait_for("run/checkpoint.pt")
    job.torchrun.send_signal(signal.SIGTERM)
    assert job.torchrun.wait(60) != 0 and not (job.out / "backbone.safetensors").exists()
    assert "stopped at step" in job.said and "saved; rerun the same command to resume" in job.said
    assert several(epochs=4).torchrun.wait(300) == 0
    ids = [load_canonical(out / "backbone.safetensors").id for out in (whole.out, job.out)]
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_processes_whose_torchrun_is_killed_save_and_end(several):
    job = several()
    job.wait_for("run/checkpoint.pt")
    job.torchrun.kill()
    job.wait_for_ends(0, 1)
    assert f"stopped at step {job.step()} of 1000, saved; rerun the same command to resume" in job.said
    assert "Traceback" not in job.said


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_not_waited_for_for_ever(several):
    job = several(NO_PATIENCE)
    job.wait_for("run/checkpoint.pt")
    os.kill(job.pid(1), signal.SIGSTOP)
    job.wait_for_ends(0)
    assert "error: process 0 stops: another of the 2 has ended, or has not answered for 5 seconds; " in job.said
    assert "Traceback" not in job.said and job.step() > 0


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_of_which_one_waits_for_a_batch_stop(several, tmp_path, rank):
    """The first has a state to save, unless it was in the middle of a step."""
    job = several(STUCK.format(rank=rank, folder=str(tmp_path)))
    job.wait_for("stuck")
    job.torchrun.send_signal(signal.SIGTERM)
    job.wait_for_ends(0, 1, seconds=25)  # torchrun kills after 30
    assert job.step() in ((7,) if rank == 0 else (5, 7))
    assert job.said.count("interrupted: ") == 2 and job.said.count("Traceback") <= 1, "but for torchrun's own"
