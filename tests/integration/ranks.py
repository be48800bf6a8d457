"""Processes as torchrun starts them, forked from one that has imported torch: its own start takes ten seconds."""

import os
import socket

from faulty import FORKS


def run(work, *arguments: str, count: int = 2) -> None:
    """Call `work` in `count` processes of one group on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [FORKS.Process(target=_run, args=(rank, count, port, work, arguments)) for rank in range(count)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * count


def _run(rank: int, count: int, port: int, work, arguments: tuple[str, ...]) -> None:
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in group.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work(*arguments)
