"""Running a framework as a process, shown on a stand-in of forty lines that keeps the same contract."""

import dataclasses
import json
import os
import signal
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.config import identity
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data.dense import Located
from cgh_bench.foreign import failures, frameworks, others, process

STAND_IN = """
    import argparse, json, os, pathlib, signal, sys, time
    parser = argparse.ArgumentParser()
    for name in ("config", "weights", "work", "gpus", "seed", "iterations"):
        parser.add_argument("--" + name)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", nargs="+", dest="settings")
    options = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in options.settings)
    mode, work = settings.pop("mode", ""), pathlib.Path(options.work)
    given = len(json.loads(pathlib.Path(options.weights).read_text()))
    state = work / "state.pth"
    start = int(state.read_text()) if options.resume and state.exists() else 0
    with (work / "starts").open("a") as file:
        file.write(f"{start} ")
    print("a line of the log, data in", os.environ["CGH_DATA"], flush=True)
    if mode == "dies":
        print("RuntimeError: no such layer", flush=True)
        sys.exit(1)
    lost = ["conv1.weight"] if mode == "loses" else []
    account = {"given": given, "arrived": given - len(lost), "missing": lost, "unfilled": [], "in_force": {
        "channel_order": "BGR" if mode == "swaps" else settings["order"],
        "mean_std": json.loads(settings["mean_std"]), "stride_in_1x1": False}}
    (work / "loaded.json").write_text(json.dumps(account))
    if lost:
        sys.exit("not all arrived")
    def stop(*_):
        state.write_text(str(done))
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    trained = work / "model.pth"
    for done in range(start + 1, 1 if trained.exists() else 5):
        print(json.dumps({"phase": "train", "done": done, "of": 4, "loss": 1 / done}), flush=True)
        if mode == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2 if mode == "slow" else 0)
    trained.touch()
    print(json.dumps({"phase": "test", "done": 1, "of": 1, "loss": None}), flush=True)
    if os.path.exists(os.environ["CGH_DATA"] + "/damaged"):
        sys.exit("val is damaged")
    (work / "metrics.json").write_text(json.dumps({"AP": 10.0 + int(options.seed)}))
    state.unlink(missing_ok=True)
"""


def settings(checkpoint):
    given = checkpoint.preprocessing
    numbers = [255 * value for value in (*given.mean, *given.std)]
    return {"order": given.channel_order, "mean_std": numbers}


@dataclasses.dataclass(frozen=True)
class StandIn(frameworks.Framework):
    """A framework whose code and protocols are in one folder."""

    @property
    def path(self):
        return Path(self.folder)

    def command(self, module):
        return [self.python, str(self.path / f"{module}.py")]


