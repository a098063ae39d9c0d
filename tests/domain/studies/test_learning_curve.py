"""The learning curve: its points are runs that are found again, its trips are held out, its interval is honest."""

import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import taxifare.studies.learning_curve
from taxifare.cli.main import app
from taxifare.gate.scores import student_interval
from taxifare.model.registry import ModelRegistry
from taxifare.reports import figures
from taxifare.settings import Settings
from taxifare.studies.learning_curve import LearningCurveError, Level, learning_curve
from taxifare.training.from_random_weights import fit_from_scratch
from taxifare.trips.editions import Trips
from tests.support.places import REPOSITORY
from tests.support.registry import runs_by_name
from tests.support.small import clean_base, small_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

pytestmark = pytest.mark.usefixtures("networks_without_tables")

DIES = """
import os, signal, sys
from pathlib import Path
import taxifare.studies.learning_curve
from taxifare.approval.versions import registry_of
from taxifare.studies.learning_curve import learning_curve
from taxifare.training.from_random_weights import fit_from_scratch
from tests.support.small import clean_base, plain_networks, small_settings

settings, fits = small_settings(Path(sys.argv[1])), []

def fit_or_die(trips, own, *, on_epoch):
    fits.append(own)
    if len(fits) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit_from_scratch(trips, own, on_epoch=on_epoch)

taxifare.studies.learning_curve.fit_from_scratch = fit_or_die
with plain_networks():
    learning_curve(clean_base(settings), registry_of(settings), settings, sizes=[100, 200], repeats=1)
"""


@dataclass(frozen=True)
class Fit:
    """What one point was fitted to, with which settings."""

    trips: pd.DataFrame
    settings: Settings


@dataclass(frozen=True)
class Curve:
    """A curve of 100, 800 and all trips, two repeats each, with what it was made of."""

    settings: Settings
    registry: ModelRegistry
    trips: Trips
    levels: tuple[Level, ...]
    run_id: str
    told: tuple[float, ...]
    fits: tuple[Fit, ...]


