"""Batches: a month's rides and files of an inbox, priced by the model in force, once, whatever happens in between."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster._core.test_utils import create_run_for_test
from msgspec import structs
from typer.testing import CliRunner
from upath import UPath

from taxifare.cli.main import app
from taxifare.serving import in_force
from taxifare.serving.batches import answers_of, waiting
from taxifare.serving.files import KINDS
from taxifare.serving.in_force import bundles_in
from taxifare.serving.outcome_log import OutcomeLog, ToldOutcome
from taxifare.serving.outcome_log import folder_in as outcomes_in
from taxifare.serving.prediction_log import Answer, PredictionLog, collected_in, folder_in, read
from taxifare.serving.publishing import LakePublisher
from taxifare.serving.rides import FIELDS, checked, packed
from taxifare_dagster import sensors
from taxifare_dagster.command import surroundings
from tests.support.predictions import answer
from tests.support.world import JANUARY, World, checks_of, failed_checks, failures

# What is built once for the module has told this process so in its first test alone.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


@pytest.fixture(scope="module")
def serving(_compared: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The base model is in force, with its bundle; January has been run, and there is an inbox."""
    folder = tmp_path_factory.mktemp("serving")
    (folder / "inbox").mkdir()
    world = _compared.copy(folder / "state", scoring_inbox=str(folder / "inbox"))
    (promotion,) = world.approvals.record.history()
    publisher = LakePublisher(world.settings, world.registry)
    publisher.prepare("1")
    publisher.publish(promotion)
    return world


@pytest.fixture
def inbox(serving: World) -> Iterator[Path]:
    """The inbox, empty again afterwards."""
    folder = Path(str(serving.settings.scoring_inbox))
    yield folder
    for path in folder.iterdir():
        path.unlink()


def january(world: World, asset: str = "preprocessed_data") -> pd.DataFrame:
    trips: pd.DataFrame = pd.read_parquet(world.settings.home / "lake" / asset / "2015-01-01.parquet")
    return trips


def tick(world: World, cursor: str | None) -> tuple[list[dg.RunRequest], str]:
    """What the sensor requests, and what it remembers."""
    repository = world.definitions.get_repository_def()
    sensor, resources = repository.get_sensor_def("inbox_sensor"), repository.get_top_level_resources()
    needed = {name: resources[name] for name in sensor.required_resource_keys}
    with dg.build_sensor_context(world.instance, repository_def=repository, resources=needed, cursor=cursor) as context:
        found = sensor.evaluate_tick(context)
    return list(found.run_requests or ()), str(found.cursor)


