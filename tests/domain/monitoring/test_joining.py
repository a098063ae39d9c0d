"""Quotes and what rides came to: each fate, and nothing lost or doubled whatever comes in which order."""

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from upath import UPath

from taxifare.monitoring.due import months_due
from taxifare.monitoring.errors import MonitoringError
from taxifare.monitoring.gathering import GatheredQuotes, gather
from taxifare.monitoring.joining import Joined, Published, join, joined_with
from taxifare.monitoring.outcomes import OUTCOMES
from taxifare.serving.batches import score_in_inbox
from taxifare.serving.bundle import Bundle
from taxifare.serving.in_force import InForce
from taxifare.trips.months import parse_month
from tests.support.outcomes import ASKED_AT, outcome, published, quote, segment
from tests.support.services import RIDE, fare_usd, make_bundle
from tests.support.small import small_settings

MARCH = parse_month("2015-03")


class Monitored:
    """An installation whose month is gathered and joined."""

    def __init__(self, home: Path, **changes: Any) -> None:
        self.settings = small_settings(home, **changes)
        self.lake = UPath(home / "lake")
        self.lake.mkdir(parents=True, exist_ok=True)
        self.predictions, self.outcomes = (self.lake / f"{name}.parquet" for name in ("predictions", "outcomes"))

    def gather(self) -> GatheredQuotes:
        return gather(self.predictions, MARCH, self.settings)

    def join(self, trips: Published | None = None) -> Joined:
        self.gather()
        return join(self.predictions, self.outcomes, trips, self.settings)

    def revision(self) -> str | None:
        found = joined_with(self.outcomes)
        return None if found is None else found.revision

    def due(self, revision: str | None = None) -> bool:
        return MARCH in months_due({MARCH: revision}.get, {MARCH: (self.predictions, self.outcomes)}, self.settings)

    def table(self) -> pd.DataFrame:
        with self.outcomes.open("rb") as file:
            table = pq.read_table(file)
        assert table.schema.remove_metadata() == OUTCOMES
        frame: pd.DataFrame = table.to_pandas()
        return frame.set_index("ride_id")


@pytest.fixture
def monitored(tmp_path: Path) -> Monitored:
    return Monitored(tmp_path)


def test_each_ride_has_the_fate_that_is_written_down(monitored: Monitored) -> None:
    names = ("published", "doubled", "told", "contradicted", "unsound", "both", 7, "another", "never")
    segment(monitored.lake, [quote(name) for name in names])
    told = [outcome("told"), outcome("doubled"), outcome("doubled"), outcome("both", 11.0), outcome("nobody's")]
    told += [outcome("contradicted", 10.0), outcome("contradicted", 10.01), outcome("7", 8.0), outcome(7, 8.001)]
    segment(monitored.lake, [*told, outcome("never", 10.0, "min")])
    trips = published({"published": 12.0, "unsound": None, "both": 12.0, "of nobody": 9.0})
    found = monitored.join(trips)
    table = monitored.table()
    assert dict(zip(table.index, table["fate"], strict=True)) == {
        "published": "published",
        "both": "published",
        "unsound": "unsound",
        "contradicted": "contradicted",
        "told": "told",
        "doubled": "told",
        "7": "told",
        "another": "waiting",
        "never": "waiting",
    }
    truths = table["truth"].dropna().to_dict()
    assert truths == {"published": 12.0, "both": 12.0, "told": 10.0, "doubled": 10.0, "7": 8.0}
    assert (found.rides, found.differing, found.fates["told"]) == (9, 1, 3)
    assert found.share_matched == pytest.approx(5 / 9)
    elsewhere = monitored.join(published({"another": 9.0}, pickup="2015-03-16 18:05:00"))
    assert elsewhere.fates["another ride"] == 1
    assert monitored.table().loc["another", "fate"] == "another ride"


