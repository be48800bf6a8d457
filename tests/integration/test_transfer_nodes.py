"""Detection and segmentation on two nodes: two torchruns of this machine, each with one process that talks by gloo."""

import os
import socket
import subprocess
import sys
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


def evaluated(name: str, data: Path, work: Path) -> list[str]:
    settings = ",".join(DETECTION.get(name, ("train_dataloader.num_workers=0",)))
    given = ["--set", f"iterations={STEPS}", "--set", f"settings={settings}", f"--data={data}", f"--work={work}", "-q"]
    return ["-m", "cgh_bench", "eval", name, "--ckpt=random:resnet18", *given]


def finished(work: Path):
    """The only result, and the tensors of the fine-tuned network."""
    ((result,), _) = results.read(work / "results.jsonl")
    saved = torch.load(work / result.work / "model.pth", weights_only=True)
    return result, saved["model"] if "model" in saved else saved["state_dict"]


@pytest.mark.parametrize("name", ["animals_seg", *DETECTION])
def test_two_nodes_give_what_two_processes_of_one_node_do(name, tmp_path):
    try:
        frameworks.require_installed("detectron2" if name.endswith("detectron2") else "mmdet")
    except UserError as absent:
        pytest.skip(str(absent))
    data = (dense_folder.write if name == "animals_seg" else own_folders.coco)(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nodes = [
        subprocess.Popen(
            [
                *(*TORCHRUN, "1", "--nnodes=2", f"--node-rank={number}", "--master-addr=127.0.0.1"),
                *(f"--master-port={port}", *evaluated(name, data, tmp_path / "nodes")),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(2)
    ]
    said = [node.communicate()[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    subprocess.run([*TORCHRUN, "2", "--standalone", *evaluated(name, data, tmp_path / "one")], check=True)
    (spread, tensors), (result, wanted) = finished(tmp_path / "nodes"), finished(tmp_path / "one")
    assert (spread.metrics, spread.protocol) == (result.metrics, result.protocol)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in wanted.items())
    assert {path.name for path in (tmp_path / "nodes" / spread.work).glob("log*.txt")} == {"log.txt", "log1.txt"}
