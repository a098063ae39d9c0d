"""The registry against real MLflow: models that carry their features, aliases, runs – and what a dead server is not."""

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import isfunction
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import requests

from taxifare.model.exposure import Exposure
from taxifare.model.fitting import InMemory, fit, predict, quantile_loss
from taxifare.model.network import ARCHITECTURES, build_network
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import FINGERPRINT_TAG, ModelRegistry
from taxifare.model.runs import PAGES_ADDRESS, Runs
from taxifare.model.store import MlflowStore, RegistryError
from taxifare.settings import Settings
from taxifare.trips.columns import KNOWN_AT_PICKUP
from taxifare.trips.features import InputError, compute_features, feature_names
from tests.support.approvals import content_of
from tests.support.cities import NEW_YORK
from tests.support.registry import add_version, all_runs, registry_at
from tests.support.servers import free_port, mlflow_server
from tests.support.small import small_settings

if TYPE_CHECKING:
    import keras

EXPOSURE = (
    Exposure(subject="base", revision="b", first_pickup=datetime(2009, 1, 1), last_pickup=datetime(2014, 12, 31, 23)),
    Exposure(
        subject="2015-01",
        revision="r1",
        first_pickup=datetime(2015, 1, 1, 0, 0, 1),
        last_pickup=datetime(2015, 1, 25, 17, 3, 2, 250_000),
    ),
)
HYPERPARAMETERS: dict[str, Any] = {"learning_rate": 0.001, "batch_size": 256, "patience": 2, "max_epochs": 1, "seed": 1}
TAGS = {"asset": "staging_model", "month": "2015-01", "dagster_run": "run-1"}

HOP_BY_HOP = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}

NEEDS_ONLY_MLFLOW = textwrap.dedent(
    """
    import sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {"taxifare", "taxifare_dagster", "dagster"}:
                raise ModuleNotFoundError(f"{name} is not installed here", name=name)

    sys.meta_path.insert(0, Absent())
    for name in ("taxifare", "taxifare_dagster", "dagster"):
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise AssertionError(f"{name} was to be absent")

    import mlflow
    import numpy as np
    import pandas as pd

    uri, model, trips, fares = sys.argv[1:]
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(model)
    np.save(fares, np.asarray(loaded.predict(pd.read_parquet(trips))))
    """
)


@dataclass(frozen=True)
class Trained:
    """A network that has learned a little, and what it had to say for itself before it was saved."""

    network: "keras.Model"
    features: npt.NDArray[np.float32]
    fares: npt.NDArray[np.float32]

    @property
    def mae(self) -> float:
        return float(np.abs(predict(self.network, self.features) - self.fares).mean(dtype=np.float64))

    @property
    def loss(self) -> float:
        return float(quantile_loss(self.fares[:, None], self.network(self.features)))


@pytest.fixture(scope="module")
def trained(january: pd.DataFrame) -> Trained:
    features = january[list(feature_names(NEW_YORK))].to_numpy(np.float32)
    fares = january["fare_amount"].to_numpy(np.float32)
    network = build_network(features, fares, NEW_YORK, learning_rate=0.001, seed=1, architecture=ARCHITECTURES[0])
    fit(network, InMemory(features, fares), features, fares, **HYPERPARAMETERS)
    return Trained(network, features, fares)


def put(registry: ModelRegistry, network: "keras.Model", fingerprint: str = "f1", **tags: str) -> str:
    """Registers a network in a run of its own."""
    with registry.runs.open("a test", {**TAGS, "fingerprint": fingerprint}) as run_id:
        return registry.register(network, NEW_YORK, EXPOSURE, run_id=run_id, fingerprint=fingerprint, tags=tags)


@dataclass(frozen=True)
class Stocked:
    """A registry with one version in it, which tests read and do not change."""

    registry: ModelRegistry
    version: str
    settings: Settings


@pytest.fixture(scope="module")
def stocked(
    trained: Trained,
    tmp_path_factory: pytest.TempPathFactory,
    open_registry: Callable[[Settings], ModelRegistry],
) -> Stocked:
    settings = small_settings(tmp_path_factory.mktemp("stocked"))
    registry = open_registry(settings)
    return Stocked(registry, put(registry, trained.network), settings)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@dataclass
