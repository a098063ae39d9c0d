"""Whether it stays fast as it grows: listings, a decision and a sensor's tick after 6 months, 50 months and 200 months.

    .venv/bin/python bench/growth.py [--months 6,200]

Each size is a state folder of its own: five versions a month in a real MLflow store, a request about each, the last of
each month open, and 50 entries a month in the ledger in all. Each figure stands beside that of six months in the same
run. Commands run in this process, so that what is measured is their own work and not Python's imports; 200 months take
some minutes to make.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3"}

import dagster as dg
from typer.testing import CliRunner

from taxifare.approval import promotions
from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import WatchedLog
from taxifare.approval.comparisons import comparison_of
from taxifare.approval.heads import ToldHeads
from taxifare.approval.ledger import Entries
from taxifare.approval.records import Delivery, Outcome, Refusal, Request, RequestState
from taxifare.approval.requests import request_on
from taxifare.approval.verification import verify
from taxifare.approval.versions import registry_of
from taxifare.cli.main import app
from taxifare.cli.shared import Surroundings
from taxifare.gate.evidence import Contender, Evidence, Verdict
from taxifare.gate.scores import Interval, Scores
from taxifare.gate.slices import SliceComparison
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.trips.months import Month, parse_month
from taxifare_dagster.order import covered_months
from taxifare_dagster.sensors import approval_sensor, new_month_sensor

BASELINE = 6
MOST_LISTING_S, MOST_DECISION_S, MOST_TICKS = 1.0, 2.0, 2.0
VERSIONS_A_MONTH = 5
ENTRIES_A_MONTH = 50
ENTRIES_OF_VERSIONS = 36
CHANNELS = (WatchedLog.channel, "chat")
START = datetime(2015, 2, 1, 9, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--months", default="6,50,200")
    sizes = [int(size) for size in parser.parse_args().months.split(",")]
    # MLflow keeps what it has opened, also when the folder is gone: each size has a process of its own.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as process:
        found = {size: process.submit(measured, size).result() for size in sizes}
    print(f"{'':30}" + "".join(f"{f'{size} months':>22}" for size in sizes))
    for what, first in found[sizes[0]].items():
        shown = (f"{found[size][what]:>12.3f} s {found[size][what] / first:>6.1f} x" for size in sizes)
        print(f"{what:30}" + "".join(f"{text:>22}" for text in shown))
    slow = [what for size in sizes for what, seconds in found[size].items() if seconds > most(what, found)]
    if slow:
        print(
            f"promised: {MOST_LISTING_S} s a listing, {MOST_DECISION_S} s a decision, {MOST_TICKS} times a tick of "
            f"{BASELINE} months; slower: {', '.join(dict.fromkeys(slow))}"
        )


def most(what: str, found: dict[int, dict[str, float]]) -> float:
    """Returns the seconds that are promised."""
    if what.startswith("ticks"):
        return MOST_TICKS * found[BASELINE][what] if BASELINE in found else float("inf")
    return MOST_DECISION_S if what.startswith("decision") else MOST_LISTING_S


def measured(months: int) -> dict[str, float]:
    """Returns the seconds of each, in a state folder of so many months."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["TAXIFARE_HOME"] = home
        last = parse_month("2015-01") + months - 1
        settings = Settings(_env_file=None, taxifare_home=Path(home), last_month=str(last))
        registry = registry_of(settings)
        registry.prepare()
        approvals = Approvals.from_settings(settings, registry)
        source, notifiers = make_source(settings), [WatchedLog(logging.getLogger(__name__))]
        revisions = covered_months(source, settings)
        make(approvals, registry, revisions)
        (events := Path(home) / "dagster").mkdir()
        instance = dg.DagsterInstance.local_temp(str(events))

        def command(*words: str) -> Callable[[], object]:
            return lambda: ran(words, revisions)

        def ticks() -> None:
            with dg.build_sensor_context(instance=instance) as context:
                new_month_sensor(context, source=source, approvals=approvals, settings=settings)
                approval_sensor(context, approvals=approvals, notifiers=notifiers, settings=settings)

        found = {
            "ticks of both sensors": seconds(ticks),
            "requests": seconds(command("requests")),
            "requests --all": seconds(command("requests", "--all")),
            "history": seconds(command("history")),
            "months": seconds(command("months")),
            "history --verify": seconds(lambda: verify(approvals.ledger, ToldHeads(settings.home, "").read())),
        }
        waiting = approvals.record.open_requests()
        request = waiting[-1]
        token = approvals.answer_tokens(request)["approve"]
        started = time.perf_counter()
        approvals.decide(request.id, "approve", "Ada", "faster", token)
        found["decision that voids the rest"] = time.perf_counter() - started
        assert not approvals.record.open_requests()
        return found


