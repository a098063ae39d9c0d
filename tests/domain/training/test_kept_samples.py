"""Samples that are kept: the very same trips are rehearsed as if every month were read anew, and none is."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.whole_months import NothingToTakeError, NotWholeError, take, whole_month
from taxifare.training import kept_samples
from taxifare.training.base_trips import BaseTrips
from taxifare.training.kept_samples import KeptSamples
from taxifare.training.rehearsal import Past
from taxifare.trips.editions import TripBatches, Trips
from taxifare.trips.months import Month, bounds, months_between, parse_month
from taxifare.trips.preparation import split_month
from taxifare.trips.publication import Publication
from taxifare.trips.table import as_trip_table
from tests.support.published import Published
from tests.support.rehearsals import reservoir, sound_months_before
from tests.support.small import base_file, small_settings

FIRST, LAST = parse_month("2014-12"), parse_month("2015-04")

MONTHS = list(months_between(FIRST, LAST))

CHANGES: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "dearer": lambda trips: trips.assign(fare_amount=trips["fare_amount"] + 1),
    "its first half": lambda trips: trips[: len(trips) // 2],
    "one in three": lambda trips: trips[::3],
    "one in six": lambda trips: trips[::6],
    "nowhere": lambda trips: trips.assign(pickup_latitude=0.0),
    "all at one moment": lambda trips: trips.assign(pickup_datetime=trips["pickup_datetime"].iloc[-1]),
}

SETTINGS: Mapping[str, object] = {
    "seed": 2,
    "rehearsal_trips": 700,
    "minimum_trips": 150,
    "month_least_share": 0.9,
    "first_month": "2015-01",
}


def few(home: Path, **changes: object) -> Settings:
    small: dict[str, object] = {"first_month": str(FIRST), "rehearsal_trips": 500, "simulator_base_trips": 600}
    return small_settings(home, simulator_trips_per_month=300, **(small | changes))


@cache
def publication(month: Month) -> Publication:
    return make_source(few(Path("unused"))).read_month(month)


@cache
def base_years(trips: int) -> BaseTrips:
    with TemporaryDirectory() as home:
        return base_file(few(Path(home), dataset_size=trips))


class Remembered(Published):
    """The simulated city, whose months are simulated once."""

    def read_month(self, month: Month) -> Publication:
        self.read.append(str(month))
        found = publication(month)
        if month not in self.restated:
            return found
        revision, change = self.restated[month]
        return replace(found, trips=change(found.trips.copy()).reset_index(drop=True), revision=revision)


@dataclass
class Twins:
    """One city, and two lakes of it: in the first samples are kept, in the second every month is read each time."""

    home: Path
    changes: dict[str, object] = field(default_factory=dict)
    raw: dict[Month, Trips] = field(default_factory=dict)
    base_trips: int | None = None

    def __post_init__(self) -> None:
        self.source = Remembered(make_source(few(self.home)))

    @property
    def both(self) -> tuple[Settings, Settings]:
        ours, theirs = (few(self.home / name, **self.changes) for name in ("ours", "theirs"))
        for settings in (ours, theirs):
            settings.home.mkdir(exist_ok=True)
        return ours, theirs

    def base(self) -> BaseTrips | None:
        return None if self.base_trips is None else base_years(self.base_trips)

    def restate(self, month: Month, how: str) -> None:
        self.source.restated[month] = (how, CHANGES[how])

    def put_back(self, month: Month, _how: str) -> None:
        self.source.restated.pop(month, None)

    def run(self, month: Month, _how: str) -> None:
        """Its raw trips are in the lake from now on, if it is whole."""
        for settings in self.both:
            try:
                published = whole_month(self.source, month, settings, settings.lake)
                assert isinstance(published, Publication)
                self.raw[month] = split_month(published, month, settings.validation_share)
            except (NotWholeError, ValueError):
                pass

    def lose(self, month: Month, _how: str) -> None:
        self.raw.pop(month, None)

    def take(self, month: Month, _how: str) -> None:
        said = []
        for settings in self.both:
            try:
                said.append(take(self.source, month, settings, settings.lake, by="Ada", reason="the rest is lost"))
            except NothingToTakeError as error:
                said.append(str(error)[:40])
        assert said[0] == said[1]

    def gather(self, month: Month, _how: str) -> None:
        self.base_trips = {0: None, 1: 300}.get(month.month % 3, 500)

    def lose_samples(self, _month: Month, _how: str) -> None:
        shutil.rmtree(self.home / "ours" / "lake" / "rehearsal_samples", ignore_errors=True)

    def damage(self, month: Month, _how: str) -> None:
        for file in (self.home / "ours" / "lake" / "rehearsal_samples").glob(f"*{month}*"):
            file.write_bytes(file.read_bytes()[:-9])

    def rehearse(self, month: Month, _how: str) -> None:
        ours, theirs = self.both
        past = Past(self.source, self.base, self.raw.get, ours)
        base: list[TripBatches] = [] if (years := self.base()) is None else [years]
        sound = sound_months_before(month, self.source, self.raw.get, theirs)
        found = past.rehearsed(past.published_before(month))
        expected = reservoir(chain(base, sound), theirs.rehearsal_trips, theirs.seed)
        pd.testing.assert_frame_equal(found, expected)


HAPPENINGS = ["restate", "put_back", "run", "lose", "take", "gather", "lose_samples", "damage", "rehearse", "rehearse"]


@hypothesis_settings(max_examples=12, deadline=None)
@given(
    happenings=st.lists(
        st.tuples(st.sampled_from(HAPPENINGS), st.sampled_from(MONTHS), st.sampled_from(sorted(CHANGES))), max_size=12
    ),
    change=st.sampled_from([None, *SETTINGS]),
)
def test_whatever_happens_the_very_same_trips_are_rehearsed(
    happenings: list[tuple[str, Month, str]], change: str | None
) -> None:
    """Months are restated, taken, run and lost, base years gathered anew, samples lost and damaged."""
    with TemporaryDirectory() as home:
        twins = Twins(Path(home))
        for what, month, how in happenings:
            getattr(twins, what)(month, how)
        twins.rehearse(LAST + 1, "")
        if change is not None:
            twins.changes = {change: SETTINGS[change]}
            twins.rehearse(LAST + 1, "")
        twins.rehearse(LAST, "")


# What is read


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    return Twins(tmp_path)


def read_for(twins: Twins, month: Month) -> list[str]:
    """The months that are read when what a month rehearses is made."""
    twins.source.read.clear()
    past = Past(twins.source, twins.base, twins.raw.get, twins.both[0])
    past.rehearsed(past.published_before(month))
    return list(twins.source.read)


def test_each_month_is_read_once(twins: Twins) -> None:
    """In order, as months are run; a backfill that begins at the end reads them all, once."""
    assert [read_for(twins, month + 1) for month in MONTHS[:3]] == [["2014-12"], ["2015-01"], ["2015-02"]]
    assert read_for(twins, LAST + 1) == ["2015-03", "2015-04"]
    assert [read_for(twins, month) for month in MONTHS] == [[]] * 5


def test_of_a_restated_month_and_no_other_the_sample_is_made_anew(twins: Twins) -> None:
    read_for(twins, LAST + 1)
    twins.restate(FIRST + 1, "dearer")
    assert read_for(twins, LAST + 1) == ["2015-01"]
    assert read_for(twins, LAST + 1) == []


def test_a_month_that_waits_is_not_read_again_until_it_is_taken(twins: Twins) -> None:
    twins.restate(FIRST + 1, "its first half")
    twins.rehearse(LAST + 1, "")
    assert read_for(twins, LAST + 1) == []
    twins.take(FIRST + 1, "")
    assert read_for(twins, LAST + 1) == ["2015-01"]
    assert read_for(twins, LAST + 1) == []


@pytest.mark.parametrize("change", ["seed", "rehearsal_trips", "minimum_trips"])
def test_other_settings_draw_anew(twins: Twins, change: str) -> None:
    read_for(twins, LAST + 1)
    twins.changes = {change: SETTINGS[change]}
    assert read_for(twins, LAST + 1) == list(map(str, MONTHS))


def test_other_code_draws_anew(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a release cleans otherwise is rehearsed otherwise."""
    read_for(twins, LAST + 1)
    monkeypatch.setattr(kept_samples, "_code", lambda: ["other", "code"])
    assert read_for(twins, LAST + 1) == list(map(str, MONTHS))