class Relay:
    """A line to a server that can be cut while the server goes on.

    Attributes:
        url: Where it listens.
        falls_asleep_after: Cuts the line after answering an address that contains this.
    """

    url: str
    falls_asleep_after: str | None = None
    is_awake: bool = True

    def asleep(self) -> None:
        self.is_awake = False

    def awake(self) -> None:
        self.is_awake, self.falls_asleep_after = True, None


@contextmanager
def relay(server: str) -> Iterator[Relay]:
    """A line to the server, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not between.is_awake:
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            answer = requests.request(self.command, server + self.path, data=body, headers=headers, timeout=60)
            if between.falls_asleep_after is not None and between.falls_asleep_after in self.path:
                between.asleep()
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = forward  # noqa: N815
        do_POST = forward  # noqa: N815
        do_PUT = forward  # noqa: N815
        do_PATCH = forward  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Silence."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    between = Relay(f"http://127.0.0.1:{listener.server_port}")
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield between
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def fares_elsewhere(
    registry: ModelRegistry, version: str, trips: pd.DataFrame, folder: Path
) -> npt.NDArray[np.float32]:
    """The fares the version predicts in an isolated process elsewhere, without a line of this repository."""
    folder.mkdir()
    trips[list(KNOWN_AT_PICKUP)].to_parquet(folder / "trips.parquet")
    model = f"models:/{registry.model_name}/{version}"
    arguments = [registry.store.tracking_uri, model, str(folder / "trips.parquet"), str(folder / "fares.npy")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", NEEDS_ONLY_MLFLOW, *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.asarray(np.load(folder / "fares.npy"))


# A model that travels


def test_a_model_predicts_the_same_where_this_repository_was_never_heard_of(
    stocked: Stocked, trained: Trained, january: pd.DataFrame, tmp_path: Path
) -> None:
    fares = fares_elsewhere(stocked.registry, stocked.version, january, tmp_path / "elsewhere")
    np.testing.assert_allclose(fares, predict(trained.network, trained.features), rtol=1e-5)


def test_raw_trips_go_in_whatever_the_features_beside_them(
    stocked: Stocked, trained: Trained, january: pd.DataFrame
) -> None:
    model = stocked.registry.load(stocked.version)
    expected = predict(trained.network, trained.features)
    for trips in (january, january[list(KNOWN_AT_PICKUP)], january[list(reversed(KNOWN_AT_PICKUP))]):
        np.testing.assert_array_equal(model.predict(trips), expected)


PASSENGERS: list[pd.Series] = [
    pd.Series([1, 2, 5], dtype="Int32"),
    pd.Series([1, pd.NA, 5], dtype="Int32"),
    pd.Series([pd.NA, pd.NA, pd.NA], dtype="Int32"),
    pd.Series([1, 2, 5], dtype="int64"),
    pd.Series([1, 2, 5], dtype="int32"),
    pd.Series([1.0, np.nan, 5.0], dtype="float64"),
    pd.Series([np.nan, np.nan, np.nan], dtype="float64"),
    pd.Series([1, None, 5], dtype="object"),
]


@pytest.mark.parametrize("passengers", PASSENGERS, ids=lambda column: f"{column.dtype} {column.isna().sum()} null")
def test_passenger_counts_of_every_type_are_understood(
    stocked: Stocked, trained: Trained, january: pd.DataFrame, passengers: pd.Series
) -> None:
    trips = january.head(3).assign(passenger_count=passengers)
    fares = stocked.registry.load(stocked.version).predict(trips)
    one_for_null = january.head(3).assign(passenger_count=passengers.astype("Float64").fillna(1).astype("Int32"))
    np.testing.assert_allclose(fares, predict(trained.network, compute_features(one_for_null, NEW_YORK)), rtol=1e-5)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pickup_times_of_every_unit_are_understood(stocked: Stocked, january: pd.DataFrame, unit: str) -> None:
    model = stocked.registry.load(stocked.version)
    times = january["pickup_datetime"].dt.floor("s")
    fares = model.predict(january.assign(pickup_datetime=times.astype(f"datetime64[{unit}]")))
    np.testing.assert_array_equal(fares, model.predict(january.assign(pickup_datetime=times)))


def test_a_version_keeps_the_features_it_was_trained_with(
    stocked: Stocked, january: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code moves on, versions do not: otherwise production would change with a deployment."""
    before = stocked.registry.load(stocked.version).predict(january)
    for name in (
        "taxifare.trips.features.compute_features",
        "taxifare.model.fitting.predict",
        "taxifare.trips.features.haversine_km",
    ):
        monkeypatch.setattr(name, lambda *_args: pytest.fail("the code of today was asked"))
    np.testing.assert_array_equal(stocked.registry.load(stocked.version).predict(january), before)


