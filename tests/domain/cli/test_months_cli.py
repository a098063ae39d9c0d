"""The commands about months: what the source has and what became of it; the course's new data, which come and go."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from taxifare.approval.approvals import Approvals, utc_now
from taxifare.approval.comparisons import record
from taxifare.cli.main import app
from taxifare.gate.evidence import Verdict
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.sources.folder import Folder
from taxifare.sources.simulator.source import Simulator
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.months import parse_month
from taxifare_dagster.command import surroundings
from taxifare_dagster.io_managers import ParquetIOManager
from tests.support.approvals import by_recorded_files, evidence
from tests.support.publisher import Publisher, lewagon_files, publisher_server
from tests.support.registry import put_files

JANUARY = parse_month("2015-01")
CITY = Simulator(
    seed=3,
    trips_per_month=200,
    base_trips=300,
    first_month=JANUARY,
    last_month=parse_month("2015-03"),
    scenario="as-it-was",
    scenario_from=JANUARY,
)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), obj=surroundings(), env={"COLUMNS": "160"})


def line_of(month: str) -> str:
    """What `taxifare months` says of a month."""
    shown = run("months")
    assert shown.exit_code == 0, shown.output
    return next((line for line in shown.output.splitlines() if month in line), "")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder, and a working folder without a `.env`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAXIFARE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


class TestMonths:
    """`taxifare months`."""

    @pytest.fixture(autouse=True)
    def trips(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder of two months."""
        folder = tmp_path / "trips"
        folder.mkdir()
        for month in (JANUARY, JANUARY + 1):
            CITY.read_month(month).trips.to_parquet(folder / f"taxi_{month.start_time:%Y_%m}.parquet")
        monkeypatch.setenv("TRIP_SOURCE", "folder")
        monkeypatch.setenv("TRIP_FOLDER_QUIET_S", "0")
        monkeypatch.setenv("TRIP_FOLDER", str(folder))
        return folder

    def fetch(self, folder: Path) -> str:
        """Brings January into the lake, as the asset does; returns its revision."""
        january = Folder(folder).read_month(JANUARY)
        lake = Settings().lake / "raw_new_data"
        lake.mkdir(parents=True, exist_ok=True)
        raw = Trips(Edition(str(JANUARY), january.revision), january.trips)
        ParquetIOManager(Settings().lake, "fare").write(raw, lake / "2015-01-01.parquet")
        return january.revision

    def test_a_month_that_is_only_published(self, trips: Path) -> None:
        revision = Folder(trips).months()[JANUARY]
        shown = line_of("2015-01")
        assert revision[:16] in shown
        assert "published" in shown
        assert "2015-02" in line_of("2015-02")
        assert line_of("2015-03") == ""

    def test_a_month_that_is_not_whole_and_is_taken_anyway(self, trips: Path) -> None:
        file = trips / "taxi_2015_02.parquet"
        pd.read_parquet(file).tail(12).to_parquet(file)
        assert "not whole yet" in line_of("2015-02")
        assert "month 2015-02 is not whole yet: it has 12 rides, expected at least 25 % of the" in run("months").output
        assert re.search(r'To take it anyway: \S*taxifare take 2015-02 --by YOU --reason "WHY"', run("months").output)
        taken = run("take", "2015-02", "--by", "Ada", "--reason", "a strike")
        assert taken.exit_code == 0, taken.output
        assert taken.output.startswith("2015-02 is taken as it is, though it has 12 rides")
        assert "not whole" not in run("months").output
        again = run("take", "2015-02", "--by", "Ada", "--reason", "a strike")
        assert again.exit_code == 1
        assert "month 2015-02 was taken by Ada" in again.output

    def test_a_month_in_the_lake_that_is_then_restated(self, trips: Path) -> None:
        (trips / "taxi_2015_02.parquet").unlink()
        revision = self.fetch(trips)
        assert "in the lake" in line_of("2015-01")
        CITY.read_month(JANUARY).trips[-50:].to_parquet(trips / "taxi_2015_01.parquet")
        assert "restated" in line_of("2015-01")
        assert revision[:16] in line_of("2015-01")
        (trips / "taxi_2015_01.parquet").unlink()
        gone = run("months")
        assert gone.exit_code == 1, "there is no month any more"
        assert "no longer published" in gone.output

    def test_a_decision_and_the_edition_it_rested_on(
        self, home: Path, trips: Path, open_registry: Callable[[Settings], ModelRegistry]
    ) -> None:
        settings, revision = Settings(), self.fetch(trips)
        registry = open_registry(settings)
        put_files(registry, 2, home / "files")
        approvals = Approvals.from_settings(settings, registry)
        found = evidence("2015-01", "1", None, verdict=Verdict.COLD_START, revision=revision)
        found = by_recorded_files(found, approvals.ledger)
        assert "not compared yet" in line_of("2015-01")
        alike = evidence("2015-01", "2", "1", verdict=Verdict.UNCHANGED, revision=revision)
        record(approvals.ledger, by_recorded_files(alike, approvals.ledger), utc_now())
        assert "nothing to decide" in line_of("2015-01"), "as status says it"
        asked = approvals.request(record(approvals.ledger, found, utc_now()))
        assert "waits for an answer" in line_of("2015-01")
        approvals.decide(asked.id, "approve", "Ada", "a start", approvals.answer_tokens(asked)["approve"])
        assert "approved by Ada" in line_of("2015-01")
        assert "earlier edition" not in line_of("2015-01")
        CITY.read_month(JANUARY).trips[-50:].to_parquet(trips / "taxi_2015_01.parquet")
        assert "approved by Ada, on an earlier edition" in line_of("2015-01")
        listed, *_ = json.loads(run("months", "--json").output)
        assert (listed["decision"], listed["rolled_back"]) == ("approved", None)
        approvals.rollback("none", by="Grace", reason="complaints from JFK")
        assert "approved, taken out by Grace, on an earlier edition" in line_of("2015-01")
        listed, *_ = json.loads(run("months", "--json").output)
        assert (listed["decision"], listed["rolled_back"]["decided_by"]) == ("approved", "Grace")

    def test_a_month_of_which_the_source_cannot_tell_is_said_with_the_reason(self, trips: Path) -> None:
        CITY.read_month(JANUARY + 2).trips.to_parquet(trips / "taxi_2015_03.parquet")
        (trips / "taxi_2015_02.parquet").unlink()
        (trips / "taxi_2015_02.parquet").mkdir()
        shown = run("months")
        assert shown.exit_code == 1
        lines = {month: line for line in shown.output.splitlines() for month in ("2015-01", "2015-02") if month in line}
        assert "published" in lines["2015-01"]
        assert "cannot tell" in lines["2015-02"]
        assert "taxi_2015_02.parquet: expected a file with month 2015-02" in shown.stderr
        assert "received a folder" in shown.stderr

    def test_half_a_month_of_text_is_not_called_published(self, trips: Path) -> None:
        half = CITY.read_month(JANUARY + 1).trips
        (trips / "taxi_2015_02.parquet").unlink()
        half[half["pickup_datetime"].dt.day <= 14].to_csv(trips / "taxi_2015_02.csv", index=False)
        assert "not whole yet" in line_of("2015-02")
        assert "month 2015-02 is not whole yet: its last ride begins 2015-02-14" in run("months").output

    @pytest.mark.parametrize("words", [("months",), ("months", "--json")])
    def test_no_month_at_all_is_a_failure_that_says_where_and_for_what_was_looked(
        self, trips: Path, words: tuple[str, ...]
    ) -> None:
        for file in trips.iterdir():
            file.rename(file.with_name(f"rides of {file.name}"))
        shown = run(*words)
        assert shown.exit_code == 1
        assert f"there is no month of trips: {trips}: no file for month 2015-01: expected a file named" in shown.stderr
        assert (
            "(TRIP_FOLDER_MONTHS=taxi_{month:%Y_%m}.*); named otherwise: rides of taxi_2015_01.parquet" in shown.stderr
        )
        assert "Next" not in shown.output
        for file in trips.iterdir():
            file.unlink()
        assert run(*words).stderr.strip().endswith("nothing is there")

    def test_months_that_are_not_worked_on_are_said_with_the_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FIRST_MONTH", "2015-02")
        assert "not worked on" in line_of("2015-01")
        assert "published" in line_of("2015-02")
        monkeypatch.setenv("FIRST_MONTH", "2015-03")
        shown = run("months")
        assert shown.exit_code == 1
        assert "worked on: none, by FIRST_MONTH=2015-03, LAST_MONTH=2015-06; set them" in shown.stderr

    def test_a_source_that_fails_is_one_line(self, trips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIP_FOLDER", str(trips / "nowhere"))
        failed = run("months")
        assert failed.exit_code == 1
        assert "SourceError" in failed.stderr
        assert "nowhere" in failed.stderr


class TestNewData:
    """`taxifare new-data` and `taxifare delete-new-data`."""

    @pytest.fixture
    def course(self) -> Iterator[Publisher]:
        """The Le Wagon course's bucket."""
        months = {"jan": CITY.read_month(JANUARY).trips, "feb": CITY.read_month(JANUARY + 1).trips}
        with publisher_server(lewagon_files(months, CITY.read_base().whole().trips)) as running:
            yield running

    @pytest.fixture
    def folder(self, course: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder that months appear in, not made yet."""
        folder = tmp_path / "trips"
        monkeypatch.setenv("TRIP_SOURCE", "folder")
        monkeypatch.setenv("TRIP_FOLDER_QUIET_S", "0")
        monkeypatch.setenv("TRIP_FOLDER", str(folder))
        monkeypatch.setenv("LEWAGON_URL", course.url)
        return folder

    def test_a_month_appears_as_a_file_of_the_folder_and_goes(self, folder: Path) -> None:
        appeared = run("new-data", "2015-01")
        assert appeared.exit_code == 0, appeared.output
        published = CITY.read_month(JANUARY).trips
        found = Folder(folder).read_month(JANUARY).trips
        pd.testing.assert_frame_equal(found, published.assign(dropoff_datetime=None).astype(published.dtypes))
        assert [file.name for file in folder.iterdir()] == ["taxi_2015_01.parquet"]
        assert "published" in line_of("2015-01")
        gone = run("delete-new-data")
        assert "Deleted taxi_2015_01.parquet." in gone.output
        assert list(folder.iterdir()) == []

    def test_what_somebody_put_there_is_neither_replaced_nor_deleted(self, folder: Path) -> None:
        folder.mkdir()
        own = folder / "taxi_2015_01.parquet"
        CITY.read_month(JANUARY).trips[:9].to_parquet(own)
        before = own.read_bytes()
        refused = run("new-data", "2015-01")
        assert refused.exit_code == 1
        assert "month 2015-01 is there already" in refused.stderr
        assert "Nothing to delete" in run("delete-new-data").output
        assert own.read_bytes() == before

    @pytest.mark.parametrize(("month", "told"), [("2015-03", "no month 2015-03"), ("2016-01", "2015-01 to 2015-06")])
    def test_a_month_the_course_does_not_have(self, folder: Path, month: str, told: str) -> None:
        refused = run("new-data", month)
        assert refused.exit_code == 1
        assert told in refused.stderr
        assert list(folder.iterdir()) == []

    def test_a_month_is_written_in_one_way(self) -> None:
        refused = run("new-data", "january")
        assert refused.exit_code == 2
        assert "YYYY-MM" in refused.output

    def test_names_follow_the_pattern_of_the_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIP_FOLDER_MONTHS", "rides-{month:%m-%Y}*.parquet")
        assert run("new-data", "2015-02").exit_code == 0
        assert [file.name for file in folder.iterdir()] == ["rides-02-2015.parquet"]
        monkeypatch.setenv("TRIP_FOLDER_MONTHS", "rides-{month:%m-%Y}.csv")
        refused = run("new-data", "2015-01")
        assert refused.exit_code == 1
        assert "fits no parquet file" in refused.stderr

    def test_without_a_folder_there_is_nowhere_to_put_it(self) -> None:
        for words in (["new-data", "2015-01"], ["delete-new-data"]):
            refused = run(*words)
            assert refused.exit_code == 1
            assert "TRIP_SOURCE is simulator" in refused.stderr
