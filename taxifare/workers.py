"""Where independent work is done: in processes of this machine, or on a dask cluster.

A task is a function of a module and what it is given; what comes of it depends on nothing else, so it is the same
wherever it is done, and beside however many others. Each worker does one task at a time, in a process of its own: a
training draws from generators that a process has one of. A worker that dies is replaced and its task done again, which
must do no harm; a task whose worker dies again is told.

Why `concurrent.futures`, and why a process has a turn: docs/decisions.md, under workers.
"""

import asyncio
import logging
import os
import pickle
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import LifoQueue
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar

from upath import UPath

from taxifare.buckets import is_local
from taxifare.digests import digest_of_code
from taxifare.errors import ToldError
from taxifare.settings import ExecutionSettings

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)

Given = ParamSpec("Given")

Result = TypeVar("Result")

ANSWERS_WITHIN_S = 10

ALONE_S = 60.0
"""Work of less is done in this process: another takes eight seconds until it has TensorFlow."""

TRIP_S = 8 * 25e-6
"""What a trip takes that a network learns from random weights: about eight epochs."""

_ATTEMPTS = 2

_PACKAGES = ("distributed", "keras", "numpy", "pandas", "pyarrow", "tensorflow")
"""What results depend on to the last digit, and what carries tasks there and back."""


class WorkersError(ToldError, RuntimeError):
    """Work that cannot be done where the settings say; the message names the setting and the way out."""


class WorkerDiedError(WorkersError):
    """A task whose worker died each time it was done."""


class _Engine(Protocol):
    """Where tasks are done; `count` of them at a time."""

    count: int

    def do(self, task: Callable[..., Any], *given: object, **named: object) -> Any:
        """Returns what comes of a task, done elsewhere."""
        ...

    def ensure_sees(self, setting: str, folder: str) -> None:
        """Ensures that tasks find a folder of this machine."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class Workers:
    """The workers of the settings: `WORKERS` processes of this machine, or those of the cluster at `CLUSTER_URL`.

    Processes are started when there is work for them.

    Raises:
        WorkersError: The cluster does not answer, has no worker, or its workers have other versions than this process.
    """

    def __init__(self, settings: ExecutionSettings) -> None:
        self._engine: _Engine = (
            _Processes(settings.workers) if settings.cluster_url is None else _Cluster(settings.cluster_url)
        )
        self._turns = ThreadPoolExecutor(self._engine.count, "workers")

    def __enter__(self) -> Self:
        """Returns the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes; what was begun is finished unless there was an error."""
        self._turns.shutdown(wait=True, cancel_futures=error is not None)
        self._engine.close()

    def submit(self, task: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Future[Result]:
        """Returns what will come of a task, see the module; its result may be a `WorkersError`."""
        return self._turns.submit(self._engine.do, task, *given, **named)

    @property
    def count(self) -> int:
        """How many tasks are done at a time."""
        return self._engine.count

    def ensure_sees(self, setting: str, folder: Path | UPath) -> None:
        """Ensures that tasks find a folder of this machine, in which they read and write; a bucket is everywhere.

        Args:
            setting: Which names it, for what is told of it.
            folder: Which one.

        Raises:
            WorkersError: A worker of the cluster does not see it.
        """
        if is_local(folder):
            self._engine.ensure_sees(setting, str(folder))


@contextmanager
def workers_if_worth(settings: ExecutionSettings, tasks: int, work_s: float) -> Iterator[Workers | None]:
    """Yields the workers of the settings; None where so much work in so many tasks is sooner done in this process."""
    if settings.cluster_url is None and (min(settings.workers, tasks) < 2 or work_s < ALONE_S):
        yield None
        return
    with Workers(settings) as workers:
        yield workers


class _Processes:
    """Processes of this machine, a task at a time each: of one that dies it is known what it was doing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle: LifoQueue[ProcessPoolExecutor | None] = LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    def do(self, task: Callable[..., Any], *given: object, **named: object) -> Any:
        process = self._idle.get()
        try:
            for _ in range(_ATTEMPTS):
                process = process or _started()
                try:
                    return process.submit(task, *given, **named).result()
                except BrokenProcessPool:
                    _log.warning("a worker died while it did %s", task.__name__)
                    process = None
        finally:
            self._idle.put(process)
        raise WorkerDiedError(
            f"{task.__name__}: the process that did it died {_ATTEMPTS} times, perhaps for want of memory: WORKERS="
            f"{self.count} of them work at a time, and each takes about a gigabyte. Set WORKERS lower and run it again"
        )

    def ensure_sees(self, setting: str, folder: str) -> None:
        """They are of this machine."""

    def close(self) -> None:
        for _ in range(self.count):
            process = self._idle.get()
            if process is not None:
                process.shutdown()