def test_a_damaged_sample_is_told_and_made_anew(twins: Twins, caplog: pytest.LogCaptureFixture) -> None:
    read_for(twins, LAST + 1)
    for month in (LAST, FIRST):
        twins.damage(month, "")
    assert read_for(twins, LAST + 1) == ["2014-12", "2015-04"]
    assert "2015-04.parquet is damaged, and is made anew" in caplog.text


@pytest.mark.parametrize("marks", [b"no JSON", b'{"drawn_from": [1]}', b"[]"])
def test_a_sample_with_marks_of_another_make_is_made_anew(tmp_path: Path, marks: bytes) -> None:
    settings = few(tmp_path)
    place = settings.lake / "rehearsal_samples" / "2015-01.parquet"
    place.parent.mkdir(parents=True)
    table = pa.table({"wait": [1.0]}).replace_schema_metadata({b"taxifare.rehearsal_sample": marks})
    pq.write_table(table, str(place))
    assert KeptSamples(settings).find("2015-01", frozenset()) is None


def test_base_years_are_told_apart_by_what_was_gathered(tmp_path: Path) -> None:
    """The same revision at the source gives others where DATASET_SIZE is another."""
    fewer, more, again = (base_file(few(tmp_path, dataset_size=size)) for size in (300, 500, 300))
    assert fewer.edition == more.edition
    assert fewer.content == again.content != more.content


@pytest.mark.real_trips
def test_real_months_are_rehearsed_alike_with_and_without_kept_samples(real_trips: Path, tmp_path: Path) -> None:
    """2009's months, cut from the real years; the newest is restated by a correction of one fare."""
    trips = as_trip_table(pd.read_parquet(real_trips / "taxi_base_2009_2014.parquet"), "base")
    months = list(months_between(parse_month("2009-01"), parse_month("2009-04")))
    of_month = {}
    for month in months:
        start, end = bounds(month)
        times = trips["pickup_datetime"]
        of_month[month] = trips[(times >= start) & (times < end)].reset_index(drop=True)
    settings = small_settings(tmp_path, first_month="2009-01", rehearsal_trips=2_000)

    class Real(Published):
        def months(self) -> dict[Month, str]:
            return {month: self.restated[month][0] if month in self.restated else "r1" for month in months}

        def read_month(self, month: Month) -> Publication:
            return Publication(of_month[month], self.months()[month], "real trips")

    source = Real(make_source(settings))
    past = Past(source, lambda: None, lambda _month: None, settings)

    def both(month: Month) -> None:
        found = past.rehearsed(past.published_before(month))
        sound = list(sound_months_before(month, source, lambda _month: None, settings))
        assert len(sound) == month.month - 1
        pd.testing.assert_frame_equal(found, reservoir(sound, settings.rehearsal_trips, settings.seed))

    for month in months:
        both(month + 1)
    of_month[months[-1]].loc[0, "fare_amount"] += 1
    source.restated[months[-1]] = ("r2", lambda frame: frame)
    both(months[-1] + 1)
