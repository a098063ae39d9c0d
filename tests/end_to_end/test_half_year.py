"""Half a year as an installation lives it: quotes are paid as they always were, until fares rise in April.

`make demo` has put a model into production. From then on there are `make dev` with its sensors, a service that quotes,
a broker on which a dispatcher tells what rides came to, a publisher who is out with a month once it is over, a chat,
and Ada, who reads it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from taxifare.approval import alarms
from taxifare.approval.alarms import AlarmRecord
from taxifare.approval.ledger import Ledger
from taxifare.approval.records import RequestState
from taxifare.gate.evidence import Verdict
from taxifare.monitoring.watch import THRESHOLD
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.trips.cities import City
from taxifare.trips.city_files import read_city, shipped
from taxifare.trips.cleaning import clean
from taxifare.trips.columns import COORDINATES
from taxifare.trips.editions import is_so_far
from taxifare.trips.months import Month, parse_month
from taxifare.trips.targets import FARE
from taxifare_dagster.partitions import partition_key
from tests.end_to_end.conftest import CHANNEL, Company, Question
from tests.support.servers import chat_server, dagster_dev
from tests.support.services import Installation, installation
from tests.support.streams import Broker, broker, consumers, wait
from tests.support.ui import Ui, eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(2400)]

BEFORE, FIRST, RISE, LAST = map(parse_month, ("2013-12", "2014-01", "2014-04", "2014-06"))
QUIET = [FIRST + number for number in range((RISE - FIRST).n)]
FIVE_DAYS = pd.Timestamp("2014-04-06")
RULE = """\
  - name: fares_2014_04
    since: 2014-04-01
    description: 0.50 to 0.70 USD a unit, 2.50 to 3.00 USD to begin with
"""
OUTCOMES = "taxifare.outcomes"
ADA: dict[str, object] = {"decided_by": "Ada", "reason": "fares rose on the first"}
SMALL = {
    "DATASET_SIZE": "all",
    "BATCH_SIZE": "64",
    "LEARNING_RATE": "0.003",
    "MAX_EPOCHS": "3",
    "REHEARSAL_TRIPS": "3000",
    "CHALLENGERS": "warm",
    "EXECUTOR": "in_process",
}
CHECKED = """query ($asset: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $asset, checkName: $check, limit: 1) { evaluation { success description } } }"""


@dataclass
class Streets:
    """A simulated city, whose fares rise in April, and who publishes its months as files.

    Attributes:
        folder: Where the files are.
        city: What is known of it.
    """

    folder: Path
    city: City
    _simulated: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._simulated = Settings(
            _env_file=None,
            taxifare_home=self.folder,
            simulator_trips_per_month=6_000,
            simulator_base_trips=20_000,
            first_month=str(BEFORE),
            last_month=str(LAST),
        )

    def publish_base(self) -> None:
        base = pd.concat([part.trips for part in make_source(self._simulated).read_base().parts])
        self._put(base, "taxi_base_2009_2013.parquet")

    def publish(self, month: Month) -> None:
        self._put(self.driven_in(month), f"taxi_{month.strftime('%Y_%m')}.parquet")

    def driven_in(self, month: Month) -> pd.DataFrame:
        """What is published of a month; from April on a unit is 40 % dearer, and the beginning half a dollar."""
        trips = make_source(self._simulated).read_month(month).trips
        if month < RISE:
            return trips
        before = trips["fare_amount"]
        return trips.assign(fare_amount=before.where(before <= 0, (3 + (before - 2.5) * 1.4).round(2)))

    def asked_for(self, month: Month) -> pd.DataFrame:
        """The rides of a month that customers ask a price for."""
        return clean(self.driven_in(month), self.city, FARE).trips

    def _put(self, trips: pd.DataFrame, name: str) -> None:
        trips.to_parquet(self.folder / "unfinished", index=False)
        (self.folder / "unfinished").rename(self.folder / name)


@dataclass
class Taxis:
    """Everything that runs.

    Attributes:
        folder: With the state folder in it.
        settings: Of all processes.
        streets: Where rides come from.
        service: Quotes them.
        nats: What they came to is told here.
        company: Dagster and the chat.
    """

    folder: Path
    settings: Mapping[str, str]
    streets: Streets
    service: Installation
    nats: Broker
    company: Company

    @property
    def home(self) -> Path:
        return self.folder / "state"

    def command(self, *words: str) -> str:
        """What a command says; that it ends well is ensured."""
        environment = {**os.environ, "TAXIFARE_HOME": str(self.home), **self.settings}
        ended = subprocess.run(
            words, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def taxifare(self, *words: str) -> str:
        said = self.command(str(Path(sys.executable).with_name("taxifare")), *words)
        return " ".join(said.split())

    def quoted(self, rides: pd.DataFrame) -> set[str]:
        """The versions that answer; the service quotes all of the rides, and goes on."""
        versions = set()
        for start in range(0, len(rides), 1_000):
            asked = [_asked(ride) for ride in rides.iloc[start : start + 1_000].to_dict("records")]
            told = self.service.post("/predict/batch", {"rides": asked}).json()
            versions |= {answer["model_version"] for answer in told["answers"]}
        return versions

    def told(self, rides: pd.DataFrame) -> None:
        """The dispatcher tells on the broker what the rides came to; it is on the log then."""
        with consumers(self.home, self.nats.url, 1, "", **self.settings) as (consumer,):
            wait(lambda: self.nats.do(_has_outcomes), patience_s=60)
            outcomes = zip(rides["key"], rides["fare_amount"].astype("float64"), strict=True)
            self.nats.send(*(_outcome(*each) for each in outcomes), subject=OUTCOMES)
            wait(lambda: set(rides["key"]) <= {each.ride_id for each in self.service.outcomes_logged()}, patience_s=120)
            consumer.send_signal(signal.SIGTERM)
            assert consumer.wait(30) == 0

    def opened(self) -> None:
        """The service runs and has a model."""
        self.service.start(**self.settings)
        self.service.wait(lambda: self.service.get("/health/ready").ok, patience_s=60)

    def collected(self) -> None:
        """The service has ended for the night, and what is on the logs is in the lake."""
        self.service.stop()
        assert "answers" in self.taxifare("collect")

    # What there is to see

    def watched(self) -> dict[str, Any]:
        """What the watch showed last."""
        found = self.company.ui.assets()["production_watch"]["assetMaterializations"][:1]
        entries = [entry for each in found for entry in each["metadataEntries"]]
        return {entry["label"]: _first(entry, "text", "intRepr", "floatValue") for entry in entries}

    def watched_days(self, days: int, version: str, within_s: float) -> dict[str, Any]:
        """What the watch showed last, once it has seen so many days of a version in production."""

        def seen() -> dict[str, Any] | None:
            shown = self.watched()
            return shown if shown.get("production_version") == version and int(shown.get("days", 0)) >= days else None

        return eventually(seen, f"the watch to see {days} days of version {version}", within_s, every_s=2)

    def calendar_says(self, within_s: float, *, passed: bool) -> str:
        """What the calendar's check says, once it has come out so."""
        asked = {"asset": {"path": ["production_model"]}, "check": "knows_the_rules"}

        def said() -> str | None:
            evaluated = [one["evaluation"] for one in self.company.ui.query(CHECKED, **asked)["assetCheckExecutions"]]
            return evaluated[0]["description"] if evaluated and evaluated[0]["success"] is passed else None

        return eventually(said, "the calendar", within_s)

    def alarms(self) -> AlarmRecord:
        """What the ledger says of alarms."""
        with Ledger(f"sqlite:///{self.home / 'ledger.db'}", "USD").reading() as entries:
            return alarms.read(entries)

    def questions_whether_to_retrain(self) -> list[Question]:
        """The messages in the chat that ask whether to retrain."""
        texts = self.company.chat.contents(CHANNEL)
        return [Question(text) for text in texts if text.startswith("The error of production has grown")]