def test_training_goes_on_where_it_stopped(stocked: Stocked, trained: Trained) -> None:
    loaded = stocked.registry.load(stocked.version)
    network = loaded.network
    assert int(network.optimizer.iterations) == int(trained.network.optimizer.iterations) > 0
    for restored, saved in zip(network.optimizer.variables, trained.network.optimizer.variables, strict=True):
        np.testing.assert_array_equal(restored, saved)
    parent_mae = trained.mae
    history = fit(
        network, InMemory(trained.features, trained.fares), trained.features, trained.fares, **HYPERPARAMETERS
    )
    assert history.epochs[0].validation_mae == pytest.approx(parent_mae, rel=1e-6), "epoch 0 is the parent"


def test_the_first_step_of_a_warm_start_has_the_parents_loss(stocked: Stocked, trained: Trained) -> None:
    """One step over all rows: its loss is measured before its weights move."""
    network = stocked.registry.load(stocked.version).network
    network.get_layer("jitter").stddev = 0.0  # so that the loss depends on nothing but weights and rows
    one_step = HYPERPARAMETERS | {"batch_size": len(trained.fares)}
    history = fit(network, InMemory(trained.features, trained.fares), trained.features, trained.fares, **one_step)
    assert history.epochs[1].loss == pytest.approx(trained.loss, rel=1e-5)


def test_each_load_is_a_copy_of_its_own(stocked: Stocked, trained: Trained, january: pd.DataFrame) -> None:
    before = stocked.registry.load(stocked.version).predict(january)
    spoiled = stocked.registry.load(stocked.version).network
    spoiled.set_weights([weights * 0 for weights in spoiled.get_weights()])
    np.testing.assert_array_equal(stocked.registry.load(stocked.version).predict(january), before)


def test_a_version_that_is_only_asked_is_loaded_once_and_verified_each_time(
    registry: ModelRegistry, trained: Trained, january: pd.DataFrame
) -> None:
    import mlflow

    version = put(registry, trained.network)
    asked = registry.load_once(version)
    assert registry.load_once(version) is asked
    np.testing.assert_array_equal(asked.predict(january), registry.load(version).predict(january))
    assert registry.load(version).network is not asked.network, "who trains has a copy"
    damaged_network(Path(mlflow.artifacts.download_artifacts(f"models:/{registry.model_name}/{version}")))
    with pytest.raises(VersionUnusableError, match="its files in MLflow are not those that were registered"):
        registry.load_once(version)


def test_exposure_and_features_travel_with_the_model(stocked: Stocked) -> None:
    loaded = stocked.registry.load(stocked.version)
    assert loaded.exposure == EXPOSURE
    assert loaded.features == feature_names(NEW_YORK)


def test_requirements_are_named_with_their_versions(stocked: Stocked) -> None:
    import keras
    import mlflow

    local = mlflow.artifacts.download_artifacts(f"models:/{stocked.registry.model_name}/{stocked.version}")
    assert f"keras=={keras.__version__}" in (Path(local) / "requirements.txt").read_text().splitlines()


# Versions


def test_versions_are_text_and_found_by_what_they_were_made_from(registry: ModelRegistry, trained: Trained) -> None:
    assert registry.find("f1") is None
    first, second = put(registry, trained.network, "f1", month="2015-01"), put(registry, trained.network, "f2")
    assert (first, second) == ("1", "2")
    found = registry.find("f1")
    assert found is not None
    assert (found.version, found.tags["month"], found.tags[FINGERPRINT_TAG]) == ("1", "2015-01", "f1")
    assert registry.describe("1") == found
    assert registry.find("f3") is None
    assert registry.find("f") is None, "a fingerprint is not a prefix"


