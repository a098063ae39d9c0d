"""Where an installation stands, as Prometheus reads it: the same facts as `taxifare status`, in numbers.

What the service and consumers of streams count is told by themselves, see `taxifare.serving.metrics`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taxifare.errors import ToldError
from taxifare.operations.status import Status, StatusAlarmName

FRESH_S = 30.0
"""How long what was found is told again: however often somebody asks, ledger and source are not asked more often."""


class StatusCollector(Collector):
    """Tells where an installation stands each time it is asked.

    Args:
        look: Finds it out.
        unit: Errors are told in; minutes as seconds.
        on_fault: Hears why nothing can be told.
    """

    def __init__(self, look: Callable[[], Status], unit: str, on_fault: Callable[[ToldError], None]) -> None:
        self._look, self._unit, self._on_fault = look, unit, on_fault
        self._lock, self._told_s = threading.Lock(), -FRESH_S
        self._told: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics; where nothing can be told, that alone."""
        with self._lock:
            if time.monotonic() - self._told_s >= FRESH_S:
                self._told, self._told_s = list(self._found()), time.monotonic()
            yield from self._told

    def _found(self) -> Iterator[Metric]:
        known = "taxifare_status_known", "1 where it can be told where the installation stands: the ledger can be read"
        try:
            found = self._look()
        except ToldError as error:
            self._on_fault(error)
            yield GaugeMetricFamily(*known, 0)
            return
        yield GaugeMetricFamily(*known, 1)
        yield from _metrics(found, self._unit)


def told(collector: StatusCollector) -> str:
    """Returns what a collector tells now, in Prometheus's text format."""
    return generate_latest(registry_of(collector)).decode()


def registry_of(collector: StatusCollector) -> CollectorRegistry:
    """Returns a registry that has the collector alone."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def _metrics(found: Status, unit: str) -> Iterator[Metric]:
    """Yields each number; one that is not known is left out."""
    production = GaugeMetricFamily("taxifare_production_info", "1 for the version in production", labels=["version"])
    if found.production is not None:
        production.add_metric([found.production], 1)
    yield production
    yield GaugeMetricFamily(
        "taxifare_in_production", "1 where a version is in production", found.production is not None
    )
    if found.promotion is not None:
        age = (found.now - found.promotion.promoted_at).total_seconds()
        yield GaugeMetricFamily("taxifare_production_age_seconds", "Since production changed last", max(age, 0.0))
    asked = [(found.now - question.asked_at).total_seconds() for question in found.questions]
    left = [(question.valid_until - found.now).total_seconds() for question in found.questions]
    yield GaugeMetricFamily("taxifare_open_questions", "Questions that wait for a person's answer", len(asked))
    yield GaugeMetricFamily(
        "taxifare_oldest_question_age_seconds", "Since the oldest of them was asked; 0 without one", max([0.0, *asked])
    )
    if left:
        yield GaugeMetricFamily("taxifare_next_expiry_seconds", "Until the first of them expires", min(left))
    yield GaugeMetricFamily(
        "taxifare_months_behind", "Published months that have yet to be run, or run again", len(found.behind)
    )
    yield GaugeMetricFamily(
        "taxifare_months_waiting", "1 where the next of them waits until it is whole", found.waits is not None
    )
    yield GaugeMetricFamily(
        "taxifare_messages_undelivered", "Messages that have not arrived in every channel", len(found.untold)
    )
    alarms = GaugeMetricFamily(
        "taxifare_alarms", "Alarms as `taxifare status` shows them, of each name how many", labels=["alarm"]
    )
    for name in get_args(StatusAlarmName):
        alarms.add_metric([name], sum(alarm.name == name for alarm in found.alarms))
    yield alarms
    suffix, factor = ("seconds", 60.0) if unit == "min" else (unit.lower(), 1.0)
    if found.promised_mae is not None:
        name, what = f"taxifare_promised_error_{suffix}", "Error a ride that was shown when production was approved"
        yield GaugeMetricFamily(name, what, found.promised_mae * factor)
    if found.quotes is not None:
        name = f"taxifare_realised_error_{suffix}"
        what = "Error a ride of production's quotes, in the last month of which it is known"
        yield GaugeMetricFamily(name, what, found.quotes[1].mae * factor)