def test_the_first_quote_counts_whatever_is_asked_again(monitored: Monitored) -> None:
    segment(monitored.lake, [quote("a", fare=99.0, minute=9), quote("a", fare=9.5), quote("a", fare=9.5, minute=3)])
    segment(monitored.lake, [quote("a", role="shadow"), quote("a", version="5"), quote("b")], "20150314T230000-b")
    segment(monitored.lake, [quote("b"), quote("c", pickup_datetime="2015-04-01 00:00")], "20150314T230000-c")
    found = monitored.gather()
    assert found == GatheredQuotes(quotes=4, rides=2, repeated=1, contradicting=1, torn=0)
    with monitored.predictions.open("rb") as file:
        table = pq.read_table(file).to_pandas()
    first = table[(table["ride_id"] == "a") & (table["version"] == "4") & (table["served_as"] == "production")]
    assert first["predicted"].tolist() == [9.5]


def test_quotes_and_outcomes_outlive_their_segments(monitored: Monitored) -> None:
    segments = [segment(monitored.lake, [quote("a"), quote("b")]), segment(monitored.lake, [outcome("a")])]
    monitored.join()
    before = monitored.table()
    for path in segments:
        path.unlink()
    monitored.join()
    pd.testing.assert_frame_equal(monitored.table(), before)
    segment(monitored.lake, [outcome("a", 10.0), outcome("b", 8.0)])
    assert monitored.join().fates == {"told": 2}, "late"
    segment(monitored.lake, [outcome("a", 12.0)])
    assert monitored.join().fates == {"told": 1, "contradicted": 1}, "what was told first is remembered"


def test_a_restated_month_is_joined_anew(monitored: Monitored) -> None:
    segment(monitored.lake, [quote("a"), quote("b")])
    assert joined_with(monitored.outcomes) is None
    assert monitored.join().revision is None
    assert monitored.revision() == ""
    monitored.join(published({"a": 12.0, "b": None}, "first"))
    assert monitored.table()["truth"].dropna().to_dict() == {"a": 12.0}
    monitored.join(published({"a": 13.0, "b": 8.0}, "second"))
    assert monitored.table()["truth"].to_dict() == {"a": 13.0, "b": 8.0}
    assert monitored.revision() == "second"


def test_a_month_is_due_when_there_is_something_new_and_not_again(monitored: Monitored) -> None:
    assert not monitored.due("first"), "nobody has asked for a price"
    segment(monitored.lake, [quote("a"), quote("b", pickup_datetime="2015-04-01 00:00")])
    assert monitored.due()
    monitored.gather()
    assert monitored.due(), "a run that was killed in between"
    monitored.join()
    assert not monitored.due()
    segment(monitored.lake, [quote("c", pickup_datetime="2015-04-01 00:00")], "20150314T230000-b")
    segment(monitored.lake, [outcome("c"), outcome("nobody's")])
    assert not monitored.due(), "another month's"
    segment(monitored.lake, [outcome("a")], "20150314T230000-b")
    assert monitored.due(), "late"
    monitored.join()
    assert monitored.due("first"), "published"
    monitored.join(published({"a": 12.0}, "first"))
    assert (monitored.due("first"), monitored.due("restated")) == (False, True)
    segment(monitored.lake, [quote("d")], "20150314T230000-c")
    monitored.gather()
    assert monitored.due("first"), "gathered anew, and the run was killed before it joined"
    monitored.join(published({"a": 12.0}, "first"))
    assert not monitored.due("first")
    for path in monitored.lake.glob("*/*.jsonl"):
        path.unlink()
    assert not monitored.due("first"), "segments are gone, what was gathered is there"