def test_versions_and_experiment_say_what_they_are_and_keep_what_people_wrote(
    registry: ModelRegistry, trained: Trained
) -> None:
    client = registry.store.client
    client.set_experiment_tag(registry.store.experiment_id, "mlflow.note.content", "Ada's")
    registry.prepare()
    experiment = client.get_experiment_by_name(registry.store.experiment)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.note.content"] == "Ada's"
    assert "`production` is the version that a person" in client.get_registered_model("taxifare").description
    version = put(registry, trained.network)
    registry.tag(version, {"month": "base", "skill": "0.2"})
    described = client.get_model_version("taxifare", version).description
    assert described == "Learned the base years, starting from random weights.\nNobody was asked about it."


def test_versions_that_an_earlier_release_left_without_a_word_say_what_they_learned(registry: ModelRegistry) -> None:
    version, client = add_version(registry), registry.store.client
    client.set_model_version_tag("taxifare", version, "month", "2015-03")
    client.update_model_version("taxifare", version, "")
    registry.prepare()
    assert client.get_model_version("taxifare", version).description.startswith("Learned 2015-03, starting from")


def test_aliases_point_at_one_version_each(registry: ModelRegistry, trained: Trained) -> None:
    assert registry.production_version() is None
    assert registry.staging_version() is None
    first, second = put(registry, trained.network, "f1"), put(registry, trained.network, "f2")
    registry.set_production(first)
    registry.set_staging(second)
    assert (registry.production_version(), registry.staging_version()) == ("1", "2")
    registry.set_production(second)
    assert registry.production_version() == "2"
    registry.tag(second, {"why": "a test"})
    assert registry.describe(second).tags["why"] == "a test"


def test_a_version_that_never_was_is_an_error_that_names_it(registry: ModelRegistry) -> None:
    registry.prepare()
    attempts: list[Callable[[], object]] = [
        lambda: registry.load("7"),
        lambda: registry.describe("7"),
        lambda: registry.tag("7", {"a": "b"}),
        lambda: registry.set_production("7"),
    ]
    for attempt in attempts:
        with pytest.raises(RegistryError, match="version 7"):
            attempt()
    assert registry.production_version() is None


def test_two_registries_in_one_process_do_not_mix(
    settings: Settings, registry: ModelRegistry, stocked: Stocked, trained: Trained
) -> None:
    """MLflow keeps the store it talks to in a global."""
    put(registry, trained.network, "mine")
    assert stocked.registry.find("mine") is None
    with stocked.registry.runs.open("theirs", TAGS) as run_id:
        assert stocked.registry.store.client.get_run(run_id).info.status == "RUNNING"
    assert registry.load("1").version == "1"


# Damage


def damaged_network(model: Path) -> None:
    path = model / "artifacts" / "network.keras"
    path.write_bytes(path.read_bytes()[:-200])


def empty_network(model: Path) -> None:
    (model / "artifacts" / "network.keras").write_bytes(b"")


def missing_pickle(model: Path) -> None:
    (model / "python_model.pkl").unlink()


def torn_pickle(model: Path) -> None:
    path = model / "python_model.pkl"
    path.write_bytes(path.read_bytes()[:100])


def missing_description(model: Path) -> None:
    (model / "MLmodel").unlink()


def missing_everything(model: Path) -> None:
    shutil.rmtree(model)


