"""A month that is too large for memory is prepared, inspected, learned from and judged as one that is not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.gate.scores import difficulty_of
from taxifare.gate.slices import judged_features, slice_masks
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.training.candidates import training_inputs
from taxifare.training.large_months import drawn
from taxifare.trips import stored
from taxifare.trips.columns import COORDINATES
from taxifare.trips.editions import Trips
from taxifare.trips.features import feature_names
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import (
    Inspection,
    inspect_clean,
    inspect_published,
    preprocess,
    preprocess_large,
    split_month,
    split_opened_month,
    with_features,
)
from taxifare.trips.publication import LargePublication, Publication
from taxifare.trips.stored import STORED, StoredTrips
from tests.support.rehearsals import reservoir
from tests.support.small import small_settings

JANUARY = parse_month("2015-01")
NEEDED = (*COORDINATES, "pickup_datetime", "target")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Months of more than a hundred trips are large, and go by batches of 64."""
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(stored, "BATCH_TRIPS", 64)


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return small_settings(tmp_path, simulator_trips_per_month=1_500)


@pytest.fixture
def published(own: Settings) -> Publication:
    """A month in which rides come twice, far from each other and beside each other, and one key as well."""
    found = make_source(own).read_month(JANUARY)
    trips = found.trips
    again = trips.iloc[[3, 3, 700, 1_200]].assign(key=["a", "b", "c", trips["key"].iloc[9]]).astype(trips.dtypes)
    together = pd.concat([trips, again]).sort_values("pickup_datetime", kind="stable", ignore_index=True)
    return replace(found, trips=together)


@pytest.fixture
def large(published: Publication, own: Settings) -> StoredTrips:
    """The same month, in its file."""

    def parts() -> Iterator[pd.DataFrame]:
        for start in range(0, len(published.trips), 64):
            yield published.trips.iloc[start : start + 64]

    shuffled = np.random.default_rng(0).permutation(published.pickups)
    known = {"fare_amount": len(shuffled)}
    opened = LargePublication(shuffled, parts, published.revision, published.origin, {}, known)
    told: list[int] = []
    split = split_opened_month(opened, JANUARY, own.validation_share, own.home, told.append)
    assert isinstance(split, StoredTrips)
    assert told[:2] + told[-1:] == [64, 128, len(published.trips)], "progress is told batch by batch"
    return split


@pytest.fixture
def in_memory(published: Publication, own: Settings) -> Trips:
    return split_month(published, JANUARY, own.validation_share)


def test_it_is_split_at_the_same_moment(large: StoredTrips, in_memory: Trips) -> None:
    pd.testing.assert_frame_equal(large.in_memory().frame, in_memory.frame)
    assert large.edition == in_memory.edition
    assert (large.rides, large.validation_trips) == (in_memory.rides, in_memory.validation_trips)
    assert not large.fits_in_memory


def test_it_is_cleaned_by_the_same_rules(large: StoredTrips, in_memory: Trips, own: Settings) -> None:
    """Duplicates are told apart over the whole month, not batch by batch."""
    once = preprocess(in_memory, own.city_facts, own.target_facts)
    by_batches = preprocess_large(large, own.city_facts, own.target_facts, own.home)
    assert by_batches.dropped == once.dropped
    assert once.dropped["duplicate"] == 4
    features = list(feature_names(own.city_facts))
    pd.testing.assert_frame_equal(by_batches.trips.in_memory().frame, once.trips.frame.drop(columns=features))
    assert by_batches.trips.target == once.trips.target


def test_the_same_speaks_against_it(large: StoredTrips, in_memory: Trips, own: Settings) -> None:
    def told(found: tuple[Inspection, ...]) -> list[str]:
        return [f"{inspection} {inspection.is_passed}" for inspection in found]

    assert told(inspect_published(large, JANUARY + 1, 5_000)) == told(
        inspect_published(in_memory.frame, JANUARY + 1, 5_000)
    )
    clean = preprocess_large(large, own.city_facts, own.target_facts, own.home).trips
    assert told(inspect_clean(clean, large.rides, NEEDED)) == told(
        inspect_clean(clean.in_memory().frame, large.rides, NEEDED)
    )


def test_of_a_month_without_one_clean_trip_there_is_nothing(large: StoredTrips, own: Settings) -> None:
    """Its checks say why, and stop it."""
    far = replace(own.city_facts, longitude_range_deg=(10.0, 10.1))
    none = preprocess_large(large, far, own.target_facts, own.home).trips
    shown = with_features(none.every_so_many(100), far)
    assert (none.rides, len(shown), set(shown)) == (0, 0, {*STORED, *feature_names(far)})
    found = drawn(none, far, judged_features(far))
    assert (found.rides, found.training_trips, found.validation_trips) == (0, 0, 0)
    inspections = {inspection.name: inspection for inspection in inspect_clean(none, large.rides, NEEDED)}
    assert not inspections["keeps_most_trips"].is_passed