def stand_in_framework(folder: Path, modules: tuple[str, ...] = ("json",)) -> StandIn:
    return StandIn(
        str(folder), ".py", "torchvision", modules, "CGH_STAND_IN_PYTHON", "pip install stand-in", settings, settings
    )


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A framework called `stand_in` with the protocol `tiny`."""
    folder = tmp_path / "stand_in"
    folder.mkdir()
    unquoted = textwrap.dedent(STAND_IN).replace('settings["order"]', 'settings["order"].strip(chr(34))')
    (folder / "train.py").write_text(unquoted)
    (folder / "tiny.py").write_text('"""A protocol."""\n\nweights_into = ("backbone",)\nbatch = 16  # images\n')
    monkeypatch.setitem(frameworks.FRAMEWORKS, "stand_in", stand_in_framework(folder))
    return folder


@pytest.fixture(scope="module")
def checkpoint():
    return random_checkpoint("resnet18")


def job(mode: str = "", seed: int = 0, identity: str = "one") -> process.Job:
    return process.Job("stand_in", "tiny", seed, identity, settings=(f"mode={mode}",) if mode else ())


def run(job: process.Job, checkpoint, data_root: Path, folder: Path) -> dict[str, float]:
    """With weights in the format of the stand-in."""
    names = json.dumps(list(checkpoint.weights))
    return process.run(job, checkpoint, lambda path: path.write_text(names), Located(data_root, "", ""), folder)


def starts(folder: Path) -> list[int]:
    return [int(step) for step in (folder / "starts").read_text().split()]


def test_metrics_come_back_and_the_log_is_kept(stand_in, checkpoint, tmp_path, capfd):
    folder = tmp_path / "run"
    assert run(job(seed=2), checkpoint, tmp_path, folder) == {"AP": 12.0}
    assert (folder / "log.txt").read_text() == f"a line of the log, data in {tmp_path}\n"
    assert "tiny in stand_in, train: 4/4" in capfd.readouterr().err
    assert not (folder / "weights.pth").exists()


def test_a_finished_run_is_read_back(stand_in, checkpoint, tmp_path):
    folder = tmp_path / "run"
    first = run(job(), checkpoint, tmp_path, folder)
    assert run(job(), checkpoint, tmp_path, folder) == first
    assert starts(folder) == [0]


def test_another_run_in_the_folder_is_removed_first(stand_in, checkpoint, tmp_path):
    folder = tmp_path / "run"
    run(job(), checkpoint, tmp_path, folder)
    (folder / "state.pth").write_text("3")
    assert run(job(seed=1, identity="two"), checkpoint, tmp_path, folder) == {"AP": 11.0}
    assert starts(folder) == [0]


def test_another_val_is_evaluated_with_what_was_trained(stand_in, checkpoint, tmp_path, capfd):
    """Such as one that was repaired because the evaluation failed."""
    folder = tmp_path / "run"
    (tmp_path / "damaged").touch()
    with pytest.raises(UserError, match="val is damaged"):
        run(dataclasses.replace(job(), val="a"), checkpoint, tmp_path, folder)
    (tmp_path / "damaged").unlink()
    assert "train: 4/4" in capfd.readouterr().err
    for val in "bc":
        assert run(dataclasses.replace(job(), val=val), checkpoint, tmp_path, folder) == {"AP": 10.0}
        assert "train:" not in capfd.readouterr().err
    assert run(dataclasses.replace(job(), val="c"), checkpoint, tmp_path, folder) == {"AP": 10.0}
    assert len(starts(folder)) == 3


def test_killed_while_it_takes_the_folder_over(stand_in, checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".unfinished-job.json.x").write_text("{")
    assert run(job(), checkpoint, tmp_path, folder) == {"AP": 10.0}

    def killed(path):
        (path / "job.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(job(seed=1, identity="two"), checkpoint, tmp_path, folder)
    assert run(job(seed=1, identity="two"), checkpoint, tmp_path, folder) == {"AP": 11.0}


def test_a_folder_with_something_else_is_not_touched(stand_in, checkpoint, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match="is not a run folder"):
        run(job(), checkpoint, tmp_path, tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_ctrl_c_stops_the_process_and_the_next_run_goes_on(stand_in, checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    @contextmanager
    def interrupting(title, total):
        def tick(done, note=""):
            if done == 2:
                raise KeyboardInterrupt

        yield tick

    with monkeypatch.context() as patch:
        patch.setattr(process, "progress", interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(job("slow"), checkpoint, tmp_path, folder)
    assert int((folder / "state.pth").read_text()) in (2, 3)
    assert not (folder / "metrics.json").exists()
    assert run(job("slow"), checkpoint, tmp_path, folder) == {"AP": 10.0}
    assert starts(folder)[0] == 0
    assert starts(folder)[1] in (2, 3)


def test_a_process_that_does_not_stop_is_killed(stand_in, checkpoint, tmp_path, monkeypatch):
    deaf = "import os, sys, time, json, signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    deaf += "open(sys.argv[3].split('=')[1] + '/pid', 'w').write(str(os.getpid()));"
    deaf += "print(json.dumps(dict(phase='train', done=1, of=2, loss=None)), flush=True); time.sleep(60)"
    (stand_in / "train.py").write_text(deaf)

    @contextmanager
    def interrupting(title, total):
        def tick(done, note=""):
            raise KeyboardInterrupt

        yield tick

    monkeypatch.setattr(process, "progress", interrupting)
    monkeypatch.setattr(others, "SECONDS_TO_STOP", 0.2)
    with pytest.raises(KeyboardInterrupt):
        run(job(), checkpoint, tmp_path, tmp_path / "run")
    pid = int((tmp_path / "run" / "pid").read_text())
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_failure_shows_the_last_line_and_the_log(stand_in, checkpoint, tmp_path):
    with pytest.raises(
        UserError, match=r"tiny failed in stand_in: RuntimeError: no such layer.*run/log\.txt"
    ) as raised:
        run(job("dies"), checkpoint, tmp_path, tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_a_killed_process_is_named_so_and_the_end_of_its_log_shown(stand_in, checkpoint, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/state.pth").write_text("0")
    process.write_text(
        tmp_path / "run/job.json", json.dumps({"checkpoint": checkpoint.id, **identity(job("killed"))}, indent=1)
    )
    (tmp_path / "run/log.txt").write_text("RuntimeError: of an earlier run\n")
    with pytest.raises(UserError, match="killed by SIGKILL, .*memory.*; rerun to resume"):
        run(job("killed"), checkpoint, tmp_path, tmp_path / "run")
    shown = capfd.readouterr().err.splitlines()
    assert shown[-2:] == [f"the end of {tmp_path / 'run/log.txt'}:", f"  a line of the log, data in {tmp_path}"]


def test_what_a_log_explains_is_not_shown_twice(stand_in, checkpoint, tmp_path, capfd):
    with pytest.raises(UserError, match="no such layer"):
        run(job("dies"), checkpoint, tmp_path, tmp_path / "run")
    assert "the end of" not in capfd.readouterr().err


def test_a_child_of_the_launcher_that_was_killed_is_named_so():
    log = "".join(f"line {n}\n" for n in range(30)) + "  traceback : Signal 9 (SIGKILL) received by PID 77\n=====\n"
    cause, shown = failures.explain(1, log)
    assert cause == "killed by SIGKILL, usually because memory ran out"
    assert len(shown) == failures.LINES
    assert shown[0] == "line 21"
    assert failures.explain(1, "ValueError: no\n") == ("ValueError: no", [])
    assert failures.explain(1, "epoch 1\n--set x: no such setting\n") == ("--set x: no such setting", [])
    assert failures.explain(3, "something\nelse\n") == ("else", ["something", "else"])


TORCHRUN = """\
W1125 19:37:26 9988 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 11 closing signal SIGTERM
E1125 19:37:26 9988 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 1
Traceback (most recent call last):
  File "torch/distributed/launcher/api.py", line 386, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
