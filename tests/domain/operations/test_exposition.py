"""What Prometheus is told of an installation, and the alerts that are made of it."""

import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from taxifare.approval.due import Due, Why
from taxifare.approval.ledger import LedgerError
from taxifare.approval.records import Promotion
from taxifare.errors import ToldError
from taxifare.operations.exposition import StatusCollector, told
from taxifare.operations.status import OpenQuestion, Status, StatusAlarm
from taxifare.serving.metrics import Metrics
from taxifare.trips.months import parse_month
from tests.support.prometheus import DEPLOYED, program
from tests.support.quotes import quotes_of

NOW = datetime(2015, 3, 11, tzinfo=UTC)

PROMOTION = Promotion(3, "7", "4", "promotion", None, "Ada", "airports", None, NOW - timedelta(days=10))

ASKED = OpenQuestion(
    "2015-02-v8-0a", "2015-02: HOLD", NOW - timedelta(days=2), NOW + timedelta(days=28), "taxifare decide"
)

BUSY = Status(
    NOW,
    PROMOTION,
    questions=(ASKED, replace(ASKED, asked_at=NOW - timedelta(days=3), valid_until=NOW + timedelta(days=1))),
    behind=tuple(Due(parse_month(month), Why.NEW, f"{month}:r1") for month in ("2015-02", "2015-03")),
    waits="month 2015-02 is not whole yet",
    quotes=("2015-02", quotes_of("2015-02", {"7": 2.5}).errors[1]),
    untold=("promotion 3",),
    alarms=(StatusAlarm("waiting", "it waits"), StatusAlarm("calendar", "one"), StatusAlarm("calendar", "two")),
)


def numbers(found: Status, unit: str = "USD") -> dict[str, float]:
    """What is told, by the name of the metric and its label."""
    text = told(StatusCollector(lambda: found, unit, lambda _: None))
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_fact_is_a_number_with_its_unit() -> None:
    found = numbers(BUSY)
    assert found["taxifare_production_info 7"] == 1
    assert found["taxifare_production_age_seconds"] == 10 * 86400
    assert (found["taxifare_open_questions"], found["taxifare_oldest_question_age_seconds"]) == (2, 3 * 86400)
    assert found["taxifare_next_expiry_seconds"] == 86400
    assert (found["taxifare_months_behind"], found["taxifare_months_waiting"]) == (2, 1)
    assert found["taxifare_messages_undelivered"] == 1
    assert (found["taxifare_alarms calendar"], found["taxifare_alarms watch"]) == (2, 0)
    assert found["taxifare_realised_error_usd"] == 2.5
    assert numbers(BUSY, "min")["taxifare_realised_error_seconds"] == 150
    nothing = numbers(Status(NOW))
    assert nothing["taxifare_in_production"] == 0
    assert not any(name.startswith(("taxifare_production_age", "taxifare_realised")) for name in nothing)


def test_what_cannot_be_told_is_told_as_that_and_the_ledger_is_not_asked_at_every_scrape() -> None:
    faults: list[ToldError] = []
    asked = []

    def look() -> Status:
        asked.append(1)
        raise LedgerError("it was written by a newer release")

    collector = StatusCollector(look, "USD", faults.append)
    assert [line for line in told(collector).splitlines() if line[0] != "#"] == ["taxifare_status_known 0.0"]
    before = len(asked)
    told(collector)
    assert len(asked) == before
    assert "newer release" in str(faults[0])


def test_alerts_are_about_what_is_told() -> None:
    """A metric that was renamed would leave an alert that never fires."""
    rules = (DEPLOYED / "alerts.yml").read_text()
    names = set(re.findall(r"\btaxifare_[a-z_]+", rules))
    service = Metrics()
    service.request("/predict", 200, 0.0)
    service.refused()
    counted = text_string_to_metric_families(service.told().decode())
    from_service = {sample.name for family in counted for sample in family.samples}
    assert names - from_service - {name.split()[0] for name in numbers(BUSY)} == set()


def test_promtool_accepts_what_is_told_and_the_alerts_and_tries_them_on_series() -> None:
    promtool = program("promtool")
    found = told(StatusCollector(lambda: BUSY, "USD", lambda _: None))
    checked = subprocess.run([promtool, "check", "metrics"], input=found, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    series = "test rules alerts_test.yml alerts_of_days_test.yml"
    for words in ("check rules alerts.yml", "check config prometheus.yml", series):
        ran = subprocess.run([promtool, *words.split()], cwd=DEPLOYED, text=True, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