def test_rides_of_files_take_part_where_they_have_an_id(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    monitored = Monitored(tmp_path / "home", scoring_inbox=str(inbox))
    bundles = UPath(tmp_path / "bundles")
    bundle = Bundle.read(bundles / make_bundle(bundles, "4"))
    promotion = InForce(
        sequence=7, version="4", digest=bundle.digest, city="new-york", target="fare", by="ada", reason="cheaper",
        promoted_at=ASKED_AT, replaced_version=None,
    )  # fmt: skip
    rides = pd.DataFrame([RIDE | {"ride_id": name} for name in ("a", "b", None)])
    others = {"pickup_longitude": 0.0, "pickup_datetime": "2015-04-01 00:00"}
    rides = pd.concat([rides, pd.DataFrame([RIDE | {"ride_id": "far"} | others])])
    rides.to_csv(inbox / "march.csv", index=False)
    rides.drop(columns="ride_id").to_parquet(inbox / "nameless.parquet")
    for name in ("march.csv", "nameless.parquet"):
        score_in_inbox(UPath(inbox / name), promotion, bundle, ASKED_AT)
    april = (monitored.lake / "no predictions", monitored.lake / "no outcomes")
    places = {MARCH: (monitored.predictions, monitored.outcomes), MARCH + 1: april}
    assert list(months_due({}.get, places, monitored.settings)) == [MARCH], "none of April was priced"
    monitored.join(published({"a": 12.0}, "first"))
    table = monitored.table()
    assert table.index.tolist() == ["a", "b"]
    assert (table["version"].unique().tolist(), table["sequence"].unique().tolist()) == (["4"], [7])
    assert table.loc["a", "predicted"] == pytest.approx(fare_usd("4"), abs=0.005)
    assert table["asked_at"].iloc[0] == pd.Timestamp(ASKED_AT)
    assert not monitored.due("first")
    (inbox / "march.quotes.csv").write_text("ride_id\n1\n")
    with pytest.raises(MonitoringError, match=r"SCORING_INBOX: march.quotes.csv: expected"):
        monitored.gather()


def test_zones_stand_for_places_and_another_targets_lines_are_not_ours(monitored: Monitored) -> None:
    zoned = {"pickup_datetime": RIDE["pickup_datetime"], "passenger_count": None, "PULocationID": 132}
    line = quote("zoned")
    named = type(line)(**{name: getattr(line, name) for name in line.__struct_fields__} | {"ride": zoned})
    ends = {"dropoff_longitude": -73.95, "dropoff_latitude": 40.77}
    named.ride.update(ends)
    minutes = type(line)(**{name: getattr(line, name) for name in line.__struct_fields__} | {"unit": "min"})
    segment(monitored.lake, [named, minutes])
    monitored.join()
    (row,) = monitored.table().reset_index().to_dict("records")
    assert (row["pickup_longitude"], row["passenger_count"]) == (-73.78653, 1)


def test_a_file_that_is_no_table_is_told_and_left_as_it_is(monitored: Monitored) -> None:
    monitored.predictions.write_bytes(b"what nobody can read")
    with pytest.raises(MonitoringError, match="expected the quotes of a month"):
        monitored.gather()
    assert monitored.predictions.read_bytes() == b"what nobody can read"


def test_one_damaged_month_keeps_no_other_from_being_joined(monitored: Monitored) -> None:
    segment(monitored.lake, [quote("a"), quote("b", pickup_datetime="2015-04-01 00:00")])
    april = (monitored.lake / "no predictions", monitored.lake / "no outcomes")
    places = {MARCH: (monitored.predictions, monitored.outcomes), MARCH + 1: april}
    monitored.join()
    for damaged in (monitored.outcomes, monitored.predictions):
        damaged.write_bytes(damaged.read_bytes()[:-20])
        assert list(months_due({}.get, places, monitored.settings)) == [MARCH, MARCH + 1], damaged
        with pytest.raises(MonitoringError, match="expected the quotes of a month"):
            monitored.join()


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_segment_torn_at_any_byte_loses_the_torn_line_and_no_other(monitored: Monitored, step: int) -> None:
    path = segment(monitored.lake, [quote("a"), quote("b")])
    content = path.read_bytes()
    whole = content.index(b"\n") + 1
    for end in range(whole, len(content) - 1, step):
        path.write_bytes(content[:end])
        monitored.predictions.unlink(missing_ok=True)
        assert monitored.gather().quotes == 1, end
    # It comes whole after all, beside the torn one.
    segment(monitored.lake, [quote("a"), quote("b")], "20150314T220000-b")
    assert monitored.gather().quotes == 2
    told = segment(monitored.lake, [outcome("a"), outcome("b")])
    content = told.read_bytes()
    for end in range(content.index(b"\n") + 1, len(content) - 1, step):
        told.write_bytes(content[:end])
        monitored.outcomes.unlink(missing_ok=True)
        found = join(monitored.predictions, monitored.outcomes, None, monitored.settings)
        assert found.fates == {"told": 1, "waiting": 1}, end


RIDES = st.sampled_from(["a", "b", "c"])
FARES = st.sampled_from([9.5, 10.0])


class Deliveries(RuleBasedStateMachine):
    """Quotes, outcomes and trips come in any order, some twice, some torn; segments go; the month is joined again."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.monitored = Monitored(Path(self.folder.name))
        self.quotes: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        self.told: dict[str, set[float]] = defaultdict(set)
        self.trips: Published | None = None
        self.truths: dict[str, float | None] = {}
        self.number = 0

    def _segment(self, lines: list[Any], cut: int = 0) -> None:
        self.number += 1
        path = segment(self.monitored.lake, lines, f"20150314T{self.number:06d}-a")
        if cut:
            path.write_bytes(path.read_bytes()[:-cut])

    @rule(ride=RIDES, fare=FARES, minute=st.integers(0, 3), version=st.sampled_from("45"), twice=st.booleans())
    def quoted(self, ride: str, fare: float, minute: int, version: str, twice: bool) -> None:
        self._segment([quote(ride, version, fare=fare, minute=minute)] * (1 + twice))
        self.quotes[ride, version].append((minute, fare))

    @rule(ride=RIDES, truth=FARES, twice=st.booleans())
    def told_of(self, ride: str, truth: float, twice: bool) -> None:
        self._segment([outcome(ride, truth)] * (1 + twice))
        self.told[ride].add(truth)

    @rule(cut=st.integers(2, 400))
    def torn(self, cut: int) -> None:
        self._segment([quote("torn")], cut)
        self._segment([outcome("a", 77.0)], min(cut, 60))

    @rule(truths=st.dictionaries(RIDES, st.sampled_from([None, 12.0, 13.0])))
    def restated(self, truths: dict[str, float | None]) -> None:
        self.truths, self.trips = truths, published(truths)

    @rule()
    def segments_go(self) -> None:
        self.monitored.join(self.trips)
        # An outcome whose ride nobody has asked for is forgotten with its segment.
        self.told = defaultdict(set, {r: t for r, t in self.told.items() if any(r == ride for ride, _ in self.quotes)})
        for path in self.monitored.lake.glob("*/*.jsonl"):
            path.unlink()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        self.monitored.join(self.trips)
        rows = self.monitored.table().reset_index().to_dict("records")
        assert {(row["ride_id"], row["version"]): row["predicted"] for row in rows} == {
            key: min(asked)[1] for key, asked in self.quotes.items()
        }
        assert len(rows) == len(self.quotes)
        for row in rows:
            told, truth = self.told[row["ride_id"]], self.truths.get(row["ride_id"])
            if row["ride_id"] in self.truths:
                expected = ("unsound", None) if truth is None else ("published", truth)
            else:
                expected = (("waiting", None), ("told", min(told, default=None)), ("contradicted", None))[len(told)]
            assert (row["fate"], None if pd.isna(row["truth"]) else row["truth"]) == expected

    def teardown(self) -> None:
        self.folder.cleanup()


class TestDeliveries(Deliveries.TestCase):  # type: ignore[name-defined,misc]
    settings = hypothesis_settings(max_examples=5, stateful_step_count=12, deadline=None)


@pytest.mark.slow
class TestManyDeliveries(Deliveries.TestCase):  # type: ignore[name-defined,misc]
    settings = hypothesis_settings(max_examples=150, stateful_step_count=30, deadline=None)
