"""Chicago's portal: how it is asked, what becomes of its rows, and what is said when it does not answer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr, ValidationError

from taxifare.gate.slices import slice_masks
from taxifare.model.fitting import predict
from taxifare.model.network import build_network
from taxifare.settings import Settings
from taxifare.sources import MonthNotPublishedError, SourceError, make_source
from taxifare.sources import chicago as module
from taxifare.sources.base import NoBaseError
from taxifare.sources.chicago import Chicago
from taxifare.sources.web import PassingWebError, Web
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features, feature_names
from taxifare.trips.months import parse_month
from taxifare.trips.targets import FARE
from tests.support.cities import CHICAGO
from tests.support.places import DATA
from tests.support.small import PLAIN_NETWORK
from tests.support.socrata import Portal, from_tfx, portal_server, published

TRIPS_FILE = DATA / "chicago" / "tfx_chicago_taxi_data.csv"
JANUARY, DECEMBER_2023, JANUARY_2024 = (parse_month(month) for month in ("2015-01", "2023-12", "2024-01"))
TOKEN = SecretStr("an-app-token-that-must-not-be-shown")


def trips(starts: list[str], prefix: str = "t") -> pd.DataFrame:
    """Trips in the portal's form, with the numbers of ids in another order than their times."""
    count = len(starts)
    return published(
        pd.DataFrame(
            {
                "trip_id": [f"{prefix}{7 * number % 1000:03d}" for number in range(count)],
                "trip_start_timestamp": [f"{start}.000" for start in starts],
                "trip_end_timestamp": "2015-01-31T23:45:00.000",
                "fare": 7.25,
                "tolls": 1.5,
                "trip_seconds": 600,
                "pickup_centroid_latitude": 41.98,
                "pickup_centroid_longitude": -87.91,
                "dropoff_centroid_latitude": 41.88,
                "dropoff_centroid_longitude": -87.63,
            }
        )
    )


EDGES = [
    "2014-12-31T23:45:00",
    "2015-01-01T00:00:00",
    "2015-01-15T12:15:00",
    "2015-01-31T23:45:00",
    "2015-02-01T00:00:00",
]


@pytest.fixture
def portal() -> Iterator[Portal]:
    with portal_server() as running:
        old, new = trips(EDGES), trips(["2024-01-01T00:00:00", "2024-01-02T00:00:00"], "n")
        running.data_sets = {"wrvz-psew": old, "ajtu-isnz": new}
        yield running


@pytest.fixture
def source(portal: Portal, tmp_path: Path) -> Chicago:
    web = Web(tmp_path, secret_headers={"X-App-Token": TOKEN}, first_pause_s=0.01, timeout_s=0.5)
    return Chicago(web, portal.url, JANUARY, None, None, parse_month("2015-06"))


def changed(source: Chicago, **changes: object) -> Chicago:
    months = {"first_month": JANUARY, "last_month": parse_month("2015-06")}
    facts = {"web": source.web, "url": source.url, **months, "trips_per_month": None, "base_rows": None}
    return Chicago(**facts | changes)  # type: ignore[arg-type]


