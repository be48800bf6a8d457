"""Detection and segmentation on two nodes: two torchruns of this machine, each with one process that talks by gloo."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dense_folder
import own_folders
import pytest
import torch

from cgh_bench import results
from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks

pytestmark = pytest.mark.slow
STEPS = 3
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
DETECTION = {
    "animals_det_any": ("train_dataloader.num_workers=0", "model.train_cfg.rcnn.sampler.num=8"),
    "animals_det_any_detectron2": ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8", "DATALOADER.NUM_WORKERS=0"),
}


def evaluated(name: str, data: Path, work: Path, steps: int = STEPS) -> list[str]:
    settings = ",".join(DETECTION.get(name, ("train_dataloader.num_workers=0",)))
    given = ["--set", f"iterations={steps}", "--set", f"settings={settings}", f"--data={data}", f"--work={work}", "-q"]
    return ["-m", "cgh_bench", "eval", name, "--ckpt=random:resnet18", *given]


def started(*arguments: str) -> list[subprocess.Popen]:
    """Two nodes with one process each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [
                *(*TORCHRUN, "1", "--nnodes=2", f"--node-rank={number}", "--master-addr=127.0.0.1"),
                *(f"--master-port={port}", *arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(2)
    ]


def installed_data(name: str, folder: Path) -> Path:
    """Data for the task, if its framework is installed."""
    try:
        frameworks.require_installed("detectron2" if name.endswith("detectron2") else "mmdet")
    except UserError as absent:
        pytest.skip(str(absent))
    return (dense_folder.write if name == "animals_seg" else own_folders.coco)(folder)


def finished(work: Path):
    """The only result, and the tensors of the fine-tuned network."""
    ((result,), _) = results.read(work / "results.jsonl")
    saved = torch.load(work / result.work / "model.pth", weights_only=True)
    return result, saved["model"] if "model" in saved else saved["state_dict"]


@pytest.mark.parametrize("name", ["animals_seg", *DETECTION])
def test_two_nodes_give_what_two_processes_of_one_node_do(name, tmp_path):
    data = installed_data(name, tmp_path / "data")
    nodes = started(*evaluated(name, data, tmp_path / "nodes"))
    said = [node.communicate()[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    subprocess.run([*TORCHRUN, "2", "--standalone", *evaluated(name, data, tmp_path / "one")], check=True)
    (spread, tensors), (result, wanted) = finished(tmp_path / "nodes"), finished(tmp_path / "one")
    assert (spread.metrics, spread.protocol) == (result.metrics, result.protocol)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in wanted.items())
    assert {path.name for path in (tmp_path / "nodes" / spread.work).glob("log*.txt")} == {"log.txt", "log1.txt"}


def wait_for_steps(work: Path, log: str) -> None:
    """Until the framework of the second node has said more than `log`, and the weights have arrived."""
    deadline = time.monotonic() + 600
    while not (list(work.glob("eval/*/*/seed0/loaded.json")) and len(said_by(work)) > len(log)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def said_by(work: Path) -> str:
    return "".join(path.read_text() for path in work.glob("eval/*/*/seed0/log1.txt"))


def kill_with_children(parent: int) -> None:
    """As when a machine loses its power."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if f"\nPPid:\t{parent}\n" in status.read_text():
                kill_with_children(int(status.parent.name))
    with suppress(ProcessLookupError):
        os.kill(parent, signal.SIGKILL)


def assert_ended(node: subprocess.Popen) -> None:
    """By itself, with a line that says why: it was stopped, or another process is gone."""
    _, said = node.communicate(timeout=300)
    assert node.returncode and re.search("^(interrupted|error): ", said, re.MULTILINE), said


@pytest.mark.parametrize(("name", "steps"), [("animals_seg", 12), ("animals_det_any_detectron2", 40)])
def test_two_nodes_of_which_one_is_ended_resume_to_the_same_end(name, steps, tmp_path):
    """First it is told to stop, then it is killed. Each process's randomness and statistics are resumed."""
    data = installed_data(name, tmp_path / "data")
    for node in started(*evaluated(name, data, tmp_path / "whole", steps)):
        node.communicate(timeout=900)
        assert node.returncode == 0
    work = tmp_path / "ended"
    command = evaluated(name, data, work, steps)
    nodes = started(*command)
    wait_for_steps(work, "")
    nodes[1].terminate()
    for node in nodes:
        assert_ended(node)
    assert list(work.glob("eval/*/*/seed0/state.pth"))
    nodes, log = started(*command), said_by(work)
    wait_for_steps(work, log)
    kill_with_children(nodes[1].pid)
    assert_ended(nodes[0])
    nodes[1].communicate()
    for node in started(*command):
        node.communicate(timeout=900)
        assert node.returncode == 0
    (resumed, tensors), (result, wanted) = finished(work), finished(tmp_path / "whole")
    assert resumed.metrics == result.metrics
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in wanted.items())
