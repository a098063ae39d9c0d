"""The base years as a file: every trip once, in random order, in bounded memory, the same from any source."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import taxifare.training.base_trips
import taxifare.training.from_random_weights
import taxifare.training.gathering
from taxifare.model.fitting import Matrix, TrainingRows, Vector
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.base import SourceError
from taxifare.training.base_trips import BaseTrips
from taxifare.training.from_random_weights import fit_from_scratch, fit_streamed, predict_trips
from taxifare.training.gathering import gather_base
from taxifare.trips.cleaning import clean
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.editions import BASE
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.splitting import SplitError
from taxifare.trips.table import TripTableError
from taxifare.trips.targets import DURATION, FARE
from tests.support.places import REPOSITORY
from tests.support.small import small_settings

TRIPS = 6_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path, simulator_base_trips=TRIPS, dataset_size=None)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The base trips as published, in one table."""
    source = make_source(small_settings(tmp_path_factory.mktemp("published"), simulator_base_trips=TRIPS))
    return source.read_base().whole().trips


def in_parts(trips: pd.DataFrame, size: int) -> BasePublication:
    parts = (
        Publication(trips.iloc[start : start + size].reset_index(drop=True), "r", "a test", dropped={"no_place": 1})
        for start in range(0, len(trips), size)
    )
    return BasePublication(parts, "r", "a test")


def content(trips: BaseTrips) -> bytes:
    file = io.BytesIO()
    trips.copy_to(file)
    return file.getvalue()


def all_trips(trips: BaseTrips) -> pd.DataFrame:
    return pd.concat(trips.batches(), ignore_index=True)


def test_every_clean_trip_is_in_the_file_once(published: pd.DataFrame, settings: Settings) -> None:
    gathered = gather_base(in_parts(published, 500), settings)
    kept = clean(published, settings.city_facts, settings.target_facts)
    found = all_trips(gathered.trips).sort_values("key", ignore_index=True)
    pd.testing.assert_frame_equal(found[list(COLUMN_NAMES)], kept.trips.sort_values("key", ignore_index=True))
    assert gathered.published_trips == TRIPS
    assert gathered.dropped == kept.dropped
    assert gathered.left_out == {"no_place": 12, "not_drawn": 0}
    assert gathered.trips.edition.subject == BASE
    assert gathered.trips.edition.revision == "r"