class TestMonths:
    def test_they_come_from_both_data_sets(self, portal: Portal, source: Chicago) -> None:
        # Days that were published twice, in the data set that has no business with them.
        stray = trips(["2024-01-03T00:00:00"], "s")
        portal.data_sets["wrvz-psew"] = pd.concat([portal.data_sets["wrvz-psew"], stray])
        assert [str(month) for month in source.months()] == ["2015-01", "2015-02", "2024-01"]
        assert source.read_month(JANUARY_2024).trips["key"].tolist() == ["n000", "n007"]

    def test_a_midnight_is_in_one_month(self, source: Chicago) -> None:
        january = source.read_month(JANUARY).trips
        assert [str(start) for start in january["pickup_datetime"]] == [
            "2015-01-01 00:00:00",
            "2015-01-15 12:15:00",
            "2015-01-31 23:45:00",
        ]

    def test_a_month_that_is_not_over_is_not_published(self, portal: Portal, source: Chicago) -> None:
        today = f"{pd.Timestamp.now(tz='America/Chicago'):%Y-%m-%dT00:00:00}"
        portal.data_sets["ajtu-isnz"] = trips([today], "n")
        assert [str(month) for month in source.months()] == ["2015-01", "2015-02"]
        with pytest.raises(MonthNotPublishedError, match="or it is not over"):
            source.read_month(parse_month(today[:7]))

    def test_the_portal_is_not_asked_to_count_again_for_ten_minutes(
        self, portal: Portal, source: Chicago, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sensor asks every few seconds, and to count takes the portal as many."""
        first = source.months()
        assert source.months() == first
        assert len(portal.asked) == 2
        monkeypatch.setattr(module, "BELIEVED_S", 0.0)
        again = changed(source)
        again.months()
        portal.data_sets["wrvz-psew"].loc[1, "fare"] = 9.0
        assert again.months() != first


class TestRows:
    def test_a_trip_costs_fare_and_tolls_and_ends_when_it_did(self, portal: Portal, source: Chicago) -> None:
        portal.data_sets["wrvz-psew"].loc[1, "tolls"] = None
        january = source.read_month(JANUARY).trips
        assert january["fare_amount"].tolist() == [7.25, 8.75, 8.75]
        assert str(january["dropoff_datetime"][0]) == "2015-01-01 00:10:00", "600 seconds, not the rounded end"
        assert january["passenger_count"].isna().all()
        assert january["key"].tolist() == ["t007", "t014", "t021"]
        assert january.loc[0, ["pickup_longitude", "dropoff_latitude"]].tolist() == [-87.91, 41.88]

    def test_trips_without_a_centroid_are_left_out_and_counted(self, portal: Portal, source: Chicago) -> None:
        portal.data_sets["wrvz-psew"].loc[2, "dropoff_centroid_latitude"] = None
        publication = source.read_month(JANUARY)
        assert publication.trips["key"].tolist() == ["t007", "t021"]
        assert publication.dropped == {"not_drawn": 0, "no_centroid": 1}

    def test_only_what_a_trip_needs_is_asked_for(self, portal: Portal, source: Chicago) -> None:
        source.read_month(JANUARY)
        (page,) = [query for query, _ in portal.asked if "$order" in query]
        assert "*" not in page["$select"]
        assert {"tips", "trip_miles", "trip_end_timestamp"}.isdisjoint(page["$select"].split(", "))

    def test_pages_are_asked_in_order_and_put_together(
        self, portal: Portal, source: Chicago, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "PAGE_ROWS", 100)
        quarters = [f"{start:%Y-%m-%dT%H:%M:%S}" for start in pd.date_range("2015-01-01", periods=730, freq="15min")]
        portal.data_sets["wrvz-psew"] = trips(quarters)
        january = source.read_month(JANUARY)
        assert len(january.trips) == 730
        assert january.trips["key"].is_unique
        pages = [query for query, _ in portal.asked if "$order" in query]
        assert len(pages) == 8
        assert all("$limit" in page and page["$order"] == "trip_id" for page in pages)
        ids = sorted(portal.data_sets["wrvz-psew"]["trip_id"])
        assert [page["$where"].rpartition(" > ")[2] for page in pages][:2] == ["''", f"'{ids[99]}'"]

    def test_a_large_month_is_drawn_the_same_each_time(self, portal: Portal, source: Chicago) -> None:
        quarters = [f"{start:%Y-%m-%dT%H:%M:%S}" for start in pd.date_range("2015-01-01", periods=900, freq="15min")]
        portal.data_sets["wrvz-psew"] = trips(quarters)
        small = changed(source, trips_per_month=50)
        drawn = small.read_month(JANUARY)
        assert len(drawn.trips) == 50
        assert drawn.dropped["not_drawn"] == 850
        assert drawn.trips["pickup_datetime"].dt.day.max() > 5, "not the first of the month"
        pd.testing.assert_frame_equal(changed(source, trips_per_month=50).read_month(JANUARY).trips, drawn.trips)
        assert drawn.revision == small.months()[JANUARY] != source.months()[JANUARY]

    def test_rows_that_change_while_they_are_read_are_not_a_month(self, portal: Portal, source: Chicago) -> None:
        ask = portal.answer

        def restating(data_set: str, query: dict[str, str]) -> tuple[int, object]:
            answer = ask(data_set, query)
            portal.data_sets["wrvz-psew"].loc[1, "fare"] += 1
            return answer

        portal.answer = restating  # type: ignore[method-assign]
        with pytest.raises(SourceError, match="changed while they were read"):
            source.read_month(JANUARY)


class TestBaseYears:
    def test_are_drawn_from_each_month_in_proportion(self, portal: Portal, source: Chicago) -> None:
        hours = [f"{start:%Y-%m-%dT%H:%M:%S}" for start in pd.date_range("2014-12-01", periods=36 * 24, freq="h")]
        portal.data_sets["wrvz-psew"] = trips(hours)
        base = changed(source, first_month=parse_month("2015-02"), base_rows=144)
        publication = base.read_base().whole()
        assert publication.trips["pickup_datetime"].dt.month.value_counts().to_dict() == {12: 124, 1: 20}
        assert publication.revision == base.base_revision()
        assert publication.dropped["not_drawn"] == 36 * 24 - 144

    def test_may_be_missing(self, source: Chicago) -> None:
        early = changed(source, first_month=parse_month("2014-12"))
        for ask in (early.read_base, early.base_revision):
            with pytest.raises(NoBaseError, match="no trip starts before 2014-12"):
                ask()


class TestFaults:
    def test_throttling_and_outages_pass(self, portal: Portal, source: Chicago) -> None:
        for portal.faults in (["429:0", "503", "drop"], ["403", "page"]):
            assert len(source.read_month(JANUARY).trips) == 3

    def test_but_not_for_ever(self, portal: Portal, source: Chicago) -> None:
        portal.faults = ["429:0"] * 10
        with pytest.raises(PassingWebError, match=r"received 429.*given up after 5 attempts: try again later"):
            source.months()

    @pytest.mark.parametrize(
        ("fault", "said"), [("403", "received 403.*given up"), ("page", "received a web page.*given up")]
    )
    def test_what_may_pass_and_does_not_is_told(self, portal: Portal, source: Chicago, fault: str, said: str) -> None:
        portal.faults = [fault] * 10
        with pytest.raises(PassingWebError, match=said):
            source.months()

    @pytest.mark.parametrize(
        ("fault", "said"),
        [("401", "received 401"), ("404", "check the address in the settings")],
    )
    def test_others_fail_at_once(self, portal: Portal, source: Chicago, fault: str, said: str) -> None:
        portal.faults = [fault]
        with pytest.raises(SourceError, match=said) as caught:
            source.months()
        assert len(portal.asked) == 1
        assert TOKEN.get_secret_value() not in str(caught.value)

    def test_another_data_set_is_recognised(self, portal: Portal, source: Chicago) -> None:
        portal.data_sets["wrvz-psew"] = portal.data_sets["wrvz-psew"].drop(columns="tolls")
        with pytest.raises(SourceError, match=r"400.*no such column: tolls"):
            source.months()

    def test_an_amount_that_is_no_number(self, portal: Portal, source: Chicago) -> None:
        rows = portal.data_sets["wrvz-psew"].astype({"fare": "object"})
        rows.loc[2, "fare"] = "free"
        portal.data_sets["wrvz-psew"] = rows
        with pytest.raises(SourceError, match=r'expected numbers, received .*"free"'):
            source.read_month(JANUARY)

    def test_the_token_goes_with_every_request_in_its_header(self, portal: Portal, source: Chicago) -> None:
        source.read_month(JANUARY)
        assert {headers["x-app-token"] for _, headers in portal.asked} == {TOKEN.get_secret_value()}
        assert TOKEN.get_secret_value() not in repr(source)


class TestSettings:
    def test_choose_the_portal_and_its_token(self, portal: Portal, tmp_path: Path) -> None:
        made = make_source(
            Settings(
                trip_source="chicago",
                city="chicago",
                taxifare_home=tmp_path,
                chicago_url=f"{portal.url}/",
                chicago_app_token="sesame",
                chicago_trips_per_month="all",
                dataset_size="10k",
            )
        )
        assert isinstance(made, Chicago)
        assert (made.trips_per_month, made.base_rows) == (None, 10_000)
        made.months()
        assert portal.asked[0][1]["x-app-token"] == "sesame"

    @pytest.mark.parametrize(
        ("source", "city"), [("chicago", "new-york"), ("tlc", "chicago"), ("simulator", "chicago")]
    )
    def test_refuse_the_trips_of_another_city(self, source: str, city: str) -> None:
        with pytest.raises(ValidationError, match=f"TRIP_SOURCE={source}"):
            Settings(trip_source=source, city=city)


class TestTheCity:
    def test_its_airports_are_where_their_trips_are_published(self) -> None:
        """Census tracts and community areas of O'Hare and Midway: their centroids as the portal writes them."""
        places = {
            (-87.903039661, 41.97907082): "ORD",
            (-87.913624596, 41.980264315): "ORD",
            (-87.750934289, 41.785998518): "MDW",
            (-87.769615453, 41.792592008): "MDW",
        }
        rows = trips(["2015-01-15T12:00:00"] * len(places)).assign(
            pickup_centroid_longitude=[place[0] for place in places],
            pickup_centroid_latitude=[place[1] for place in places],
        )
        table = module._frame(rows.to_dict("records"), "here").assign(
            pickup_datetime=pd.Timestamp("2015-01-15 12:00"), passenger_count=pd.array([1] * len(places), "Int32")
        )
        masks = slice_masks(pd.concat([table, compute_features(table, CHICAGO)], axis=1), CHICAGO)
        for code in ("ORD", "MDW"):
            found = next(mask for name, mask in masks.items() if code.lower() in name.lower())
            assert found.tolist() == [name == code for name in places.values()]

    def test_its_fares_rose_in_2016(self) -> None:
        table = pd.DataFrame(
            {
                "pickup_datetime": pd.to_datetime(["2015-12-31 23:45", "2016-01-01 00:00"]),
                **dict.fromkeys(("pickup_longitude", "dropoff_longitude"), -87.63),
                **dict.fromkeys(("pickup_latitude", "dropoff_latitude"), 41.88),
                "passenger_count": pd.array([None, 2], "Int32"),
            }
        )
        features = compute_features(table, CHICAGO)
        assert tuple(features.columns) == feature_names(CHICAGO)
        assert features["fares_2016_01"].tolist() == [0.0, 1.0]
        assert {"pickup_ord_km", "dropoff_mdw_km"} <= set(features.columns)

    @pytest.mark.real_trips
    def test_real_trips_are_cleaned_and_priced(self, portal: Portal, source: Chicago) -> None:
        if not TRIPS_FILE.exists():
            pytest.skip(f"needs the real trips in {TRIPS_FILE}")
        portal.data_sets["wrvz-psew"] = from_tfx(TRIPS_FILE)
        base = changed(source, first_month=parse_month("2013-07")).read_base().whole()
        assert base.dropped == {"not_drawn": 0, "no_centroid": 109}
        kept = clean(base.trips, CHICAGO, FARE)
        assert len(kept.trips) > 0.95 * len(base.trips)
        features = compute_features(kept.trips, CHICAGO).to_numpy()
        targets = kept.trips["fare_amount"].to_numpy(np.float32)
        network = build_network(features, targets, CHICAGO, learning_rate=0.005, seed=1, architecture=PLAIN_NETWORK)
        assert np.isfinite(predict(network, features)).all()