def _first(entry: Mapping[str, Any], *names: str) -> Any:
    return next((entry[name] for name in names if name in entry), None)


def _asked(ride: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {name: float(ride[name]) for name in COORDINATES}
    told["pickup_datetime"] = f"{ride['pickup_datetime']:%Y-%m-%d %H:%M:%S}"
    told["passenger_count"] = 1 if pd.isna(ride["passenger_count"]) else int(ride["passenger_count"])
    return {"ride_id": ride["key"], "ride": told}


def _outcome(ride_id: str, truth: float) -> bytes:
    return f'{{"ride_id": "{ride_id}", "truth": {truth}, "unit": "USD"}}'.encode()


async def _has_outcomes(stream: Any) -> bool:
    from nats.js.errors import NotFoundError

    try:
        await stream.find_stream_name_by_subject(OUTCOMES)
    except NotFoundError:
        return False
    return True


@pytest.fixture
def taxis(tmp_path: Path) -> Iterator[Taxis]:
    """The installation of a city whose facts list the rise, with what was learned until December in production."""
    written = shipped("new-york").path.read_text()
    head, _, rest = written.partition("  - name: tolls_2015_03\n")
    (tmp_path / "our-city.yaml").write_text(head + RULE + rest[rest.index("meter:") :])
    streets = Streets(tmp_path / "published", read_city(tmp_path / "our-city.yaml").facts)
    settings = {
        **SMALL,
        "CITY": str(tmp_path / "our-city.yaml"),
        "TRIP_SOURCE": "folder",
        "TRIP_FOLDER": str(tmp_path / "published"),
        "TRIP_FOLDER_QUIET_S": "0",
        "FIRST_MONTH": str(BEFORE),
        "LAST_MONTH": str(LAST),
    }
    streets.publish_base()
    streets.publish(BEFORE)
    with ExitStack() as servers:
        chat = servers.enter_context(chat_server())
        settings |= {"CHAT_BASE_URL": chat.url, "CHAT_CHANNEL": CHANNEL}
        service = servers.enter_context(installation(tmp_path / "state"))
        nats = servers.enter_context(broker(tmp_path / "nats"))
        made = Taxis(tmp_path, settings, streets, service, nats, Company(Ui(""), chat, "", tmp_path))
        made.command(sys.executable, "-m", "taxifare_dagster.demo")
        yield made


def test_fares_rise_and_the_days_so_far_are_learned(taxis: Taxis) -> None:
    company = taxis.company
    (*_, promoted) = company.books().promotions
    stale = promoted.version
    assert stale is not None

    # January to March: quoted and paid, and published.
    taxis.opened()
    quiet = pd.concat(map(taxis.streets.asked_for, QUIET))
    assert taxis.quoted(quiet) == {stale}
    taxis.told(quiet)
    taxis.collected()
    for month in QUIET:
        taxis.streets.publish(month)

    with dagster_dev(taxis.folder, taxis.settings) as url:
        company.ui = Ui(url)
        shown = taxis.watched_days(80, stale, within_s=400)
        assert float(shown["score"]) < THRESHOLD
        assert shown["last_day"] == "2014-03-31"
        assert taxis.alarms().alarms == []

        # The calendar knows before anybody pays.
        says = taxis.calendar_says(within_s=60, passed=False)
        assert f"version {stale} has not learned 1 of the rules in force" in says
        assert "fares_2014_04, in force since 2014-04-01" in says

        # April: the first five days are quoted as if nothing had happened, and paid dearer.
        taxis.opened()
        april = taxis.streets.asked_for(RISE)
        is_so_far_day = april["pickup_datetime"] < FIVE_DAYS
        assert taxis.quoted(april[is_so_far_day]) == {stale}
        taxis.told(april[is_so_far_day])
        taxis.collected()
        taxis.opened()
        question = eventually(taxis.questions_whether_to_retrain, "the question whether to retrain", within_s=400)[0]
        (alarm,) = taxis.alarms().alarms
        evidence = alarm.evidence
        print(f"alarm on {evidence.days[-1].day}:", *question.text.splitlines()[:6], sep="\n  ")
        assert (alarm.version, alarm.sequence, alarm.month) == (stale, promoted.sequence, str(RISE))
        assert date(2014, 4, 1) <= evidence.days[-1].day <= date(2014, 4, 5)
        assert "fares_2014_04" in question.text
        assert "the question whether to retrain: waits" in taxis.taxifare("status")

        # Ada agrees, through the link; the days so far are learned, and she is asked whether that is better.
        assert company.decide(question.config(ADA)).status == "SUCCESS"
        renewal = eventually(
            lambda: company.questions(str(RISE), f"the days of {RISE} so far"), "the renewal's question", 600
        )[-1]
        (asked,) = company.books().asked(str(RISE))
        print("renewal:", *renewal.text.splitlines()[:6], sep="\n  ")
        assert is_so_far(asked.revision)
        assert float(renewal.errors[1]) < float(renewal.errors[0])
        assert asked.verdict not in {Verdict.LEAK, Verdict.UNSCORABLE}
        assert company.decide(renewal.config(ADA | {"override": True})).status == "SUCCESS"

        # It is production, it is what customers are quoted, and the latch is open.
        renewed = asked.staging_version
        books, record = company.books(), taxis.alarms()
        assert (books.promotions[-1].version, books.promotions[-1].sequence) == (renewed, promoted.sequence + 1)
        assert record.outcomes[alarm.id].state is RequestState.APPROVED
        assert record.of(promoted.sequence + 1) is None
        taxis.service.wait(lambda: taxis.service.serves(renewed), patience_s=60)
        assert "the question whether to retrain" not in taxis.taxifare("status")

        # Until June all is quiet again, and the whole of April is judged like any month.
        rest = pd.concat([april[~is_so_far_day], *map(taxis.streets.asked_for, (RISE + 1, LAST))])
        assert taxis.quoted(rest) == {renewed}
        taxis.told(rest)
        taxis.collected()
        taxis.streets.publish(RISE)
        shown = taxis.watched_days(80, renewed, within_s=400)
        assert float(shown["score"]) < THRESHOLD
        assert f"version {renewed} has learned every dated rule" in taxis.calendar_says(within_s=700, passed=True)
        whole = eventually(
            lambda: [one for one in company.books().asked(str(RISE)) if not is_so_far(one.revision)],
            "the question about the whole of April",
            within_s=200,
        )[0]
        assert whole.production_version == renewed
        assert whole.verdict is not Verdict.LEAK
        assert len(taxis.questions_whether_to_retrain()) == 1, "asked once"
        # A month's outcomes may meet the month while it is being run, and are joined at the next try.
        assert {run.job for run in company.ui.runs() if run.status == "FAILURE"} <= {"outcomes_job"}
    assert partition_key(RISE) in {path.stem for path in (taxis.home / "lake" / "served_outcomes").iterdir()}
