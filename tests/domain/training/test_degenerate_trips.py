"""Trips that teach nothing, or next to nothing: a clear error, or a network whose fares are numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.model.fitting import TrainingError
from taxifare.settings import Settings
from taxifare.training.from_random_weights import fit_from_scratch, predict_trips
from taxifare.trips.features import feature_names
from tests.support.small import small_settings


@pytest.fixture
def quick(tmp_path: Path) -> Settings:
    return small_settings(tmp_path, batch_size=64, dense_width_factor=0.1)


def stops_of(trips: pd.DataFrame, stopping: Sequence[int]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    return np.isin(np.arange(len(trips)), stopping)


def test_one_trip_to_learn_from_and_one_to_stop_by_give_a_network(january: pd.DataFrame, quick: Settings) -> None:
    two = january.head(2)
    network, history = fit_from_scratch(two, quick, stops=stops_of(two, [1]))
    assert np.isfinite(predict_trips(network, january.tail(100), quick)).all()
    assert np.isfinite(history.epochs[history.best_epoch].validation_mae)


@pytest.mark.parametrize(("rows", "stopping"), [(1, []), (5, [])])
def test_without_a_trip_to_stop_by_there_is_no_network(
    january: pd.DataFrame, quick: Settings, rows: int, stopping: list[int]
) -> None:
    few = january.head(rows)
    with pytest.raises(TrainingError, match=r"validation rows: expected .* n > 0, received \(0, "):
        fit_from_scratch(few, quick, stops=stops_of(few, stopping))


@pytest.mark.parametrize("rows", [0, 1])
def test_without_a_trip_to_learn_from_there_is_no_network(january: pd.DataFrame, quick: Settings, rows: int) -> None:
    few = january.head(rows)
    with pytest.raises((TrainingError, ValueError), match=r"rows?\b.*"):
        fit_from_scratch(few, quick, stops=stops_of(few, range(rows)))


def test_features_that_never_vary_are_no_features(january: pd.DataFrame, quick: Settings) -> None:
    """Every trip the same, and one fare: the network learns the fare, and other trips still have finite ones."""
    names = list(feature_names(quick.city_facts))
    same = january.head(1).loc[[0] * 400].reset_index(drop=True).assign(target=12.5)
    network, _ = fit_from_scratch(same, quick, stops=stops_of(same, range(50)))
    assert predict_trips(network, same.head(1), quick) == pytest.approx(12.5, abs=1.0)
    assert np.isfinite(predict_trips(network, january, quick)).all()
    assert not january[names].isna().to_numpy().any()


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["target", "grid_km"])
def test_a_value_that_is_no_number_is_an_error_before_the_first_step(
    january: pd.DataFrame, quick: Settings, column: str, lost: float
) -> None:
    spoiled = january.head(200).assign(**{column: january[column].head(200).where(january.index[:200] != 7, lost)})
    with pytest.raises(TrainingError, match="training rows: expected finite features and targets"):
        fit_from_scratch(spoiled, quick, stops=stops_of(spoiled, range(100, 200)))


def test_steps_that_blow_up_are_an_error(january: pd.DataFrame, quick: Settings) -> None:
    wild = quick.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(TrainingError, match="expected finite numbers"):
        fit_from_scratch(january.head(500), wild)
