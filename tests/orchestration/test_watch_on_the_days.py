"""From outcomes to a renewal: the watch sees a rise, a person is asked once, and the days so far are learned."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster._core.test_utils import create_run_for_test

from taxifare.approval.due import Known, Why, last_learned, months_due, to_learn_so_far
from taxifare.approval.records import Alarm
from taxifare.gate.evidence import Verdict
from taxifare.monitoring.outcomes import OUTCOMES, expected
from taxifare.monitoring.so_far import trips_so_far
from taxifare.trips.editions import is_so_far
from taxifare_dagster import sensors
from taxifare_dagster.assets.watch import days_under
from taxifare_dagster.io_managers import ParquetIOManager
from taxifare_dagster.jobs import Agreed, renew_on_days_so_far
from tests.support.approvals import ALARM, Office
from tests.support.outcomes import priced_rides
from tests.support.small import small_settings
from tests.support.world import JANUARY, World, failures

RISE = pd.Timestamp("2015-01-19")


def outcomes(world: World, until: str, *, rise: float = 1.0, sequence: int = 1, version: str = "1") -> pd.DataFrame:
    """What January's rides came to that were quoted before a day; from `RISE` on fares are so many times as quoted."""
    trips = world.publisher.city.read_month(JANUARY).trips
    trips = trips[(trips["fare_amount"] > 0) & (trips["pickup_datetime"] < until)].dropna()
    draws = np.random.default_rng(1)
    off = 1 + 0.15 * draws.standard_normal(len(trips))
    truth = trips["fare_amount"].astype("float64")
    predicted = truth * off / np.where(trips["pickup_datetime"] >= RISE, rise, 1.0)
    found = trips.rename(columns={"key": "ride_id"}).assign(
        served_as="production", version=version, sequence=sequence, bundle="b", fate="matched",
        asked_at=pd.Timestamp("2015-01-01", tz="UTC"), predicted=predicted, quoted=predicted, truth=truth,
    )  # fmt: skip
    found = found.assign(reference=expected(found))
    return found[[field.name for field in OUTCOMES if field.name in found]]


def known(world: World, found: pd.DataFrame) -> None:
    """Ensures that so much is known of what January's rides came to, as `outcomes_job` leaves it."""
    place = world.settings.lake / "served_outcomes" / f"{JANUARY}-01.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    found.to_parquet(place, index=False)
    event = dg.AssetMaterialization("served_outcomes", partition=f"{JANUARY}-01")
    world.instance.report_runless_asset_event(event)


def watch(world: World) -> Alarm | None:
    """Ticks the sensor and runs what it asks for; the alarm that waits then."""
    requested = world.tick("watch_sensor").run_requests
    for one in requested:
        assert failures(world.launch(one, "watch_job")) == {}
    return Known.of(world.approvals).alarms.open


def asked(world: World) -> Iterator[str]:
    """Sends what is to be told; the questions about alarms."""
    for one in world.tick("approval_sensor").run_requests:
        assert failures(world.launch(one, "notice_job")) == {}
    yield from (message.text for message in world.chat.messages if message.key.startswith("Alarm"))


def test_quiet_days_ask_nobody_and_a_rise_asks_once(started: World) -> None:
    known(started, outcomes(started, "2015-01-19"))
    (first,) = started.tick("watch_sensor").run_requests
    stopped = create_run_for_test(started.instance, "watch_job", tags=first.tags)
    assert not started.tick("watch_sensor").run_requests, "it is at work"
    started.instance.report_run_failed(stopped)
    assert not started.tick("watch_sensor").run_requests, "too short ago"
    now = sensors.time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensors, "time", SimpleNamespace(time=lambda: now() + 60))
        assert watch(started) is None
    shown = started.metadata("production_watch")
    assert (shown["production_version"], shown["days"]) == ("1", 18)
    assert shown["says"].startswith("the score is ")
    assert not started.tick("watch_sensor").run_requests, "the watch has seen all that is known"
    known(started, outcomes(started, "2015-01-24", rise=1.5))
    alarm = watch(started)
    assert alarm is not None
    assert (alarm.sequence, alarm.version, alarm.month) == (1, "1", "2015-01")
    (question,) = asked(started)
    assert question.startswith("The error of production has grown: retrain on the days of 2015-01 so far?")
    known(started, outcomes(started, "2015-01-26", rise=1.5))
    assert watch(started) == alarm
    assert len(list(asked(started))) == 1, "once, until production changes"
    sent = {"request": alarm.id, "token": "guessed", "decision": "approve", "decided_by": "Eve", "reason": "why not"}
    assert "the token does not permit" in failures(started.run("decision_job", ops={"decide": sent}))["decide"]
    assert "nobody has agreed to" in next(
        iter(failures(started.run("days_so_far_job", ops={"renew_on_days_so_far": {"alarm": alarm.id}})).values())
    )


