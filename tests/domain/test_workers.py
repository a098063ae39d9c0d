"""Workers: the same comes of a task in this machine's processes and on a cluster, though one dies in the middle."""

import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from taxifare import workers as module
from taxifare.settings import ExecutionSettings, Settings
from taxifare.workers import ALONE_S, WorkerDiedError, Workers, WorkersError, workers_if_worth
from tests.support.clusters import Cluster, dask_cluster
from tests.support.servers import free_port
from tests.support.tasks import begun_and_ended, deadly, refused, squared, squared_by_the_second


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster"), workers=2) as running:
        yield running


@pytest.fixture(scope="module", params=["two processes", pytest.param("a cluster", marks=pytest.mark.slow)])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    if request.param == "a cluster":
        settings = ExecutionSettings(cluster_url=request.getfixturevalue("cluster").url)
    else:
        settings = ExecutionSettings(workers=2)
    with Workers(settings) as found:
        assert found.count == 2
        yield found


def test_the_same_comes_of_it_though_a_worker_dies(workers: Workers, tmp_path: Path) -> None:
    dying = workers.submit(squared_by_the_second, 7, folder=tmp_path)
    begun = [workers.submit(squared, number) for number in range(20)]
    assert [one.result() for one in begun] == [number**2 for number in range(20)]
    assert dying.result() == 49
    assert len(list(tmp_path.glob("7.*"))) == 2, "it was done again, by another"


def test_what_a_task_raises_is_raised(workers: Workers) -> None:
    begun = workers.submit(refused, 3)
    with pytest.raises(ValueError, match="expected another number, received 3"):
        begun.result()


def test_a_worker_does_one_task_at_a_time(workers: Workers) -> None:
    done = [one.result() for one in [workers.submit(begun_and_ended, 0.05) for _ in range(8)]]
    for process in {process for process, _, _ in done}:
        spans = sorted((began, ended) for own, began, ended in done if own == process)
        assert all(ended <= following for (_, ended), (following, _) in pairwise(spans))


def test_a_task_that_kills_whoever_does_it_is_told_and_work_goes_on(workers: Workers) -> None:
    """One that has killed enough of them: two of this machine, four of a cluster, as dask's scheduler is made."""
    with pytest.raises(WorkerDiedError, match=r"deadly: .* died.*for want of memory"):
        workers.submit(deadly).result()
    assert workers.submit(squared, 4).result() == 16


def test_little_work_stays_in_this_process() -> None:
    alone, two = ExecutionSettings(workers=1), ExecutionSettings(workers=2)
    for settings, tasks, work_s in ((alone, 100, 1e6), (two, 1, 1e6), (two, 10, ALONE_S - 1), (two, 0, 0.0)):
        with workers_if_worth(settings, tasks, work_s) as workers:
            assert workers is None
    with workers_if_worth(two, 10, ALONE_S) as workers:
        assert workers is not None


# What cannot be


@pytest.mark.parametrize("url", ["http://10.0.0.4:8786", "tcp://10.0.0.4", "10.0.0.4:8786", "tcp://ada:love@host:8786"])
def test_what_is_no_scheduler_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValidationError, match=r"expected the address of a dask scheduler, as in tcp://"):
        Settings(_env_file=None, cluster_url=url)


def test_a_scheduler_that_is_away_or_something_else_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed  # noqa: F401 - takes a second of its own

    monkeypatch.setattr(module, "ANSWERS_WITHIN_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        for port in (free_port(), mute.getsockname()[1]):
            url = f"tcp://127.0.0.1:{port}"
            began = time.monotonic()
            with pytest.raises(WorkersError, match=f"CLUSTER_URL: expected a dask scheduler at {url}, received no"):
                Workers(ExecutionSettings(cluster_url=url))
            assert time.monotonic() - began < 20, "dask would wait for 30 s, or for ever"


@pytest.mark.slow
def test_workers_are_found_while_the_client_looks_for_them_by_itself(cluster: Cluster) -> None:
    """What it sees by itself, every two seconds, has no workers in it: read in its place, the cluster seemed empty."""
    import dask

    with dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}):
        for _ in range(3):
            with Workers(ExecutionSettings(cluster_url=cluster.url)) as workers:
                assert {workers._engine._counted() for _ in range(300)} == {2}  # type: ignore[attr-defined]


@pytest.mark.slow
def test_other_versions_are_told_before_work_begins(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = module.versions()
    monkeypatch.setattr(module, "version", lambda package: "1.0" if package == "numpy" else theirs[package])
    with pytest.raises(WorkersError, match=f"with numpy {theirs['numpy']}, here 1.0: install the same release"):
        Workers(ExecutionSettings(cluster_url=cluster.url))


@pytest.mark.slow
def test_a_folder_that_workers_do_not_see_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Workers(ExecutionSettings(cluster_url=cluster.url)) as workers:
        workers.ensure_sees("TAXIFARE_HOME", tmp_path)
        with pytest.raises(WorkersError, match="TAXIFARE_HOME: expected a folder that every worker"):
            workers.ensure_sees("TAXIFARE_HOME", Path("/proc/self/cwd"))  # each process has its own


@pytest.mark.slow
def test_a_cluster_that_cannot_do_it_is_told(tmp_path: Path) -> None:
    """No worker; then one of two threads, of which one draws from the other's random numbers."""
    with dask_cluster(tmp_path, workers=0) as cluster:
        settings = ExecutionSettings(cluster_url=cluster.url)
        with pytest.raises(WorkersError, match=f"expected workers at {cluster.url}, received none: start some"):
            Workers(settings)
        cluster.add_workers(1, threads=2)
        with pytest.raises(WorkersError, match=r"expected workers of one thread.* with 2: start them as dask worker"):
            Workers(settings)


@pytest.mark.slow
def test_a_scheduler_that_goes_away_while_there_is_work_is_told(tmp_path: Path) -> None:
    with dask_cluster(tmp_path, workers=1) as cluster, Workers(ExecutionSettings(cluster_url=cluster.url)) as workers:
        begun = workers.submit(begun_and_ended, 60)
        time.sleep(1)
        cluster.scheduler.kill()
        with pytest.raises(WorkersError, match=f"scheduler at {cluster.url} went away while there was work: start it"):
            begun.result(timeout=60)