class Watch:
    """Fits networks, and keeps what they were fitted to."""

    def __init__(self) -> None:
        self.fits: list[Fit] = []

    def __call__(self, trips: pd.DataFrame, settings: Settings, **given: Any) -> Any:
        self.fits.append(Fit(trips, settings))
        return fit_from_scratch(trips, settings, **given)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Sees every fit."""
    watch = Watch()
    monkeypatch.setattr(taxifare.studies.learning_curve, "fit_from_scratch", watch)
    return watch


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory, open_registry: Callable[[Settings], ModelRegistry]) -> Curve:
    settings = small_settings(tmp_path_factory.mktemp("curve"))
    registry, trips, told, watch = open_registry(settings), clean_base(settings), [], Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taxifare.studies.learning_curve, "fit_from_scratch", watch)
        drawn = learning_curve(
            trips, registry, settings, sizes=[800, 100, None, 10_000_000], repeats=2, on_progress=told.append
        )
    return Curve(settings, registry, trips, drawn.levels, drawn.run_id, tuple(told), tuple(watch.fits))


def test_sizes_go_up_to_what_there_is(curve: Curve) -> None:
    training = len(curve.trips.training)
    assert [level.trips for level in curve.levels] == [100, 800, training]
    assert sorted(len(fit.trips) for fit in curve.fits) == [100, 100, 800, 800, training, training]


def test_more_trips_make_a_better_network_and_the_reference_hardly_better(curve: Curve) -> None:
    few, _, every = curve.levels
    assert every.interval.mean < few.interval.mean
    gained = few.interval.mean - every.interval.mean
    assert gained > few.reference_mae - every.reference_mae


def test_every_fit_is_judged_on_the_same_later_trips(curve: Curve) -> None:
    test = curve.trips.validation
    for fit in curve.fits:
        assert fit.trips["pickup_datetime"].max() < test["pickup_datetime"].min()
    assert {run.data.params["val_set_size"] for run in runs_by_name(curve.registry).values() if run.data.params} == {
        str(len(test))
    }


def test_repeats_have_other_trips_and_other_weights_and_sizes_of_a_repeat_share_theirs(curve: Curve) -> None:
    keys = {(fit.settings.seed, len(fit.trips)): set(fit.trips["key"]) for fit in curve.fits}
    first, second = sorted({seed for seed, _ in keys})
    assert keys[first, 100] != keys[second, 100]
    assert keys[first, 100] < keys[first, 800]
    assert keys[second, 100] < keys[second, 800]


def test_small_samples_come_in_small_batches(curve: Curve) -> None:
    batches = {len(fit.trips): fit.settings.batch_size for fit in curve.fits}
    assert batches[100] == 1
    assert batches[800] == 8
    assert all(size <= curve.settings.batch_size for size in batches.values())


def test_each_point_is_a_run_nested_in_that_of_the_curve(curve: Curve) -> None:
    runs = runs_by_name(curve.registry)
    parent = runs.pop("learning curve base")
    assert len(runs) == 6
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in (*runs.values(), parent)} == {"FINISHED"}
    maes = sorted(run.data.metrics["mae"] for run in runs.values())
    assert maes == sorted(mae for level in curve.levels for mae in level.maes)
    assert curve.run_id == parent.info.run_id


def test_progress_grows_to_the_whole(curve: Curve) -> None:
    assert list(curve.told) == sorted(curve.told)
    assert curve.told[0] < 0.2
    assert curve.told[-1] == pytest.approx(1.0)


def test_a_curve_that_is_there_is_not_measured_again_and_a_new_size_is(curve: Curve, watch: Watch) -> None:
    again = learning_curve(curve.trips, curve.registry, curve.settings, sizes=[100, 800, None], repeats=2)
    assert (again.levels, again.run_id) == (curve.levels, curve.run_id)
    assert watch.fits == []
    learning_curve(curve.trips, curve.registry, curve.settings, sizes=[100, 200], repeats=1)
    assert [len(fit.trips) for fit in watch.fits] == [200]


def test_other_settings_are_another_curve(curve: Curve, watch: Watch) -> None:
    wider = curve.settings.model_copy(update={"dense_width_factor": 0.25})
    learning_curve(curve.trips, curve.registry, wider, sizes=[100], repeats=1)
    assert len(watch.fits) == 1


@pytest.mark.slow
def test_a_killed_curve_goes_on_with_the_point_it_was_killed_in(
    settings: Settings, registry: ModelRegistry, watch: Watch
) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(settings.home)], check=False, cwd=REPOSITORY)
    assert died.returncode == -signal.SIGKILL
    killed = runs_by_name(registry)
    assert set(killed) == {"learning curve base", "100 trips, repeat 0", "200 trips, repeat 0"}

    resumed = learning_curve(clean_base(settings), registry, settings, sizes=[100, 200], repeats=1)

    assert [len(fit.trips) for fit in watch.fits] == [200]
    after = runs_by_name(registry)
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in killed.items()
    }
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert resumed.levels[0].maes == (killed["100 trips, repeat 0"].data.metrics["mae"],)


@pytest.mark.parametrize(("sizes", "repeats"), [([10_000_000], 1), ([], 1), ([100], 0)])
def test_a_curve_without_points_is_refused(curve: Curve, sizes: list[int | None], repeats: int) -> None:
    with pytest.raises(LearningCurveError, match="expected sizes up to"):
        learning_curve(curve.trips, curve.registry, curve.settings, sizes=sizes, repeats=repeats)


def test_the_interval_covers_with_few_repeats() -> None:
    """Of 4,000 times three repeats; the normal interval would cover 81 %."""
    rng = np.random.default_rng(0)
    intervals = [student_interval(rng.normal(2.0, 0.1, 3)) for _ in range(4000)]
    assert np.mean([interval.low <= 2.0 <= interval.high for interval in intervals]) == pytest.approx(0.95, abs=0.01)


def test_the_plot_has_a_logarithmic_axis_the_band_and_the_reference(
    curve: Curve, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or b"")
    figures.learning_curve(curve.levels, "USD")
    (axis,) = drawn[0].axes
    network, reference = axis.lines
    assert axis.get_xscale() == "log"
    assert "trips" in axis.get_xlabel()
    assert "USD" in axis.get_ylabel()
    np.testing.assert_allclose(network.get_ydata(), [level.interval.mean for level in curve.levels])
    np.testing.assert_allclose(reference.get_ydata(), [level.reference_mae for level in curve.levels])
    (band,) = [drawn for drawn in axis.collections if drawn.get_label() == "95 % interval of the mean"]
    box = band.get_datalim(axis.transData)
    assert box.y0 == pytest.approx(min(level.interval.low for level in curve.levels))


# The command


@pytest.fixture
def desk(settings: Settings, registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the settings of a small city in `.env`."""
    monkeypatch.chdir(tmp_path)
    chosen = settings.model_dump(mode="json", include={"simulator_base_trips", "max_epochs", "batch_size"})
    lines = [f"TAXIFARE_HOME={settings.home}", *(f"{name.upper()}={value}" for name, value in chosen.items())]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["learning-curve", *words], env={"COLUMNS": "160"})


def test_the_command_measures_the_trips_of_the_settings_and_keeps_the_curve(
    desk: Path, registry: ModelRegistry
) -> None:
    answer = run("--sizes", "100,1k", "--repeats", "1", "--output", "curve.png")
    assert answer.exit_code == 0, answer.output
    assert "100%" in answer.stderr
    assert "1,000" in answer.stdout
    png = (desk / "curve.png").read_bytes()
    assert struct.unpack(">II", png[16:24]) == (400, 320)
    (figure,) = registry.store.client.list_artifacts(runs_by_name(registry)["learning curve base"].info.run_id)
    assert figure.path == "learning_curve.png"


def test_sizes_that_are_none_are_refused_by_name(desk: Path) -> None:
    answer = run("--sizes", "1k,many")
    assert answer.exit_code == 2
    assert "expected a whole number, received 'many'" in answer.output
    answer = run("--sizes", "10000k")
    assert answer.exit_code == 1
    assert "LearningCurveError" in answer.stderr
