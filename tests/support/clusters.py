"""A dask cluster on loopback: a scheduler, and workers in processes of their own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.places import REPOSITORY
from tests.support.servers import free_port


@dataclass(frozen=True)
class Cluster:
    """What runs: the scheduler's address and process. It ends with `running`, in the reverse order of its start."""

    url: str
    folder: Path
    running: ExitStack
    scheduler: subprocess.Popen[bytes]

    def add_workers(self, count: int, threads: int = 1) -> None:
        """Starts workers and waits until they have joined."""
        words = ["dask_worker", self.url, "--host", "127.0.0.1", "--local-directory", str(self.folder)]
        for _ in range(count):
            _start([*words, "--nthreads", str(threads)], self.folder, self.running)
        self.wait_for_workers(count)

    def wait_for_workers(self, count: int) -> None:
        """Waits until so many have joined."""
        from distributed import Client

        with Client(self.url, timeout=120, set_as_default=False) as client:
            if count:
                client.wait_for_workers(count, timeout=120)


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Runs a cluster whose workers, of one thread each, have joined it."""
    url = f"tcp://127.0.0.1:{free_port()}"
    with ExitStack() as running:
        words = ["dask_scheduler", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
        cluster = Cluster(url, folder, running, _start(words, folder, running))
        cluster.add_workers(workers)
        yield cluster


def _start(words: list[str], folder: Path, running: ExitStack) -> subprocess.Popen[bytes]:
    log: IO[bytes] = running.enter_context((folder / "dask.log").open("ab"))
    command = [sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:], "--no-dashboard"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
    running.callback(process.wait)
    running.callback(process.terminate)
    return process