def test_a_run_that_is_executed_again_learns_no_days_of_a_month_that_is_over(tmp_path: Path) -> None:
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").with_first_model()
    alarm = office.approvals.raise_alarm(ALARM, "1")
    office.decide(alarm, "approve")
    assert to_learn_so_far(Known.of(office.approvals)) == alarm
    office.ask(alarm.month, "2", "1")
    nothing = dict.fromkeys(("source", "registry", "parquet_io", "base_trips_io", "settings"))
    with pytest.raises(dg.Failure, match="its month has been compared"):
        renew_on_days_so_far(
            dg.build_op_context(), config=Agreed(alarm=alarm.id), approvals=office.approvals, **nothing
        )


def test_rides_of_months_that_production_has_learned_are_not_watched(tmp_path: Path) -> None:
    """A file of them that is priced is production's, under the promotion in force, as that of an open month is."""
    settings = small_settings(tmp_path)
    folder = settings.lake / "served_outcomes"
    folder.mkdir(parents=True)
    for month in ("2015-01", "2015-03", "2015-04"):
        day = pd.Timestamp(f"{month}-10 12:00")
        priced_rides(50, days=1).assign(sequence=3, pickup_datetime=day).to_parquet(folder / f"{month}-01.parquet")
    lake = ParquetIOManager(settings.lake, "fare")
    found = [
        days_under(3, learned, lake, settings).index.strftime("%Y-%m").tolist()
        for learned in (None, JANUARY + 2, JANUARY + 3)
    ]
    assert found == [["2015-01", "2015-03", "2015-04"], ["2015-04"], []]
    assert days_under(2, None, lake, settings).empty


def test_the_rides_so_far_are_an_edition_of_their_own(started: World) -> None:
    found = outcomes(started, "2015-01-24")
    twice = pd.concat([found, found.assign(served_as="shadow", version="2")])
    once, same = (trips_so_far(rides, JANUARY, started.settings) for rides in (found, twice))
    assert once.edition == same.edition
    assert once.edition.revision.startswith("so-far-2015-01-23-")
    assert len(once.frame) == len(same.frame)
    assert once.training["pickup_datetime"].max() < once.validation["pickup_datetime"].min()
    other = trips_so_far(found.assign(truth=found["truth"] + 1), JANUARY, started.settings)
    assert other.edition != once.edition


@pytest.mark.slow
def test_agreed_to_the_days_so_far_are_learned_promoted_and_the_whole_month_is_judged_on_rides_nobody_learned(
    started: World,
) -> None:
    known(started, outcomes(started, "2015-01-24", rise=1.5))
    alarm = watch(started)
    assert alarm is not None
    token = started.approvals.answer_tokens(alarm)["approve"]
    answer = {"request": alarm.id, "token": token, "decision": "approve", "decided_by": "Ada", "reason": "fares rose"}
    assert failures(started.run("decision_job", ops={"decide": answer})) == {}
    (requested,) = started.tick("watch_sensor").run_requests
    assert requested.job_name == "days_so_far_job"
    assert failures(started.launch(requested, "days_so_far_job")) == {}
    so_far = started.evidence(JANUARY)
    assert is_so_far(so_far.revision)
    assert so_far.verdict not in {Verdict.LEAK, Verdict.UNSCORABLE}
    assert failures(started.ask(JANUARY)) == {}
    assert f"the days of {JANUARY} so far" in started.chat.messages[-1].text
    request = started.request(JANUARY)
    assert failures(started.answer(request, override=True)) == {}
    record = Known.of(started.approvals)
    assert record.promotion is not None
    assert record.promotion.sequence == 2
    assert record.alarms.of(2) is None, "the latch is open"
    assert last_learned(record) is None, "the whole month is yet to be learned"
    published = started.publisher.months()
    assert [(due.month, due.why) for due in months_due(published, record)] == [(JANUARY, Why.NEW)]
    assert failures(started.run_month(JANUARY)) == {}
    whole = started.evidence(JANUARY)
    assert whole.production_version == request.staging_version
    assert not is_so_far(whole.revision)
    assert whole.verdict is not Verdict.LEAK
    learned = [entry for entry in started.registry.load(request.staging_version).exposure if is_so_far(entry.revision)]
    assert [entry.subject for entry in learned] == [str(JANUARY)]
    assert Known.of(started.approvals).comparisons[str(JANUARY)].production_version == request.staging_version