def test_it_is_large_however_the_source_gives_it(
    large: StoredTrips, in_memory: Trips, published: Publication, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learned of a month depends on how many trips it has, not on who keeps them."""
    split = split_opened_month(published, JANUARY, own.validation_share, own.home)
    assert isinstance(split, StoredTrips)
    assert split.edition == large.edition
    pd.testing.assert_frame_equal(split.in_memory().frame, in_memory.frame)
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", len(published.trips))
    assert isinstance(split_opened_month(published, JANUARY, own.validation_share, own.home), Trips)


def test_it_is_rehearsed_alike(large: StoredTrips, in_memory: Trips, own: Settings) -> None:
    once = preprocess(in_memory, own.city_facts, own.target_facts).trips
    by_batches = preprocess_large(large, own.city_facts, own.target_facts, own.home).trips
    pd.testing.assert_frame_equal(reservoir([by_batches], 200, 5), reservoir([once], 200, 5))


class TestWhatIsDrawn:
    @pytest.fixture
    def clean(self, large: StoredTrips, own: Settings) -> StoredTrips:
        return preprocess_large(large, own.city_facts, own.target_facts, own.home).trips

    @pytest.fixture
    def whole(self, in_memory: Trips, own: Settings) -> Trips:
        return preprocess(in_memory, own.city_facts, own.target_facts).trips

    def test_where_all_are_drawn_they_are_the_month(self, clean: StoredTrips, whole: Trips, own: Settings) -> None:
        """To the last digit, difficulty and slices included: what is judged by batches is judged as a frame is."""
        names = judged_features(own.city_facts)
        found = drawn(clean, own.city_facts, names)
        pd.testing.assert_frame_equal(found.training, whole.training.reset_index(drop=True))
        validation = whole.validation.reset_index(drop=True)
        pd.testing.assert_frame_equal(found.validation, validation[list(found.validation.columns)])
        assert difficulty_of(found) == difficulty_of(whole)
        masks = slice_masks(found.validation, own.city_facts)
        for name, mask in slice_masks(validation, own.city_facts).items():
            assert masks[name].tolist() == mask.tolist()
        assert (found.rides, found.last_pickup) == (whole.rides, whole.last_pickup)
        assert training_inputs(found) == training_inputs(whole), "such a month has the version that it had"
        retrained = found.without_validation()
        assert set(retrained.training["key"]) == set(whole.frame["key"])
        assert retrained.validation.empty

    def test_of_more_some_are_drawn_evenly_and_always_the_same(
        self, clean: StoredTrips, whole: Trips, own: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stored, "MOST_LEARNED", 400)
        names = judged_features(own.city_facts)
        found, again = (drawn(clean, own.city_facts, names) for _ in range(2))
        pd.testing.assert_frame_equal(found.training, again.training)
        assert len(found.training) == 400
        assert len(found.validation) == len(whole.validation), "so few are all judged by"
        share = 400 / len(whole.training)
        assert len(found.without_validation().training) == 400 + round(share * len(whole.validation))
        place = np.flatnonzero(whole.training["key"].isin(found.training["key"]).to_numpy())
        assert place.mean() == pytest.approx(len(whole.training) / 2, rel=0.1), "early and late alike"
        inputs = training_inputs(found)
        assert (inputs["trips"], inputs["drawn_trips"]) == (whole.rides, 400)

    def test_of_many_for_validation_some_judge_and_as_many_are_learned(
        self, clean: StoredTrips, whole: Trips, own: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = judged_features(own.city_facts)
        all_judge = drawn(clean, own.city_facts, names)
        monkeypatch.setattr(stored, "MOST_JUDGED", 100)
        found, again = (drawn(clean, own.city_facts, names) for _ in range(2))
        pd.testing.assert_frame_equal(found.validation, again.validation)
        assert found.validation_trips == len(found.validation) == 100
        place = np.flatnonzero(whole.validation["key"].isin(found.validation["key"]).to_numpy())
        assert len(place) == 100
        assert place.mean() == pytest.approx(len(whole.validation) / 2, rel=0.2), "early and late alike"
        pd.testing.assert_frame_equal(found.training, all_judge.training)
        pd.testing.assert_frame_equal(found.without_validation().training, all_judge.without_validation().training)

    def test_what_is_shown_is_spread_over_the_month(self, clean: StoredTrips) -> None:
        shown, frame = clean.every_so_many(100), clean.in_memory().frame
        step = -(-len(frame) // 100)
        pd.testing.assert_frame_equal(shown, frame.iloc[::step].reset_index(drop=True))
