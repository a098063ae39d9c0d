"""Figures: what they show is what was measured, each axis has its unit, and none stays in memory."""

import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from taxifare.gate.gains import SlicedGains, gains_of
from taxifare.gate.scores import Interval
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.model.fitting import Epoch, TrainingHistory
from taxifare.monitoring.realised import MonthErrors
from taxifare.reports import figures
from taxifare.trips.targets import FARE
from tests.support.cities import NEW_YORK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY = TrainingHistory(
    epochs=(
        Epoch(0, 3, float("nan"), 9.0, 0.1),
        Epoch(1, 3, 4.0, 3.0, 1.0),
        Epoch(2, 3, 3.5, 2.5, 1.0),
        Epoch(3, 3, 3.4, 2.6, 1.0),
    ),
    best_epoch=2,
    seconds=3.1,
    trips=1000,
    learning_rate=0.01,
    batch_size=512,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> "list[Figure]":
    """The figures as they were before they became PNGs."""
    kept_figures: list[Figure] = []
    draw = figures.png

    def kept(figure: "Figure") -> bytes:
        kept_figures.append(figure)
        return draw(figure)

    monkeypatch.setattr(figures, "png", kept)
    return kept_figures


def size(png: bytes) -> tuple[int, int]:
    """Width and height as the PNG says; it is one."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def errors(january: pd.DataFrame) -> pd.Series:
    """Predictions that are 1 USD too high before noon and 3 USD too low from noon on, in another order of rides."""
    after_noon = january["pickup_datetime"].dt.hour >= 12
    predicted = january["target"] + np.where(after_noon, -3.0, 1.0)
    return pd.Series(predicted.to_numpy(), index=january["key"]).sample(frac=1, random_state=1)


def test_each_figure_is_a_png_of_bearable_size(january: pd.DataFrame) -> None:
    for png, panels in (
        (figures.trips_overview(january, FARE), 3),
        (figures.training_curve(HISTORY, "USD"), 1),
        (figures.errors_by_hour(errors(january), january, FARE), 2),
    ):
        assert size(png) == (400 * panels, 320)
        assert len(png) < 200_000


def test_every_panel_asks_a_question_and_every_axis_has_a_unit(january: pd.DataFrame, drawn: "list[Figure]") -> None:
    figures.trips_overview(january, FARE)
    figures.training_curve(HISTORY, "USD")
    figures.errors_by_hour(errors(january), january, FARE)
    for axes in (axes for figure in drawn for axes in figure.axes):
        assert axes.get_title()
        for label in (axes.get_xlabel(), axes.get_ylabel()):
            assert any(unit in label for unit in ("USD", "km", "degrees", "%", "hour", "epoch")), label


def test_errors_are_of_the_rides_they_belong_to(january: pd.DataFrame, drawn: "list[Figure]") -> None:
    """Predictions come by key and in any order; on other rides' fares the bars would be another month's."""
    figures.errors_by_hour(errors(january), january, FARE)
    by_hour, pairs = drawn[0].axes
    heights = [bar.get_height() for bar in by_hour.patches]
    hours = january["pickup_datetime"].dt.hour.unique()
    assert len(heights) == 24
    for hour in hours:
        assert heights[hour] == pytest.approx(1.0 if hour < 12 else 3.0)
    bias = by_hour.lines[0].get_ydata()
    assert bias[9] == pytest.approx(1.0), "priced too high"
    assert bias[18] == pytest.approx(-3.0), "priced too low"
    paid, predicted = np.asarray(pairs.collections[0].get_offsets()).T
    np.testing.assert_allclose(paid, january["target"])
    assert set(np.round(predicted - paid, 6)) == {1.0, -3.0}


def test_predictions_read_back_from_parquet_find_their_rides(
    january: pd.DataFrame, drawn: "list[Figure]", tmp_path: Path
) -> None:
    """Their keys come back in another text type."""
    errors(january).rename("usd").to_frame().to_parquet(tmp_path / "predictions.parquet")
    figures.errors_by_hour(pd.read_parquet(tmp_path / "predictions.parquet")["usd"], january, FARE)
    assert drawn[0].axes[0].patches[9].get_height() == pytest.approx(1.0)


def test_hours_without_rides_are_empty_and_stay_in_their_place(january: pd.DataFrame, drawn: "list[Figure]") -> None:
    evening = january[january["pickup_datetime"].dt.hour >= 18]
    figures.errors_by_hour(errors(evening), evening, FARE)
    heights = np.array([bar.get_height() for bar in drawn[0].axes[0].patches])
    assert np.isnan(heights[:18]).all()
    np.testing.assert_allclose(heights[18:], 3.0)


def test_the_curve_starts_with_the_untrained_network_and_marks_the_weights_kept(drawn: "list[Figure]") -> None:
    figures.training_curve(HISTORY, "USD")
    loss, stopping, kept = drawn[0].axes[0].lines
    assert loss.get_xdata().tolist() == [1, 2, 3]
    assert loss.get_ydata().tolist() == [4.0, 3.5, 3.4]
    assert stopping.get_xdata().tolist() == [0, 1, 2, 3]
    assert stopping.get_ydata().tolist() == [9.0, 3.0, 2.5, 2.6]
    assert set(np.asarray(kept.get_xdata())) == {2}


def test_a_network_that_was_not_trained_has_a_curve_of_one_point() -> None:
    assert size(figures.training_curve(replace(HISTORY, epochs=HISTORY.epochs[:1]), "USD"))


def test_a_large_month_is_drawn_from_a_sample_and_counted_whole(january: pd.DataFrame, drawn: "list[Figure]") -> None:
    large = pd.concat([january] * 30, ignore_index=True)
    figures.trips_overview(large, FARE)
    place, price, hours = drawn[0].axes
    assert len(place.collections[0].get_offsets()) == len(price.collections[0].get_offsets()) == 20_000
    assert sum(bar.get_height() for bar in hours.patches) == pytest.approx(100)


def test_no_figure_stays_in_memory(january: pd.DataFrame) -> None:
    """The pyplot interface keeps every figure until it is closed, in a process that runs for months."""
    figures.trips_overview(january, FARE)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def saved(usd: float) -> SlicedGains:
    """A month that gained so much a ride, a cent more and less in turn by day."""
    days = np.repeat(np.arange(10), 50)
    return SlicedGains(all=gains_of(usd + 0.01 * (1 - 2 * (days % 2)), days))


def test_the_track_record_shows_what_was_saved_so_far_and_where_it_began_anew(drawn: "list[Figure]") -> None:
    months = tuple(
        MonthOnRecord(month=f"2015-0{number}", revision="r", candidate=str(number), gains=saved(usd))
        for number, usd in enumerate((0.02, 0.04, -0.20, 0.01), 1)
    )
    figures.track_record(TrackRecord(production="7", months=months), "USD")
    (axes,) = drawn[0].axes
    _, so_far, begun = axes.lines
    assert list(so_far.get_ydata()) == pytest.approx([0.02, 0.03, (0.02 + 0.04 - 0.20) / 3, 0.01])
    assert list(begun.get_xdata()) == [3, 3], "March left it surely worse than production"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2015-01", "2015-02", "2015-03", "2015-04"]
    assert axes.get_ylabel() == "saved so far, USD a ride"
    assert axes.get_title() == "What has it saved since version 7?"


def test_errors_over_time_show_what_was_promised_told_and_decided(drawn: "list[Figure]") -> None:
    told = Interval(mean=2.0, low=1.9, high=float("inf"))
    months = (
        MonthErrors(month="2012-08", production=1.8, staging=1.7, difficulty=2.4),
        MonthErrors(month="2012-09", production=2.5, staging=2.0, difficulty=2.6, realised=told),
    )
    png = figures.errors_over_time(months, {"2012-08": "5", "2014-01": "7"}, NEW_YORK.rules, "USD")
    assert png.startswith(b"\x89PNG")
    (panel,) = drawn[-1].axes
    assert panel.get_ylabel() == "mean absolute error, USD a ride"
    assert [text.get_text() for text in panel.texts] == ["version 5", "fares_2012_09"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["2012-08", "2012-09"]
    assert figures.errors_over_time(months[:1], {}, (), "USD").startswith(b"\x89PNG")


def test_a_candidate_that_is_yet_to_be_trained_is_not_missing_without_a_word(drawn: "list[Figure]") -> None:
    before = MonthErrors(month="2012-08", production=1.8, staging=1.7, difficulty=2.4)
    figures.errors_over_time((before, MonthErrors(month="2012-09", production=2.5, difficulty=2.6)), {}, (), "USD")
    figures.errors_over_time((before,), {}, (), "USD")
    begun, done = ([text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn[-2:])
    assert "staging, on the same trips (2012-09: not trained yet)" in begun
    assert "staging, on the same trips" in done