def _started() -> ProcessPoolExecutor:
    """Returns a process. It is started anew, not forked: TensorFlow does not survive a fork."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Ensures that this process does not outlive the one that started it, not even one that was killed."""
    parent = parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class _Cluster:
    """The workers of a dask cluster that are there when work begins."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = self._connected()
        try:
            self.count = self._counted()
            self._ensure_same_versions()
        except BaseException:
            self._client.close()
            raise
        self._executor = self._client.get_executor(pure=False)

    def _connected(self) -> "Client":
        try:
            import dask
            from distributed import Client
            from distributed.comm import connect
        except ImportError:
            raise WorkersError(
                "CLUSTER_URL: expected the extra that talks to a dask cluster, received an environment without it: "
                "pip install -e '.[cluster]', or empty CLUSTER_URL to work in processes of this machine"
            ) from None

        async def knock() -> None:
            await (await connect(self._url, timeout=ANSWERS_WITHIN_S)).close()

        # What a training learns from goes with its task.
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})
        try:
            # For ever, a client would wait for a server that takes its call and is no scheduler.
            asyncio.run(asyncio.wait_for(knock(), ANSWERS_WITHIN_S))
            return Client(self._url, timeout=ANSWERS_WITHIN_S, set_as_default=False)
        except OSError:
            raise WorkersError(
                f"CLUSTER_URL: expected a dask scheduler at {self._url}, received no answer of one within "
                f"{ANSWERS_WITHIN_S} s: start one (dask scheduler), or empty CLUSTER_URL to work in processes of this "
                "machine"
            ) from None

    def _counted(self) -> int:
        """Returns how many workers there are, each of which does one task at a time.

        The scheduler itself is asked: `Client.scheduler_info` may return what the client has fetched by itself
        meanwhile, in which there are none.
        """
        try:
            workers = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        except OSError:
            raise self._went_away() from None
        how = f"dask worker {self._url} --nthreads 1"
        if not workers:
            raise WorkersError(f"CLUSTER_URL: expected workers at {self._url}, received none: start some ({how})")
        threads = {address: worker["nthreads"] for address, worker in workers.items() if worker["nthreads"] != 1}
        if threads:
            told = ", ".join(f"{address} with {count}" for address, count in threads.items())
            raise WorkersError(
                f"CLUSTER_URL: expected workers of one thread, in which trainings do not draw from one another's "
                f"random numbers, received {told}: start them as {how}"
            )
        return len(workers)

    def _ensure_same_versions(self) -> None:
        ours = versions()
        for address, theirs in self._client.run(versions, on_error="return").items():
            if not isinstance(theirs, Mapping):
                raise WorkersError(
                    f"CLUSTER_URL: expected workers with this taxifare, received {address}, which cannot tell its "
                    f"versions: {type(theirs).__name__}: {theirs}. Install the same release and lock there"
                )
            others = [
                f"{name} {theirs.get(name)}, here {ours[name]}" for name in ours if theirs.get(name) != ours[name]
            ]
            if others:
                raise WorkersError(
                    f"CLUSTER_URL: expected workers of the same versions as here, received {address} with "
                    f"{'; '.join(others)}: install the same release and lock there"
                )

    def do(self, task: Callable[..., Any], *given: object, **named: object) -> Any:
        import cloudpickle
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            # As bytes, for dask looks for work of its own in what it is given; and so that scripts have tasks, too.
            return self._executor.submit(_done, cloudpickle.dumps((task, given, named))).result()
        except KilledWorker as error:
            raise WorkerDiedError(
                f"{task.__name__}: each worker of CLUSTER_URL that did it died, perhaps for want of memory: {error}"
            ) from None
        except (CancelledError, CommClosedError):
            raise self._went_away() from None

    def _went_away(self) -> WorkersError:
        return WorkersError(
            f"CLUSTER_URL: the dask scheduler at {self._url} went away while there was work: start it, and run it again"
        )

    def ensure_sees(self, setting: str, folder: str) -> None:
        with NamedTemporaryFile(dir=folder) as file:
            found = self._client.run(os.path.exists, file.name)
        blind = [address for address, sees in found.items() if not sees]
        if blind:
            raise WorkersError(
                f"{setting}: expected a folder that every worker of CLUSTER_URL sees, received {folder}, which is "
                f"not on {', '.join(blind)}: use a disk that all machines have at the same path, or empty CLUSTER_URL"
            )

    def close(self) -> None:
        self._client.close()


def _done(pickled: bytes) -> Any:
    """Returns what comes of a task."""
    task, given, named = pickle.loads(pickled)  # noqa: S301 - of the process that has the cluster work for it
    return task(*given, **named)


def versions() -> dict[str, str]:
    """Returns what the results of this process depend on: of Python, of packages, and the code of this project."""
    packages = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **packages, "taxifare": digest_of_code()}