def ran(words: tuple[str, ...], revisions: dict[Month, str]) -> None:
    """Ensures that a command was run and ended well."""
    surroundings = Surroundings(
        lambda _: revisions, lambda *_: None, lambda _: {}, run_server=lambda _: None, migrations={}
    )
    done = CliRunner().invoke(app, list(words), obj=surroundings, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output


def seconds(work: Callable[[], object], times: int = 5) -> float:
    """Returns the median seconds of the work, done before to warm up."""
    work()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return median(found)


def make(approvals: Approvals, registry: ModelRegistry, months: Mapping[Month, str]) -> None:
    """Ensures that ledger and registry have been used for these months, in these revisions."""
    client = registry.store.client
    run_id = client.create_run(registry.store.experiment_id).info.run_id
    client.log_text(run_id, "a model", "model/MLmodel")
    place = f"runs:/{run_id}/model"
    for _ in range(1 + len(months) * VERSIONS_A_MONTH):
        client.create_model_version(registry.model_name, place, run_id)
    versions = iter(range(1, 2 + len(months) * VERSIONS_A_MONTH))
    with approvals.ledger.writing() as entries:
        answer(entries, ask(entries, "base", "r1", next(versions), None), RequestState.APPROVED)
        for month, revision in months.items():
            for edition in range(VERSIONS_A_MONTH - 1):
                production = promotions.production(entries)
                state = RequestState.REJECTED if edition else RequestState.APPROVED
                answer(entries, ask(entries, str(month), revision, next(versions), production), state)
            for _ in range(ENTRIES_A_MONTH - ENTRIES_OF_VERSIONS):
                entries.add_refusal(Refusal(str(month), "approve", "Eve", "the token is not the request's", START))
        production = promotions.production(entries)
        for month, revision in months.items():
            ask(entries, str(month), revision, next(versions), production)
    registry.set_production(str(production))
    approvals.adopt(by="Ada", reason="they are what they were")


def ask(entries: Entries, subject: str, revision: str, version: int, production: str | None) -> Request:
    """Returns a request that was asked on two channels."""
    comparison = comparison_of(evidence(subject, revision, str(version), production), START + timedelta(hours=version))
    request = request_on(comparison, datetime.now(UTC), timedelta(days=30))
    entries.add_comparison(comparison)
    entries.add_request(request)
    entries.add_projection(f"request {request.id}", request.requested_at)
    for channel in CHANNELS:
        entries.add_delivery(Delivery(request.id, channel, 0, request.requested_at))
    return request


def answer(entries: Entries, request: Request, state: RequestState) -> None:
    """Ensures that a request was answered."""
    entries.settle(Outcome(request.id, state, "Ada", "I looked at the slices", override=False, at=request.requested_at))
    entries.add_projection(f"outcome {request.id}", request.requested_at)
    if state is RequestState.APPROVED:
        made = promotions.promote(
            entries, request.staging_version, request.requested_at, by="Ada", reason="better", request=request
        )
        entries.add_projection(f"promotion {made.sequence}", request.requested_at)


def evidence(subject: str, revision: str, staging: str, production: str | None) -> Evidence:
    """Returns evidence as a comparison leaves it, with a slice for each kind of trips that a city knows."""
    few = Scores(trips=4000, mae=2.1, rmse=4.2, bias=-0.3)
    gain = Interval(mean=0.21, low=0.17, high=0.25)
    kinds = ("airport", "night", "weekend", "long", "short", "bridge", "rain", "group")
    contenders = [
        Contender(version=version, run_id="0" * 32, scores=few, correction=0.2, corrected=few)
        for version in (staging, production or staging)
    ]
    return Evidence(
        subject=subject,
        revision=revision,
        unit="USD",
        staging=contenders[0],
        production_version=production,
        production=contenders[1] if production else None,
        difficulty_mae=2.48,
        gain=gain if production else None,
        slices=tuple(SliceComparison(name=kind, production=few, staging=few, gain=gain) for kind in kinds),
        verdict=Verdict.PROMOTE if production else Verdict.COLD_START,
        reasons=("the gain exceeds 0.01 USD",),
    )


if __name__ == "__main__":
    main()