Failures:
[1]:
  exitcode  : -15 (pid: 11)  (SIGTERM)
  traceback : Signal 15 (SIGTERM) received by PID 11
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 12)
  traceback : {traceback}
============================================================
"""


def test_processes_that_the_launcher_ends_are_not_the_cause():
    """torchrun ends the others by SIGTERM when one fails, and says so after what that one has said."""
    ended = TORCHRUN.format(code=1, traceback="To enable traceback see: https://pytorch.org/docs")
    for said in ("OutOfMemoryError: 4 images at a time are too many", "a batch of 8 images cannot be divided among 3"):
        assert failures.explain(1, f"epoch 1\n{said}\n{ended}") == (said, [])
    others = "[rank1]: Traceback (most recent call last):\n[rank1]: RuntimeError: Connection closed by peer\n"
    assert failures.explain(1, f"{said}\n{others}{ended}") == (said, [])
    assert failures.explain(1, f"[rank0]: ValueError: no\n{others}{ended}") == ("[rank0]: ValueError: no", [])
    killed = TORCHRUN.format(code=-9, traceback="Signal 9 (SIGKILL) received by PID 12")
    cause = "killed by SIGKILL, usually because memory ran out"
    assert failures.explain(1, f"epoch 1\nepoch 2\n{killed}") == (cause, ["epoch 1", "epoch 2"])


def test_a_scheduler_that_ends_us_is_as_ctrl_c(stand_in, checkpoint, tmp_path, monkeypatch):
    @contextmanager
    def terminating(title, total):
        yield lambda done, note="": os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(process, "progress", terminating)
    with pytest.raises(KeyboardInterrupt):
        run(job("slow"), checkpoint, tmp_path, tmp_path / "run")
    assert (tmp_path / "run/state.pth").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_weights_that_did_not_arrive_fail_the_check(stand_in, checkpoint, tmp_path):
    with pytest.raises(CheckFailed, match=r"119 of 120 tensors arrived.*conv1\.weight"):
        run(job("loses"), checkpoint, tmp_path, tmp_path / "run")


def test_swapped_channels_fail_the_check(stand_in, checkpoint, tmp_path):
    with pytest.raises(CheckFailed, match="BGR"):
        run(job("swaps"), checkpoint, tmp_path, tmp_path / "run")


def test_a_framework_that_is_not_installed(stand_in, monkeypatch):
    absent = stand_in_framework(stand_in, ("json", "no_such_module"))
    monkeypatch.setitem(frameworks.FRAMEWORKS, "stand_in", absent)
    with pytest.raises(UserError, match=rf"needs no_such_module, .*{sys.executable} -m pip install stand-in"):
        frameworks.require_installed("stand_in")


def test_an_interpreter_without_torch_is_named(stand_in, tmp_path, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    monkeypatch.setenv("CGH_STAND_IN_PYTHON", str(bare))
    with pytest.raises(UserError, match=f"stand_in needs torch, which is not installed for {bare}") as raised:
        frameworks.require_installed("stand_in")
    assert "CGH_STAND_IN_PYTHON" in str(raised.value)


def test_an_interpreter_that_does_not_run(stand_in, monkeypatch):
    monkeypatch.setenv("CGH_STAND_IN_PYTHON", "/nowhere/python")
    with pytest.raises(UserError, match="CGH_STAND_IN_PYTHON=/nowhere/python cannot be run"):
        frameworks.require_installed("stand_in")


def test_another_interpreter_is_used(stand_in, checkpoint, tmp_path, monkeypatch):
    own = tmp_path / "python"
    own.write_text(f'#!/bin/sh\necho "by another python"\nexec {frameworks.find("stand_in").python} "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("CGH_STAND_IN_PYTHON", str(own))
    run(job(), checkpoint, tmp_path, tmp_path / "run")
    assert "by another python" in (tmp_path / "run" / "log.txt").read_text()


def test_unknown_names_get_the_nearest(stand_in):
    with pytest.raises(UserError, match="did you mean mmdet"):
        frameworks.find("mmdte")
    with pytest.raises(UserError, match="did you mean tiny"):
        frameworks.definition("stand_in", "tinny")
    with pytest.raises(UserError, match="did you mean animals_det"):
        frameworks.definition("mmdet", "animal_det")


def test_the_definition_is_what_the_file_says_not_how(stand_in):
    before = frameworks.definition("stand_in", "tiny")
    (stand_in / "tiny.py").write_text('"""The same, in other words."""\nweights_into = ("backbone",)\nbatch   =  16\n')
    assert frameworks.definition("stand_in", "tiny") == before
    (stand_in / "tiny.py").write_text('weights_into = ("backbone",)\nbatch = 32\n')
    assert frameworks.definition("stand_in", "tiny") != before


def test_a_comment_in_yaml_is_no_part_of_the_definition(stand_in, monkeypatch):
    known = dataclasses.replace(frameworks.find("stand_in"), suffix=".yaml")
    monkeypatch.setitem(frameworks.FRAMEWORKS, "stand_in", known)
    ids = []
    for text in ("# A\nWEIGHTS_INTO: [a]\nX: 1\n", "WEIGHTS_INTO: [a]  # b\n\nX: 1\n", "WEIGHTS_INTO: [a]\nX: 2\n"):
        (stand_in / "tiny.yaml").write_text(text)
        ids.append(frameworks.definition("stand_in", "tiny"))
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("module", ["train", "transfer", "__init__"])
def test_code_is_not_taken_for_a_protocol(module):
    with pytest.raises(UserError, match="unknown mmdet protocol"):
        frameworks.protocol_file("mmdet", module)


@pytest.mark.parametrize("content", [b"weights_into = (", b"\xff\xfe", b"a = '\0'"])
def test_a_protocol_file_that_cannot_be_read_is_named(stand_in, content):
    (stand_in / "tiny.py").write_bytes(content)
    with pytest.raises(UserError, match=r"protocol tiny cannot be read: .*stand_in/tiny\.py"):
        frameworks.definition("stand_in", "tiny")


def test_where_our_modules_lie_is_no_part_of_the_definition(stand_in, monkeypatch):
    monkeypatch.setitem(
        frameworks.FRAMEWORKS, "stand_in", dataclasses.replace(frameworks.find("stand_in"), suffix=".yaml")
    )
    (stand_in / "tiny.yaml").write_text("imports: [metric]\n")
    before = frameworks.definition("stand_in", "tiny")
    (stand_in / "tiny.yaml").write_text(f"imports: [cgh_bench.transfer_configs.{stand_in}.metric]\n")
    assert frameworks.definition("stand_in", "tiny") == before


def test_every_framework_has_its_protocols():
    assert {"animals_det", "coco_det", "coco_fpn"} <= set(frameworks.find("mmdet").protocols)
    assert {"animals_det", "coco_det", "coco_det_2x", "voc_det"} <= set(frameworks.find("detectron2").protocols)


def test_counters_of_batches_are_not_handed_to_detectron2(checkpoint):
    assert frameworks.find("mmdet").tensors_given(checkpoint) == len(checkpoint.weights) == 120
    assert frameworks.find("detectron2").tensors_given(checkpoint) == 100


def test_preprocessing_in_the_words_of_mmengine(checkpoint):
    told = frameworks.openmmlab_settings(checkpoint)
    assert told["model.data_preprocessor.mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert told["model.data_preprocessor.std"] == pytest.approx([58.395, 57.12, 57.375])
    assert told["model.data_preprocessor.bgr_to_rgb"] is True
    assert told["model.backbone.style"] == "pytorch"


def test_lines_that_only_look_like_progress_are_log_lines():
    assert process.progress_in('{"phase" broken') is None
    assert process.progress_in(json.dumps({"loss": 1})) is None
    assert process.progress_in('{"phase": "train", "done": 1, "of": 2, "loss": null}\n')["done"] == 1


def test_the_reason_is_found_in_a_launchers_log():
    log = "[rank1]: ValueError: no GPU\nx.ChildFailedError:\n[W] exiting\n=====\nroot cause\n  exitcode: 1\n=====\n"
    assert failures.reason(log) == "[rank1]: ValueError: no GPU"
    assert failures.reason("one\nthe weights did not arrive\n====\n") == "the weights did not arrive"
    assert failures.reason("\n") == "it printed nothing"