def receipt_of(rides: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(rides.with_name(f"{rides.name}.receipt.json").read_text())
    return found


def test_every_ride_of_a_month_is_priced_by_the_version_in_force(serving: World) -> None:
    assert failures(serving.run("scoring_job", month=JANUARY)) == {}
    scored = pd.read_parquet(serving.settings.home / "lake" / "scored_trips" / "2015-01-01.parquet")
    published = january(serving, "raw_new_data")
    assert scored["key"].tolist() == published["key"].tolist(), "not the validation fifth, and not only clean trips"
    priced = scored[scored["fault"].isna()]
    expected = serving.registry.load("1").predict(published[scored["fault"].isna()])
    np.testing.assert_allclose(priced["fare_usd"], expected, atol=0.005)
    shown = serving.metadata("scored_trips", JANUARY)
    assert (shown["production_version"], shown["promotion"]) == ("1", 1)
    assert shown["dagster/partition_row_count"] == len(published)
    assert shown["refused"] == scored["fault"].notna().sum() == len(published) - len(priced)
    assert (shown["refused"] > 0) == ("refused_rides" in shown)


def test_a_table_that_cannot_be_reached_is_told_and_the_lake_has_the_month(
    serving: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    before = serving.lake()["scored_trips/2015-01-01.parquet"]
    world = serving.under(scored_trips_table="wagoncab.taxifare.scored")
    said = failures(world.run("scoring_job", month=JANUARY))["scored_trips"]
    assert "BigQuery table wagoncab.taxifare.scored: File" in said
    assert "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account" in said
    assert serving.lake()["scored_trips/2015-01-01.parquet"] == before


def test_production_model_says_what_is_served_and_says_so_again_where_that_changes(serving: World) -> None:
    def shown_anew() -> dict[str, object]:
        events = list(serving.tick("production_sensor").asset_events)
        for event in events:
            serving.instance.report_runless_asset_event(event)
        assert not serving.tick("production_sensor").asset_events, "once"
        return {name: entry.value for event in events for name, entry in event.metadata.items()}

    found = in_force.read(serving.settings.lake)
    assert found is not None
    shown = shown_anew()
    since = f"{found.promoted_at:%Y-%m-%d %H:%M} UTC"
    assert found.digest is not None
    assert shown["served"] == f"version 1 since {since}, promotion 1 by {found.by}"
    assert (shown["bundle"], shown["served_as_in_the_ledger"], shown["sequence"]) == (found.digest[:12], "yes", 1)
    path = bundles_in(serving.settings.lake) / "in-force.json"
    path.write_text("what nobody can read")
    assert shown_anew() == {}, "nothing else is served than was shown, as far as anybody can tell"
    path.unlink()
    shown = shown_anew()
    assert (shown["served"], shown["bundle"]) == ("nothing", "none")
    assert str(shown["served_as_in_the_ledger"]).startswith("no: expected promotion 1, version 1, received nothing")
    LakePublisher(serving.settings, serving.registry).publish(serving.approvals.record.history()[-1])
    assert shown_anew()["served_as_in_the_ledger"] == "yes"


def test_where_nothing_is_in_force_it_says_so(started: World) -> None:
    said = failures(started.run("scoring_job", month=JANUARY))
    assert "no model is in production, so nothing prices rides" in said["scored_trips"]


@pytest.mark.parametrize("ending", list(KINDS))
def test_a_file_that_appears_is_priced_once_with_a_receipt(serving: World, inbox: Path, ending: str) -> None:
    rides = january(serving)[["key", *FIELDS]].head(50)
    path = inbox / f"march{ending}"
    rides.to_parquet(path, index=False) if ending == ".parquet" else rides.to_csv(path, index=False)
    requests, cursor = tick(serving, None)
    assert requests == [], "it may still grow"
    (request,), cursor = tick(serving, cursor)
    assert failures(serving.launch(request, "inbox_job")) == {}
    answers = answers_of(UPath(path))
    assert answers.name == f"march.quotes{ending}"
    scored = pd.read_parquet(answers.path) if ending == ".parquet" else pd.read_csv(answers.path)
    assert scored["fare_usd"].notna().all()
    receipt = receipt_of(path)
    assert (receipt["version"], receipt["sequence"], receipt["rides"], receipt["refused"]) == ("1", 1, 50, 0)
    requests, _ = tick(serving, cursor)
    assert requests == [], "once"
    assert serving.metadata("scored_files")["file"] == path.name


def test_a_file_that_was_replaced_is_priced_anew(serving: World, inbox: Path) -> None:
    path = inbox / "april.csv"
    rides = january(serving)[list(FIELDS)]
    rides.head(5).to_csv(path, index=False)
    assert failures(serving.run("inbox_job", ops={"score_inbox": {}})) == {}
    assert waiting(UPath(inbox)) == {}
    rides.head(7).to_csv(path, index=False)
    assert set(waiting(UPath(inbox))) == {"april.csv"}
    assert failures(serving.run("inbox_job", ops={"score_inbox": {}})) == {}
    assert receipt_of(path)["rides"] == 7


@pytest.mark.parametrize("lost", ["the receipt", "the answers", "half of the receipt"])
def test_a_run_that_was_killed_before_its_end_is_done_again(serving: World, inbox: Path, lost: str) -> None:
    path = inbox / "may.csv"
    january(serving)[list(FIELDS)].head(5).to_csv(path, index=False)
    assert failures(serving.run("inbox_job", ops={"score_inbox": {"file": "may.csv"}})) == {}
    receipt, answers = inbox / "may.csv.receipt.json", inbox / "may.quotes.csv"
    if lost == "half of the receipt":
        receipt.write_bytes(receipt.read_bytes()[:20])
    else:
        (receipt if lost == "the receipt" else answers).unlink()
    assert set(waiting(UPath(inbox))) == {"may.csv"}
    assert failures(serving.run("inbox_job", ops={"score_inbox": {}})) == {}
    assert waiting(UPath(inbox)) == {}
    assert {each.name for each in inbox.iterdir()} == {path.name, receipt.name, answers.name}


def test_a_file_that_holds_no_rides_is_told_once_and_keeps_no_other_waiting(serving: World, inbox: Path) -> None:
    (inbox / "a.csv").write_text("name\nnobody\n")
    january(serving)[list(FIELDS)].head(5).to_csv(inbox / "b.csv", index=False)
    (inbox / ".c.csv").write_text("being written")
    (inbox / "a.quotes.csv").write_text("of a file that was there before")
    said = failures(serving.run("inbox_job", ops={"score_inbox": {}}))["score_inbox"]
    assert said.startswith("a.csv: expected the columns pickup_datetime")
    assert (inbox / "b.quotes.csv").exists()
    assert not (inbox / "a.quotes.csv").exists()
    assert ": pickup_datetime, pickup_longitude, pickup_latitude" in str(receipt_of(inbox / "a.csv")["fault"])
    assert waiting(UPath(inbox)) == {}


def test_folders_and_an_inbox_that_is_not_there_are_no_files(serving: World, inbox: Path, tmp_path: Path) -> None:
    (inbox / "x.csv").mkdir()
    assert waiting(UPath(inbox)) == {}
    (inbox / "x.csv").rmdir()
    elsewhere = serving.under(scoring_inbox=str(tmp_path / "gone"))
    skipped = elsewhere.tick("inbox_sensor").skip_message
    assert str(skipped).startswith("SCORING_INBOX: expected a folder, received ")


def test_a_name_outside_the_inbox_prices_nothing(serving: World, inbox: Path) -> None:
    outside = inbox.parent / "outside.csv"
    january(serving)[list(FIELDS)].head(5).to_csv(outside, index=False)
    assert failures(serving.run("inbox_job", ops={"score_inbox": {"file": "../outside.csv"}})) == {}
    assert not (inbox.parent / "outside.quotes.csv").exists()


def test_the_prediction_log_is_collected_in_the_lake(serving: World) -> None:
    log = PredictionLog(folder_in(serving.settings.home), 30)
    log.append([answer("a"), answer("b")])
    log.close()
    for answers in (2, 0):
        assert failures(serving.run("collect_job")) == {}
        assert serving.metadata("collected_predictions")["answers"] == answers
    assert [each.ride_id for each in read(collected_in(serving.settings.lake))] == ["a", "b"]
    schedule = serving.definitions.get_repository_def().get_schedule_def("collect_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def quotes_of(world: World, trips: pd.DataFrame) -> list[Answer]:
    """What a service that has the version in force writes down of those rides, asked for five minutes before."""
    promotion, bundle = in_force.model_in(world.settings.lake, world.settings.city, "fare")
    told = [
        {name: row[name] if isinstance(row[name], float) else None for name in FIELDS}
        | {"pickup_datetime": str(row["pickup_datetime"]), "passenger_count": int(row["passenger_count"])}
        for row in trips.to_dict("records")
    ]
    rides = [checked(ride, bundle.manifest.limits) for ride in told]
    quotes = bundle.quote(packed(rides))
    lines = []
    for place, (key, ride) in enumerate(zip(trips["key"], rides, strict=True)):
        asked_at = ride.pickup_datetime.replace(tzinfo=ZoneInfo("America/New_York")) - timedelta(minutes=5)
        values = {
            name: round(float(getattr(quotes, name)[place]), 4) for name in ("fare", "upper", "corrected", "quoted")
        }
        facts = {
            "version": bundle.manifest.version,
            "bundle": bundle.digest,
            "sequence": promotion.sequence,
            "unit": "USD",
        }
        moments = {"received_at": asked_at, "answered_at": asked_at}
        lines.append(Answer(ride_id=str(key), ride=told[place], role="production", **facts, **values, **moments))
    return lines


def test_what_was_quoted_is_held_against_what_was_paid(serving: World) -> None:
    trips = january(serving).sample(400, random_state=1)
    log, outcomes = (
        PredictionLog(folder_in(serving.settings.home), 30),
        OutcomeLog(outcomes_in(serving.settings.home), 30),
    )
    lines = quotes_of(serving, trips)
    not_published = structs.replace(lines[0], ride_id="a ride of another dispatcher")
    log.append([*lines, lines[0], not_published])
    outcomes.append([ToldOutcome(ride_id=not_published.ride_id, truth=9.5, unit="USD", told_at=lines[0].received_at)])
    log.close()
    outcomes.close()
    assert failures(serving.run("collect_job")) == {}
    assert serving.metadata("collected_predictions")["outcomes"] == 1
    (request,) = [each for each in serving.tick("outcomes_sensor").run_requests or () if "2015-01" in str(each)]
    found = serving.launch(request, "outcomes_job")
    assert failures(found) == {}
    assert not [each for each in serving.tick("outcomes_sensor").run_requests or () if "2015-01" in str(each)], "once"
    stopped = create_run_for_test(
        serving.instance, "outcomes_job", tags=dict(request.tags) | {"dagster/partition": "2015-01-01"}
    )
    serving.instance.report_run_canceled(stopped)
    now = sensors.time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensors, "time", SimpleNamespace(time=lambda: now() + 120))
        again = [each for each in serving.tick("outcomes_sensor").run_requests or () if "2015-01" in str(each)]
    assert [(each.partition_key, each.tags["taxifare/asks"]) for each in again] == [
        ("2015-01-01", request.tags["taxifare/asks"])
    ], "joined, and stopped before its errors were there"
    assert failed_checks(found) == set(), [check.description for check in checks_of(found).values()]
    said = str(checks_of(found)["predicts_again_the_same"].description)
    assert said == "200 rides predicted again by the registered versions, each equal to the cent"
    joined = pd.read_parquet(serving.settings.home / "lake" / "served_outcomes" / "2015-01-01.parquet").set_index(
        "ride_id"
    )
    assert joined["fate"].value_counts().to_dict() == {"published": 400, "told": 1}
    paid = trips.set_index("key")["target"]
    pd.testing.assert_series_equal(joined.loc[paid.index, "truth"], paid, check_names=False, check_index_type=False)
    shown, mae = serving.metadata("served_mae", JANUARY), (joined["predicted"] - joined["truth"]).abs().mean()
    assert shown["mae_usd"] == pytest.approx(mae, abs=1e-4)
    assert shown["share_matched"] == 1.0
    assert shown["promised_mae_usd"] > 0
    told = CliRunner().invoke(
        app, ["outcomes", "2015-01"], env={"TAXIFARE_HOME": str(serving.settings.home)}, obj=surroundings()
    )
    assert told.exit_code == 0, told.output
    assert f"{mae:.2f}" in told.output
    assert "401 rides were quoted; of 100.0% it is known what they came to." in told.output


def test_what_was_quoted_otherwise_or_by_whom_nobody_knows_is_an_error_of_its_month(serving: World) -> None:
    lines = quotes_of(serving, january(serving).sample(50, random_state=2))
    log = PredictionLog(folder_in(serving.settings.home), 30)
    log.append(
        [structs.replace(lines[0], fare=lines[0].fare + 0.02), *lines[1:], structs.replace(lines[1], sequence=9)]
    )
    log.append([structs.replace(line, version="77", ride_id=f"{line.ride_id} again") for line in lines[:3]])
    log.close()
    assert failures(serving.run("collect_job")) == {}
    found = serving.run("outcomes_job", month=JANUARY, assets=["served_predictions"])
    assert failures(found) == {}
    assert failed_checks(found) == {"knows_every_version", "predicts_again_the_same"}
    checks = {name: str(check.description) for name, check in checks_of(found).items()}
    assert "version 77 (production, promotion 1): 3 quotes" in checks["knows_every_version"]
    assert "version 77 cannot predict again" in checks["predicts_again_the_same"]