@pytest.mark.parametrize(
    "damage",
    [damaged_network, empty_network, missing_pickle, torn_pickle, missing_description, missing_everything],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_version_is_unusable_and_still_there(
    registry: ModelRegistry, trained: Trained, damage: Callable[[Path], None]
) -> None:
    import mlflow

    version = put(registry, trained.network)
    registry.set_production(version)
    damage(Path(mlflow.artifacts.download_artifacts(f"models:/{registry.model_name}/{version}")))
    with pytest.raises(VersionUnusableError, match="version 1 cannot be loaded: "):
        registry.load(version)
    assert registry.production_version() == "1", "an unusable production is not a missing one"


def test_a_version_that_predicts_nonsense_is_unusable(
    registry: ModelRegistry, trained: Trained, january: pd.DataFrame
) -> None:
    import keras

    spoiled = keras.models.clone_model(trained.network)
    spoiled.set_weights([weights * np.float32("nan") for weights in trained.network.get_weights()])
    spoiled.compile(optimizer="adam", loss="mae")
    model = registry.load(put(registry, spoiled))
    told = r"version 1: expected 5 finite predictions, received shape \(5,\) with 5"
    with pytest.raises(VersionUnusableError, match=told):
        model.predict(january.head(5))


def test_trips_without_their_columns_are_no_fault_of_the_version(stocked: Stocked, january: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="pickup_latitude"):
        stocked.registry.load(stocked.version).predict(january.drop(columns="pickup_latitude"))


@pytest.mark.parametrize(
    ("column", "value"),
    [("pickup_latitude", np.inf), ("dropoff_longitude", np.nan), ("pickup_datetime", pd.NaT)],
)
def test_a_ride_that_no_model_could_price_is_no_fault_of_the_version(
    stocked: Stocked, january: pd.DataFrame, column: str, value: object
) -> None:
    """It would be told as a version that does not predict, and a month as unscorable for one bad request."""
    trips = january.head(5).reset_index(drop=True)
    trips.loc[3, column] = value
    with pytest.raises(InputError, match=f"column {column}: 1 of 5 values"):
        stocked.registry.load(stocked.version).predict(trips)


# An outage is an error, never an answer


def open_run(registry: ModelRegistry) -> None:
    with registry.runs.open("a test", TAGS):
        pytest.fail("there is no run without a server")


EVERY_METHOD: dict[str, Callable[[ModelRegistry], object]] = {
    "prepare": ModelRegistry.prepare,
    "production_version": ModelRegistry.production_version,
    "set_production": lambda registry: registry.set_production("1"),
    "staging_version": ModelRegistry.staging_version,
    "mend": lambda registry: registry.store.mend(),
    "names_of": lambda registry: registry.names_of("r1"),
    "set_staging": lambda registry: registry.set_staging("1"),
    "tag": lambda registry: registry.tag("1", {"a": "b"}),
    "describe": lambda registry: registry.describe("1"),
    "find": lambda registry: registry.find("f1"),
    "register": lambda registry: registry.register(
        SimpleNamespace(
            save=lambda path: Path(path).write_bytes(b""), compile=lambda **_: None, optimizer=SimpleNamespace()
        ),
        NEW_YORK,
        EXPOSURE,
        run_id="r",
        fingerprint="f",
        tags={},
    ),
    "load": lambda registry: registry.load("1"),
    "load_once": lambda registry: registry.load_once("1"),
    "verify": lambda registry: registry.verify("1"),
    "as_they_are": ModelRegistry.as_they_are,
    "artifacts": lambda registry: registry.store.artifacts(),
    "open": open_run,
    "log": lambda registry: registry.runs.log("r", params={"a": 1}, metrics={"mae": 1.0}),
    "log_curve": lambda registry: registry.runs.log_curve("r", "loss", [1.0]),
    "log_predictions": lambda registry: registry.runs.log_predictions("r", pd.Series([1.0], index=["k"])),
    "read_predictions": lambda registry: registry.runs.read_predictions("r"),
    "url": lambda registry: registry.runs.url("r"),
    "pages": lambda registry: registry.runs.pages(),
    "describe_experiment": lambda registry: registry.store.describe_experiment(),
    "comparison_url": lambda registry: registry.runs.comparison_url(["r"]),
    "newest_of": lambda registry: registry.newest_of("base"),
    "newest_whole_month_of": lambda registry: registry.newest_whole_month_of("1"),
    "finished": lambda registry: registry.runs.finished({"a": "b"}),
    "tag of a run": lambda registry: registry.runs.tag("r", {"a": "b"}),
    "log_figure": lambda registry: registry.runs.log_figure("r", "errors", b""),
}


def test_the_outage_is_tried_on_every_method() -> None:
    methods = [
        name
        for kind in (ModelRegistry, Runs, MlflowStore)
        for name, value in vars(kind).items()
        if isfunction(value)
        and not name.startswith("_")
        and name not in {"migrate", "schema"}  # which ask a database, see test_migrating
    ]
    assert sorted(name.removesuffix(" of a run") for name in EVERY_METHOD) == sorted(methods)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_server_that_does_not_answer_is_an_error(method: str) -> None:
    """Not None, which would say that nothing is in production and start from scratch."""
    registry = registry_at(f"http://127.0.0.1:{free_port()}")
    registry.contents.record(content_of("1"))
    with pytest.raises(RegistryError, match="MLflow could not "):
        EVERY_METHOD[method](registry)


def test_a_store_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database, but long enough to be taken for a damaged one" * 20)
    with pytest.raises(RegistryError):
        registry_at(f"sqlite:///{tmp_path / 'mlflow.db'}").production_version()


# Runs


def test_a_run_that_ended_well_is_never_touched_again(registry: ModelRegistry) -> None:
    """ "Re-execute all" of a month that was approved: the approved version's run says what was decided on."""
    with registry.runs.open("first", TAGS) as first:
        pass
    with registry.runs.open("first", TAGS) as again:
        registry.runs.log(again, metrics={"mae": 1.0})
    with registry.runs.open("another", TAGS | {"dagster_run": "run-2"}) as another:
        pass
    assert len({first, again, another}) == 3
    assert registry.store.client.get_run(first).data.metrics == {}
    run = registry.store.client.get_run(first)
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert TAGS.items() <= run.data.tags.items()


def test_a_retry_goes_on_in_the_run_that_failed(registry: ModelRegistry) -> None:
    def status(run_id: str) -> str:
        return str(registry.store.client.get_run(run_id).info.status)

    def fail() -> None:
        with registry.runs.open("a month", TAGS) as run_id:
            runs.append(run_id)
            raise ZeroDivisionError

    runs: list[str] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    (failed,) = runs
    assert status(failed) == "FAILED"
    with registry.runs.open("a month", TAGS) as retried:
        assert retried == failed
        assert status(retried) == "RUNNING"
        registry.runs.log(retried, params={"seed": 1})
    assert status(retried) == "FINISHED"


def test_a_run_that_was_killed_is_gone_on_with(registry: ModelRegistry) -> None:
    """Nobody could say that it ended."""
    run = registry.runs.open("a month", TAGS)
    killed = run.__enter__()
    import mlflow

    mlflow.tracking.fluent._active_run_stack.get().clear()
    with registry.runs.open("a month", TAGS) as retried:
        assert retried == killed
    assert registry.store.client.get_run(retried).info.status == "FINISHED"


def test_a_run_within_a_run_is_its_child(registry: ModelRegistry) -> None:
    import mlflow

    registry.prepare()
    mlflow.set_tracking_uri(registry.store.tracking_uri)
    with mlflow.start_run(experiment_id=registry.store.experiment_id) as parent:
        with registry.runs.open("a month", TAGS) as child:
            assert mlflow.active_run().info.run_id == child
        assert mlflow.active_run().info.run_id == parent.info.run_id, "the parent is still at work"
    assert registry.store.client.get_run(child).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_param_keeps_its_first_value(registry: ModelRegistry) -> None:
    """MLflow refuses another one; a retry that finds its version trained calls its context by another name."""
    with registry.runs.open("a month", TAGS) as run_id:
        registry.runs.log(run_id, params={"context": "renewal", "seed": 1}, metrics={"mae": 2.0})
        registry.runs.log(run_id, params={"context": "reuse", "seed": 1, "model_version": "2"}, metrics={"mae": 1.5})
    data = registry.store.client.get_run(run_id).data
    assert data.params == {"context": "renewal", "seed": "1", "model_version": "2"}
    assert data.metrics["mae"] == 1.5


def test_a_curve_has_one_point_an_epoch(registry: ModelRegistry) -> None:
    with registry.runs.open("a month", TAGS) as run_id:
        registry.runs.log_curve(run_id, "epoch_loss", [3.0, 2.0, 1.5])
    history = registry.store.client.get_metric_history(run_id, "epoch_loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0), (3, 1.5)]


def test_predictions_come_back_ride_by_ride(registry: ModelRegistry, january: pd.DataFrame) -> None:
    fares = pd.Series(np.arange(5, dtype=np.float32), index=january["key"].head(5))
    with registry.runs.open("a month", TAGS) as run_id:
        registry.runs.log_predictions(run_id, fares)
        registry.runs.log_predictions(run_id, fares + 1)
    back = registry.runs.read_predictions(run_id)
    assert back.tolist() == [1, 2, 3, 4, 5]
    assert back.index.tolist() == january["key"].head(5).tolist()
    assert registry.runs.url(run_id).startswith(f"{PAGES_ADDRESS}/#/experiments/"), "taxifare mlflow shows SQLite's"


# A store on SQLite


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    registry = registry_at(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    registry.prepare()
    assert registry.production_version() is None
    assert (tmp_path / "new" / "mlflow.db").exists()


def test_a_relative_store_is_in_the_working_folder(
    tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    registry = registry_at("sqlite:///mlflow.db")
    with registry.runs.open("a month", TAGS) as run_id:
        registry.runs.log_predictions(run_id, pd.Series([1.0], index=["k"]))
    assert len(list((tmp_path / "artifacts").rglob("*.parquet"))) == 1


def test_making_a_registry_touches_nothing(tmp_path: Path) -> None:
    registry_at(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    assert not list(tmp_path.iterdir())


# The same against a server


@pytest.fixture
def served(server: str, request: pytest.FixtureRequest) -> ModelRegistry:
    """A registry on the server, with an experiment and a model of the test's own."""
    name = request.node.name
    return registry_at(server, name)


@pytest.mark.end_to_end
def test_a_server_keeps_versions_that_are_text_and_models_that_predict_the_same(
    served: ModelRegistry, trained: Trained, january: pd.DataFrame
) -> None:
    version = put(served, trained.network, month="2015-01")
    assert version == "1"
    assert served.production_version() is None
    served.set_production(version)
    served.set_staging(version)
    assert (served.production_version(), served.staging_version()) == ("1", "1")
    found = served.find("f1")
    assert found == served.describe("1")
    assert found is not None
    assert found.tags["month"] == "2015-01"
    loaded = served.load(version)
    assert loaded.exposure == EXPOSURE
    np.testing.assert_array_equal(loaded.predict(january), predict(trained.network, trained.features))
    assert int(loaded.network.optimizer.iterations) > 0


# The files are those of a folder, which go elsewhere above, and a server's are read by the test before.
@pytest.mark.end_to_end
@pytest.mark.slow
def test_a_server_s_models_predict_the_same_where_this_repository_was_never_heard_of(
    served: ModelRegistry, trained: Trained, january: pd.DataFrame, tmp_path: Path
) -> None:
    fares = fares_elsewhere(served, put(served, trained.network), january, tmp_path / "elsewhere")
    np.testing.assert_allclose(fares, predict(trained.network, trained.features), rtol=1e-5)


@pytest.mark.end_to_end
def test_a_server_has_a_page_for_each_run_and_keeps_its_predictions(served: ModelRegistry) -> None:
    with pytest.raises(ZeroDivisionError), served.runs.open("a month", TAGS):
        raise ZeroDivisionError
    with served.runs.open("a month", TAGS) as run_id:
        served.runs.log(run_id, params={"a": 1})
        served.runs.log(run_id, params={"a": 2}, metrics={"mae": 1.0})
        served.runs.log_predictions(run_id, pd.Series([7.0], index=["k"]))
    assert served.runs.read_predictions(run_id).to_dict() == {"k": 7.0}
    url = served.runs.url(run_id)
    assert url.endswith(run_id)
    assert requests.get(url, timeout=30).status_code == 200
    runs = all_runs(served)
    assert [(run.info.run_id, run.info.status) for run in runs] == [(run_id, "FINISHED")]


@pytest.mark.end_to_end
def test_steps_that_start_together_on_an_empty_server_do_not_trip_over_each_other(server: str) -> None:
    """The two branches of a month in processes of their own; here as threads, which MLflow's server cannot tell."""
    registries = [registry_at(server, "together") for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda registry: registry.production_version(), registries)) == [None] * 8


@pytest.mark.end_to_end
def test_a_server_that_goes_silent_while_a_model_is_fetched_is_no_fault_of_the_version(
    server: str, trained: Trained
) -> None:
    with relay(server) as between:
        served = registry_at(between.url, "silent")
        version = put(served, trained.network)
        between.falls_asleep_after = "get-download-uri"
        with pytest.raises(RegistryError, match=f"find version {version}"):
            served.load(version)
        between.awake()
        assert served.load(version).version == version


@pytest.mark.end_to_end
def test_a_server_that_goes_silent_during_a_run_is_a_registry_error(server: str) -> None:
    with relay(server) as between:
        served = registry_at(between.url, "silent")
        served.prepare()

        def lose_it() -> None:
            with served.runs.open("a month", TAGS) as run_id:
                between.asleep()
                served.runs.log(run_id, metrics={"mae": 1.0})

        with pytest.raises(RegistryError, match="log to run"):
            lose_it()
        between.awake()
        with pytest.raises(RegistryError, match="end run"), served.runs.open("a month", TAGS):
            between.asleep()
        between.awake()
        with served.runs.open("a month", TAGS) as run_id:
            pass
        assert served.store.client.get_run(run_id).info.status == "FINISHED"
