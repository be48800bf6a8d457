"""Two processes of a run, as torchrun starts them on one machine or two, each with one of a framework's.

The framework is a stand-in, or the part of the real ones' code that saves and restores what each process has.
"""

import dataclasses
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import ranks
import torch
from faulty import FORKS

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.data.dense import Located
from cgh_bench.foreign import frameworks, others, process
from cgh_bench.transfer_configs.contract import processes, records
from cgh_bench.transfer_configs.contract.watch import Watch

STEPS = 6


def steps(network: torch.nn.Module, count: int) -> list[float]:
    """Each draws from all random number generators, and moves BatchNorm's statistics."""
    drawn = []
    for _ in range(count):
        drawn += [random.random(), np.random.rand()]
        network(torch.randn(4, 2) * drawn[-1])
    return drawn


def train(folder: str) -> None:
    """Half of the steps, by which one of the processes is asked to stop; the others with what was saved by then."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    random.seed(rank)
    np.random.seed(rank)
    torch.manual_seed(rank)
    network, state = torch.nn.BatchNorm1d(2), Path(folder, "state.pth")
    watch = Watch(prints=False)
    steps(network, STEPS // 2)
    assert not watch.time_to_save()
    if rank:
        os.kill(os.getpid(), signal.SIGTERM)
    assert watch.time_to_save() and watch.asked_to_stop
    if saved := processes.gathered(records.own_state(network)):
        torch.save(saved, state)
    torch.distributed.barrier()
    expected = steps(network, STEPS // 2), torch.rand(2), network.running_var
    resumed = torch.nn.BatchNorm1d(2)
    everyone = torch.load(state, weights_only=True)
    mine = processes.own(everyone)
    assert processes.own(everyone[:1]) is None  # of a run of one process
    records.restore_own(mine, resumed)
    torch.set_rng_state(mine["torch"])
    found = steps(resumed, STEPS // 2), torch.rand(2), resumed.running_var
    assert found[0] == expected[0] and torch.equal(found[1], expected[1]) and torch.equal(found[2], expected[2])
    other = [torch.empty(2), torch.empty(2)]
    torch.distributed.all_gather(other, resumed.running_var)
    assert not torch.equal(*other)


def test_each_process_gets_back_what_it_had(tmp_path):
    ranks.run(train, str(tmp_path))


STAND_IN = """
import ctypes, os, pathlib, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # as contract.processes.end_with_parent
work = pathlib.Path(next(word[7:] for word in sys.argv if word.startswith("--work=")))
mode, rank = sys.argv[-1], os.environ["RANK"]
def stop(*_):
    if mode == "told" and rank == "1":
        os.kill(os.getppid(), signal.SIGTERM)  # torchrun passes on what SLURM has sent already
    time.sleep(0.2)
    (work / f"saved{rank}").touch()
    sys.exit(130)
if mode != "starts":  # which has no handler yet
    signal.signal(signal.SIGINT, signal.SIG_IGN if mode == "deaf" else stop)
(work / f"pid{rank}.part").write_text(str(os.getpid()))
(work / f"pid{rank}.part").rename(work / f"pid{rank}")
if mode == "fails" and rank == "1":
    sys.exit("ValueError: no")
time.sleep(60)
"""


class StandIn(frameworks.Framework):
    """A framework that only waits."""

    def command(self, module: str) -> list[str]:
        return [sys.executable, "-c", STAND_IN]


def evaluate(rank: int, port: int, folder: Path, mode: str) -> None:
    """What `eval` does for a task in that framework; how it ends is written to a file."""
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in group.items()} | {"MASTER_ADDR": "127.0.0.1"}
    given = {field.name: getattr(frameworks.find("mmseg"), field.name) for field in dataclasses.fields(StandIn)}
    frameworks.FRAMEWORKS["stand_in"] = StandIn(**given | {"modules": (), "preprocessing": lambda _: {}})
    others.SECONDS_TO_STOP, others.SECONDS_BETWEEN_MESSAGES = 0.5, 0.1
    job = process.Job("stand_in", "animals_seg", 0, "", settings=(mode,), carried=True)
    try:
        with dist.process_group():
            process.run(job, random_checkpoint("resnet18"), Path.touch, Located(folder, "", ""), folder / "run")
        said = "nothing"
    except KeyboardInterrupt:
        said = "interrupted"
    except UserError as error:
        said = str(error)
    (folder / f"said{rank}").write_text(said)


def is_gone(pid: str) -> bool:
    with suppress(FileNotFoundError):
        return Path("/proc", pid, "stat").read_text().split()[2] == "Z"  # nobody has asked how it ended
    return True


@pytest.mark.parametrize(
    ("mode", "sent", "first", "second"),
    [
        ("starts", signal.SIGKILL, "another of the 2 processes", None),
        ("deaf", signal.SIGKILL, "another of the 2 processes", None),
        ("fails", 0, "interrupted", "ValueError: no"),
        ("told", signal.SIGTERM, "interrupted", "interrupted"),
    ],
)
def test_when_one_ends_early_all_do_and_nothing_is_left_running(mode, sent, first, second, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = [FORKS.Process(target=evaluate, args=(rank, port, tmp_path, mode)) for rank in range(2)]
    for one in started:
        one.start()
    pids = [tmp_path / f"run/pid{rank}" for rank in range(2)]
    while not all(pid.exists() for pid in pids):
        assert all(one.is_alive() for one in started) or mode == "fails"
        time.sleep(0.05)
    os.kill(started[1].pid, sent)
    for one in started:
        one.join(60)
    assert first in (tmp_path / "said0").read_text()
    assert second is None or second in (tmp_path / "said1").read_text()
    assert all(is_gone(pid.read_text()) for pid in pids)
    assert (tmp_path / "run/saved0").exists() == (first == "interrupted")
    assert (tmp_path / "run/saved1").exists() == (mode == "told")
