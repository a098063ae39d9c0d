"""Shared work: replay, search and learning curve come to the same by whoever does them, though one is killed."""

import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from taxifare import workers
from taxifare.approval.versions import registry_of
from taxifare.replay.policies import policies_of
from taxifare.replay.replaying import replay
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.studies.learning_curve import learning_curve
from taxifare.studies.results import Trial
from taxifare.studies.tuning import tune
from taxifare.trips.months import parse_month
from tests.support.clusters import Cluster, dask_cluster
from tests.support.small import clean_base, small_settings

pytestmark = pytest.mark.slow

Kill = Callable[[object], None]
"""Told of progress: kills a worker, the first time."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster"), workers=2) as running:
        yield running


@pytest.fixture(params=["two processes", "a cluster"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Kill]:
    """Settings by which work is shared, and what kills one of those who do it."""
    monkeypatch.setattr(workers, "ALONE_S", 0.0)
    killed: list[int] = []

    def kill(_progress: object) -> None:
        if not killed:
            killed.append(victim())
            os.kill(killed[0], signal.SIGKILL)

    if request.param == "two processes":

        def victim() -> int:
            return int(str(active_children()[0].pid))

        return {"workers": 2}, kill
    url = request.getfixturevalue("cluster").url

    def victim() -> int:
        from distributed import Client

        with Client(url, set_as_default=False) as client:
            return int(next(iter(client.run(os.getpid).values())))

    return {"cluster_url": url}, kill


ALONE: dict[str, Any] = {"workers": 1}


def test_a_learning_curve(tmp_path: Path, shared: tuple[dict[str, Any], Kill]) -> None:
    def drawn(name: str, how: dict[str, Any], kill: Kill | None = None) -> object:
        settings = small_settings(tmp_path / name, **how)
        base, registry = clean_base(settings), registry_of(settings)
        registry.prepare()
        return learning_curve(base, registry, settings, sizes=[200, 400], repeats=2, on_progress=kill).levels

    assert drawn("shared", *shared) == drawn("alone", ALONE)


def test_a_search(tmp_path: Path, shared: tuple[dict[str, Any], Kill]) -> None:
    """Of twelve trials: ten drawn at random, two that follow from all before; some are given up early."""

    def found(name: str, how: dict[str, Any], kill: Kill | None = None) -> list[tuple[object, ...]]:
        settings = small_settings(tmp_path / name, simulator_base_trips=600, **how)
        base, registry = clean_base(settings), registry_of(settings)
        registry.prepare()
        trials: list[Trial] = list(tune(base, registry, settings, trials=12, on_trial=kill).trials)
        return [(trial.number, trial.end, trial.settings, trial.mae) for trial in trials]

    assert found("shared", *shared) == found("alone", ALONE)


def test_a_replay(tmp_path: Path, shared: tuple[dict[str, Any], Kill]) -> None:
    def replayed(name: str, how: dict[str, Any], kill: Kill | None = None) -> dict[str, Any]:
        settings: Settings = small_settings(tmp_path / name, simulator_base_trips=600, **how)
        first, last = parse_month("2015-01"), parse_month("2015-03")
        policies = policies_of(["gate", "always"])
        done = replay(
            make_source(settings), settings, first=first, last=last, policies=policies, on_progress=kill
        ).model_dump(mode="json")
        return without_seconds(done)

    assert replayed("shared", *shared) == replayed("alone", ALONE)


def without_seconds(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: without_seconds(value) for name, value in found.items() if "seconds" not in name}
    return [without_seconds(value) for value in found] if isinstance(found, list) else found