def test_the_parts_of_the_source_change_nothing(
    published: pd.DataFrame, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = content(gather_base(in_parts(published, TRIPS), settings).trips)
    monkeypatch.setattr(taxifare.training.gathering, "_TOGETHER", 1)
    shuffled = published.sample(frac=1, random_state=1, ignore_index=True)
    assert content(gather_base(in_parts(shuffled, 700), settings).trips) == at_once
    other_seed = settings.model_copy(update={"seed": settings.seed + 1})
    assert content(gather_base(in_parts(published, TRIPS), other_seed).trips) != at_once


def test_equal_trips_meet_wherever_they_were_published(
    published: pd.DataFrame, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taxifare.training.gathering, "_TOGETHER", 1)
    again = published.assign(key="again " + published["key"].astype(str))
    twice = gather_base(in_parts(pd.concat([published, again], ignore_index=True), TRIPS), settings)
    once = gather_base(in_parts(published, TRIPS), settings)
    assert content(twice.trips) == content(once.trips)
    kept = once.trips.training_trips + once.trips.validation_trips
    assert twice.dropped["duplicate"] == once.dropped["duplicate"] + kept
    assert twice.published_trips == sum(twice.dropped.values()) + kept


def test_the_latest_twentieth_is_for_validation(published: pd.DataFrame, settings: Settings) -> None:
    trips = gather_base(in_parts(published, TRIPS), settings).trips
    found = all_trips(trips)
    validation = found[found["is_validation"]]
    assert len(validation) == trips.validation_trips == round(len(found) * 0.05)
    assert validation["pickup_datetime"].min() > found.loc[~found["is_validation"], "pickup_datetime"].max()
    (seen,) = trips.exposure
    training = found.loc[~found["is_validation"], "pickup_datetime"]
    assert (seen.first_pickup, seen.last_pickup) == (training.min(), training.max())


def test_of_many_trips_no_more_validate_than_needed(
    published: pd.DataFrame, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taxifare.training.gathering, "VALIDATION_TRIPS", 40)
    trips = gather_base(in_parts(published, TRIPS), settings).trips
    found = all_trips(trips).sort_values("pickup_datetime")
    assert trips.validation_trips == 40
    assert found["is_validation"].to_numpy()[-40:].all()


def test_training_trips_come_in_random_order(published: pd.DataFrame, settings: Settings) -> None:
    trips = gather_base(in_parts(published, TRIPS), settings).trips
    first = trips.first_training(1_000)
    every = trips.first_training(10**9)
    assert len(every) == trips.training_trips
    years = np.arange(2009, 2015)
    shares = [part["pickup_datetime"].dt.year.value_counts(normalize=True)[years] for part in (first, every)]
    assert np.abs(shares[0] - shares[1]).max() < 4 * np.sqrt(1 / 6 * 5 / 6 / 1_000)
    assert abs(np.corrcoef(np.arange(len(every)), every["pickup_datetime"].astype("int64"))[0, 1]) < 0.05


class TestDatasetSize:
    def test_draws_over_all_years(self, published: pd.DataFrame, settings: Settings) -> None:
        gathered = gather_base(in_parts(published, 500), settings.model_copy(update={"dataset_size": 1_000}))
        found, kept = all_trips(gathered.trips), clean(published, settings.city_facts, settings.target_facts).trips
        assert len(found) == 1_000
        assert gathered.left_out["not_drawn"] == len(kept) - 1_000
        assert found["pickup_datetime"].dt.year.value_counts().between(110, 230).all()

    def test_a_smaller_one_is_part_of_a_larger_one(self, published: pd.DataFrame, settings: Settings) -> None:
        drawn = [
            all_trips(gather_base(in_parts(published, 500), settings.model_copy(update={"dataset_size": size})).trips)
            for size in (500, 2_000)
        ]
        assert set(drawn[0]["key"]) < set(drawn[1]["key"])

    @pytest.mark.parametrize("size", [None, TRIPS, 10 * TRIPS])
    def test_all_and_more_than_all_keep_everything(
        self, published: pd.DataFrame, settings: Settings, size: int | None
    ) -> None:
        found = gather_base(in_parts(published, 500), settings.model_copy(update={"dataset_size": size})).trips
        assert len(all_trips(found)) == len(clean(published, settings.city_facts, settings.target_facts).trips)


def test_a_file_of_another_form_says_what_to_do(tmp_path: Path, published: pd.DataFrame) -> None:
    published.to_parquet(tmp_path / "base_trips.parquet")
    with pytest.raises(TripTableError, match="earlier version: materialize base_trips again"):
        BaseTrips((tmp_path / "base_trips.parquet").open("rb"))


def test_too_few_trips_are_an_error(published: pd.DataFrame, settings: Settings) -> None:
    with pytest.raises(SplitError, match="one part would be empty"):
        gather_base(in_parts(published.head(5), 5), settings)


def test_trips_of_another_city_are_an_error_that_counts_them(published: pd.DataFrame, settings: Settings) -> None:
    paris = published.assign(pickup_longitude=2.35, pickup_latitude=48.86).head(4_000)
    with pytest.raises(
        SourceError, match=r"CITY=new-york, received 4,000 trips, all of them dropped: .*outside_city 3"
    ):
        gather_base(in_parts(paris, 4_000), settings)


def test_trips_that_are_all_dropped_say_what_they_seem_to_be(published: pd.DataFrame, settings: Settings) -> None:
    ends = {"pickup_longitude": "pickup_latitude", "pickup_latitude": "pickup_longitude"}
    with pytest.raises(SourceError, match=r"pickup longitudes lie in the city's latitudes, .*write TRIP_COLUMNS="):
        gather_base(in_parts(published.rename(columns=ends).head(500), 500), settings)
    with pytest.raises(
        SourceError, match=r"all of them dropped: .*fare 491\. column fare_amount: .* with the other sign"
    ):
        gather_base(in_parts(published.assign(fare_amount=-published["fare_amount"]).head(500), 500), settings)


def test_a_source_that_fails_half_way_leaves_nothing_behind(published: pd.DataFrame, settings: Settings) -> None:
    def parts() -> Iterator[Publication]:
        yield Publication(published.head(1_000), "r", "a test")
        raise SourceError("the line is dead")

    with pytest.raises(SourceError, match="the line is dead"):
        gather_base(BasePublication(parts(), "r", "a test"), settings)
    assert list(settings.home.iterdir()) == []


def test_the_trips_go_to_another_process_as_a_file(published: pd.DataFrame, settings: Settings) -> None:
    trips = gather_base(in_parts(published, TRIPS), settings).trips
    copied = BaseTrips(io.BytesIO(content(trips)))
    assert content(copied) == content(trips)
    assert copied.edition == trips.edition
    pd.testing.assert_frame_equal(all_trips(copied), all_trips(trips))
    assert pq.ParquetFile(io.BytesIO(content(trips))).metadata.num_rows == len(all_trips(trips))


def test_the_file_says_what_it_was_cleaned_for_and_each_trip_its_target(
    published: pd.DataFrame, settings: Settings
) -> None:
    for target in (FARE, DURATION):
        own = settings.model_copy(update={"target": target.name})
        trips = gather_base(in_parts(published, 500), own).trips
        assert trips.target == target.name
        assert all_trips(trips)["target"].to_numpy() == pytest.approx(target.of(all_trips(trips)).to_numpy())
        assert all_trips(trips)["target"].between(0, target.most, inclusive="neither").all()


def test_base_years_without_drop_off_times_are_an_error_that_names_them(
    published: pd.DataFrame, settings: Settings
) -> None:
    own = settings.model_copy(update={"target": "duration"})
    times = published["dropoff_datetime"]
    gather_base(in_parts(published.assign(dropoff_datetime=times.where(published.index > 5_000)), 500), own)
    told = f"a test: column dropoff_datetime: expected values, .* received none in {len(published):,} trips"
    with pytest.raises(SourceError, match=told):
        gather_base(in_parts(published.assign(dropoff_datetime=pd.NaT), 500), own)


@pytest.mark.usefixtures("networks_without_tables")
class TestTraining:
    def test_is_the_same_for_the_same_seed(self, published: pd.DataFrame, settings: Settings) -> None:
        trips = gather_base(in_parts(published, TRIPS), settings).trips
        (one, one_history, (one_errors, one_share)), (two, two_history, (two_errors, two_share)) = (
            fit_streamed(trips, settings) for _ in range(2)
        )
        assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
        assert np.array_equal(one_errors, two_errors)
        assert one_share == two_share
        assert one_history.epochs[-1].validation_mae == two_history.epochs[-1].validation_mae
        assert one_history.trips == trips.training_trips - len(one_errors)

    def test_what_decides_when_to_stop_is_not_learned(
        self, published: pd.DataFrame, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Parts of 250 trips, so that the held trips end in the middle of the third."""
        monkeypatch.setattr(taxifare.training.base_trips, "GROUP_TRIPS", 250)
        trips = gather_base(in_parts(published, TRIPS), settings).trips

        class LookedError(Exception):
            """Nothing needs to be fitted."""

        def look(training: TrainingRows, _sample: object, stops: tuple[Matrix, Vector], *_: object) -> None:
            learned = [
                np.column_stack([features, targets])[rows] for features, targets, rows in map(training.part, parts)
            ]
            rows_of = [{row.tobytes() for row in rows} for rows in (np.concatenate(learned), np.column_stack(stops))]
            assert [len(rows) for rows in learned] == [training.counts[part] for part in parts]
            assert 500 < len(rows_of[1]) < 750
            assert not rows_of[0] & rows_of[1]
            assert len(rows_of[0] | rows_of[1]) == trips.training_trips
            raise LookedError

        parts = range(len(trips.training_counts))
        monkeypatch.setattr(taxifare.training.from_random_weights, "fit_rows", look)
        with pytest.raises(LookedError):
            fit_streamed(trips, settings)

    @pytest.mark.slow
    def test_from_the_file_is_as_good_as_from_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Parts of 4,096 trips: the file of 30,000 is read in eight of them, in another order each epoch."""
        monkeypatch.setattr(taxifare.training.base_trips, "GROUP_TRIPS", 4_096)
        settings = small_settings(
            tmp_path, simulator_base_trips=30_000, dataset_size=None, max_epochs=3, batch_size=128
        )
        trips = gather_base(make_source(settings).read_base(), settings).trips
        assert len(trips.training_counts) > 5
        both = trips.preprocessed(settings.city_facts, None)
        training, validation = both.training, both.validation
        actual = validation["target"].to_numpy()
        maes = [
            np.abs(predict_trips(network, validation, settings) - actual).mean()
            for network in (fit_streamed(trips, settings)[0], fit_from_scratch(training, settings)[0])
        ]
        assert maes[0] == pytest.approx(maes[1], rel=0.05)


MEMORY = """
import sys
from pathlib import Path
from taxifare.training.gathering import gather_base
from taxifare.sources import make_source
from taxifare.model.fitting import peak_memory_mib
from tests.support.small import small_settings

settings = small_settings(Path(sys.argv[1]), simulator_base_trips=int(sys.argv[2]), dataset_size=None)
trips = gather_base(make_source(settings).read_base(), settings).trips
_ = [len(part) for part in trips.batches()], trips.preprocessed(settings.city_facts, 50_000)
print(peak_memory_mib())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_trips(tmp_path: Path) -> None:
    """900,000 more trips are 90 MB as a table, and twice that while it is sorted."""

    def peak_mib(trips: int) -> float:
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(trips)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        return float(done.stdout)

    assert peak_mib(1_200_000) - peak_mib(300_000) < 70
