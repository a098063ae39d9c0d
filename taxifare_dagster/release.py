"""Steps of a release, for what rolls it out (`deploy/switch`, the workflows): each waits for an answer, and says it.

python -m taxifare_dagster.release idle                                     # before a code server is replaced
python -m taxifare_dagster.release load webserver:3000                      # after one was
python -m taxifare_dagster.release smoke webserver:3000 http://service:9696    # in an installation of its own
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import dagster as dg
import requests
from dagster_graphql import DagsterGraphQLClient, ReloadRepositoryLocationStatus

from taxifare.approval.decisions import APPROVABLE
from taxifare.cli.shared import ending_told
from taxifare.errors import ToldError
from taxifare.serving.publishing import approvals_of
from taxifare.settings import settings_in_force
from taxifare.trips.editions import BASE
from taxifare_dagster.catalog import CODE_LOCATION
from taxifare_dagster.partitions import partition_key

AT_WORK = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
"""What the end of a code server would kill; a run in the queue waits for the next one."""

_BY = "smoke test of a release"
_LOOK_EVERY_S = 2.0

_Found = TypeVar("_Found")


class ReleaseError(ToldError, RuntimeError):
    """A release cannot go on; the message says what was waited for, and what there is instead."""


def idle(patience_s: float) -> None:
    """Ensures that no run is at work. Who asks has stopped the daemon, so that none begins.

    Raises:
        ReleaseError: One still is.
    """
    with dg.DagsterInstance.get() as instance:

        def at_work() -> str:
            runs = instance.get_runs(dg.RunsFilter(statuses=AT_WORK))
            return ", ".join(f"{run.job_name} {run.run_id}" for run in runs)

        _wait(lambda: not at_work(), patience_s, lambda: f"the end of the runs at work, which are: {at_work()}")


def load(webserver: str, patience_s: float) -> None:
    """Ensures that a webserver shows what the code server has now.

    Raises:
        ReleaseError: The webserver does not answer, or the code cannot be loaded.
    """
    client = _client(webserver, patience_s)
    found = client.reload_repository_location(CODE_LOCATION)
    if found.status != ReloadRepositoryLocationStatus.SUCCESS:
        raise ReleaseError(f"expected {CODE_LOCATION} to be loaded, received {found.failure_type}: {found.message}")


def smoke(webserver: str, service: str, patience_s: float) -> None:
    """Ensures that an empty installation makes a first model, compares a month, and is ready to price rides.

    The first month runs as a person would run it, by GraphQL; whatever is asked is approved.

    Raises:
        ReleaseError: Somebody has decided there before, or a step did not end well in time.
    """
    settings = settings_in_force()
    approvals = approvals_of(settings)
    if decided := approvals.record.outcomes():
        raise ReleaseError(
            f"expected an installation of its own, with an empty ledger; received {len(decided)} decisions"
        )
    client = _client(webserver, patience_s)
    request = _wait(
        lambda: next(iter(approvals.record.open_requests()), None), patience_s, lambda: "the first question"
    )
    if request.subject != BASE or request.verdict not in APPROVABLE:
        raise ReleaseError(f"expected a first model to be asked about, received {request.id}: {request.verdict}")
    approvals.decide(request.id, "approve", _BY, "the first model of an installation that will be thrown away")
    run = client.submit_job_execution("monthly_job", tags={"dagster/partition": partition_key(settings.first_month)})
    ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    _wait(
        lambda: client.get_run_status(run) in ended,
        patience_s,
        lambda: f"run {run}, which is {client.get_run_status(run).value}",
    )
    if (status := client.get_run_status(run)) != dg.DagsterRunStatus.SUCCESS:
        raise ReleaseError(f"expected run {run} to succeed, received {status.value}; its log says why")
    month = str(settings.first_month)
    compared = approvals.record.comparisons().get(month)
    if compared is None:
        raise ReleaseError(
            f"expected {month} to be compared in the ledger, received {', '.join(approvals.record.comparisons())}"
        )
    _wait(lambda: _is_well(f"{service}/health/ready"), patience_s, lambda: f"{service} to be ready")
    print(f"{month}: {compared.evidence.verdict}; version {approvals.production()} prices rides.", flush=True)


def _client(webserver: str, patience_s: float) -> DagsterGraphQLClient:
    """Returns a client of a webserver that answers.

    Raises:
        ReleaseError: It does not.
    """
    _wait(lambda: _is_well(f"http://{webserver}/server_info"), patience_s, lambda: f"an answer of {webserver}")
    host, _, port = webserver.rpartition(":")
    return DagsterGraphQLClient(host, port_number=int(port))


def _is_well(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.RequestException:
        return False


def _wait(look: Callable[[], _Found | None], patience_s: float, what: Callable[[], str]) -> _Found:
    """Returns what is found once something is.

    Raises:
        ReleaseError: Nothing is in time.
    """
    until_s = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > until_s:
            raise ReleaseError(f"waited {patience_s:.0f} s for {what()}")
        time.sleep(_LOOK_EVERY_S)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Takes the step that is named."""
    parser = argparse.ArgumentParser(prog="python -m taxifare_dagster.release")
    parser.add_argument("--patience", type=float, default=600, metavar="SECONDS", help="how long is waited")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("idle", help=idle.__doc__)
    for name, step in (("load", load), ("smoke", smoke)):
        steps.add_parser(name, help=step.__doc__).add_argument("webserver", help="host:port of Dagster's")
    steps.choices["smoke"].add_argument("service", help="address of what prices rides")
    asked = parser.parse_args(arguments)
    if asked.step == "idle":
        idle(asked.patience)
    elif asked.step == "load":
        load(asked.webserver, asked.patience)
    else:
        smoke(asked.webserver, asked.service, asked.patience)


if __name__ == "__main__":
    with ending_told():
        main()
