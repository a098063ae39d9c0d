"""The world around the orchestration: a publisher of trips, a chat, a state folder, and a person who decides."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.definitions.sensor_definition import SensorExecutionData
from upath import UPath

from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import Message
from taxifare.approval.records import Request
from taxifare.approval.versions import registry_of
from taxifare.gate.evidence import Evidence
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.sources import BasePublication, Publication, SourceError, TripSource, make_source
from taxifare.sources.folder import Folder
from taxifare.trips.months import Month, parse_month
from taxifare_dagster.build import build_definitions
from taxifare_dagster.home import prepare_home
from tests.support.registry import all_runs, all_versions
from tests.support.small import small_settings

JANUARY, FEBRUARY, MARCH = (parse_month(f"2015-0{number}") for number in (1, 2, 3))
Change = Callable[[pd.DataFrame], pd.DataFrame]


def world_settings(home: Path, **changes: object) -> Settings:
    """Settings of a city whose fares rise with January: two epochs are enough to learn that, and to show it."""
    quick = {
        "max_epochs": 2,
        "batch_size": 32,
        "learning_rate": 0.003,
        "simulator_scenario": "fare-rise",
        "simulator_scenario_from": "2015-01",
        "approval_secret": "known to these tests only",
        # MLflow writes the store it used last into the environment: that of another world.
        "mlflow_tracking_uri": None,
    }
    return small_settings(home, **quick | changes)


@dataclass
class Publisher(TripSource):
    """The simulated city's publisher, who can be late, corrected, wrong or out of reach.

    Attributes:
        city: Whose trips.
        out: The months published so far.
        editions: Revision and rows of the months that are not as the city would have them.
        fault: What anybody hears who asks for months.
        base_fault: What anybody hears who asks for the base years.
    """

    city: TripSource
    out: tuple[Month, ...] = (JANUARY,)
    editions: dict[Month, tuple[str, Change]] = field(default_factory=dict)
    fault: SourceError | None = None
    base_fault: SourceError | None = None

    def restate(self, month: Month, revision: str, change: Change = lambda trips: trips) -> None:
        """Publishes other rows for the month from now on; that they are trips of that month is not ensured here."""
        self.editions[month] = (revision, change)

    def months(self) -> dict[Month, str]:
        if self.fault is not None:
            raise self.fault
        revisions = self.city.months()
        return {month: self.editions[month][0] if month in self.editions else revisions[month] for month in self.out}

    def read_month(self, month: Month) -> Publication:
        if self.fault is not None:
            raise self.fault
        publication = self.city.read_month(month)
        if month not in self.editions:
            return publication
        revision, change = self.editions[month]
        return replace(publication, trips=change(publication.trips.copy()), revision=revision)

    def read_base(self) -> BasePublication:
        if self.base_fault is not None:
            raise self.base_fault
        return self.city.read_base()

    def base_revision(self) -> str:
        if self.base_fault is not None:
            raise self.base_fault
        return self.city.base_revision()


@dataclass
class Chat:
    """A chat that keeps what it is told, or refuses with its fault."""

    channel: str = "chat"
    messages: list[Message] = field(default_factory=list)
    fault: Exception | None = None

    def deliver(self, message: Message) -> None:
        if self.fault is not None:
            raise self.fault
        self.messages.append(message)


@dataclass
class World:
    """A state folder with a persistent Dagster instance on it, and everything a run needs.

    Attributes:
        settings: In force.
        publisher: The source of trips.
        chat: Receives messages.
        source: Where trips come from if not from the publisher.
        more_chats: Receive messages as well.
        clock_ahead_days: How late it is for those who look at requests.
    """

    settings: Settings
    publisher: Publisher
    chat: Chat = field(default_factory=Chat)
    source: TripSource | None = None
    more_chats: list[Chat] = field(default_factory=list)
    clock_ahead_days: int = 0
    _built: tuple[list[int], dg.Definitions] | None = field(default=None, init=False, repr=False)

    @classmethod
    def create(cls, home: Path, migrated_store: Path) -> "World":
        """A world with an empty state folder, prepared as `make demo` and `make dev` prepare it."""
        settings = world_settings(home)
        (home / "mlflow").mkdir(parents=True)
        shutil.copy(migrated_store, home / "mlflow" / "mlflow.db")
        before = dict(os.environ)
        prepare_home(settings)
        os.environ.pop("DAGSTER_HOME", None)  # the instance is opened by its folder; nothing finds it by accident
        os.environ.update({name: before[name] for name in {"DAGSTER_HOME"} & set(before)})
        return cls(settings, Publisher(make_source(settings)))

    @classmethod
    def at(cls, home: Path) -> "World":
        """The world that another process has left in a folder."""
        settings = world_settings(home)
        return cls(settings, Publisher(make_source(settings)))

    def copy(self, home: Path, **changes: object) -> "World":
        """The same world in another folder, to go on from there under changed settings."""
        shutil.copytree(self.settings.home, home)
        _move_mlflow_store(home / "mlflow" / "mlflow.db", str(self.settings.home), str(home))
        return World(world_settings(home, **changes), replace(self.publisher, editions={}))

    def under(self, **changes: object) -> "World":
        """This world, same folder, under changed settings."""
        return World(world_settings(self.settings.home, **changes), self.publisher, self.chat, self.source)

    def reading(self, folder: Path) -> "World":
        """This world, same folder, with trips from files."""
        return World(self.settings, self.publisher, self.chat, Folder(UPath(folder)))

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's instance, with the configuration that is shipped."""
        return dg.DagsterInstance.from_config(str(self.settings.home / "dagster"))

    @property
    def definitions(self) -> dg.Definitions:
        """The code location, with this world's source and chats: put together once, as the demo does, for these."""
        source, chats = self.source or self.publisher, (self.chat, *self.more_chats)
        parts = [id(part) for part in (source, *chats)]
        if self._built is None or self._built[0] != parts:
            approvals = Approvals.from_settings(self.settings, self.registry)
            approvals.now = lambda: datetime.now(UTC) + timedelta(days=self.clock_ahead_days)
            built = build_definitions(self.settings, source=source, notifiers=chats, approvals=approvals)
            self._built = parts, built
        return self._built[1]

    @cached_property
    def registry(self) -> ModelRegistry:
        return registry_of(self.settings)

    @cached_property
    def approvals(self) -> Approvals:
        return Approvals.from_settings(self.settings, self.registry)

    # What a person, a sensor or a command does

    def run(
        self,
        job: str,
        *,
        month: Month | None = None,
        ops: Mapping[str, Mapping[str, object]] | None = None,
        assets: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Runs a job, or some of its assets with their checks; a failure is for the test to look at."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=None if month is None else f"{month}-01",
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
            run_config={
                "ops": {op: {"config": config} for op, config in (ops or {}).items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            tags=tags,
            raise_on_error=False,
        )

    def tick(self, sensor: str) -> SensorExecutionData:
        """Evaluates a sensor as the daemon does."""
        repository = self.definitions.get_repository_def()
        definition, resources = repository.get_sensor_def(sensor), repository.get_top_level_resources()
        needed = {name: resources[name] for name in definition.required_resource_keys}
        with dg.build_sensor_context(self.instance, repository_def=repository, resources=needed) as context:
            return definition.evaluate_tick(context)

    def tick_of(self, schedule: str) -> ScheduleExecutionData:
        """Evaluates a schedule as the daemon does."""
        repository = self.definitions.get_repository_def()
        definition, resources = repository.get_schedule_def(schedule), repository.get_top_level_resources()
        needed = {name: resources[name] for name in definition.required_resource_keys}
        with dg.build_schedule_context(self.instance, repository_def=repository, resources=needed) as context:
            return definition.evaluate_tick(context)

    def launch(self, requested: dg.RunRequest, job: str) -> dg.ExecuteInProcessResult:
        """Runs what a sensor requested, with the tags that the daemon gives it."""
        return self.definitions.resolve_job_def(requested.job_name or job).execute_in_process(
            instance=self.instance,
            partition_key=requested.partition_key,
            run_config={**requested.run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={**requested.tags, "dagster/run_key": str(requested.run_key)},
            raise_on_error=False,
        )

    def run_month(self, month: Month) -> dg.ExecuteInProcessResult:
        """Runs the month's five assets and their checks."""
        return self.run("monthly_job", month=month)

    def ask(self, subject: object) -> dg.ExecuteInProcessResult:
        """Asks a person about a comparison."""
        return self.run("approval_job", ops={"send_approval_message": {"subject": str(subject)}})

    def answer(self, asked: Request, decision: str = "approve", **changes: object) -> dg.ExecuteInProcessResult:
        """Answers a request as Ada does from its message."""
        token = self.approvals.answer_tokens(asked).get(decision, "of no such decision")  # type: ignore[call-overload]
        shown = {"request": asked.id, "token": token, "decision": decision}
        written = {"decided_by": "Ada", "reason": "I looked at the slices"}
        return self.run("decision_job", ops={"decide": shown | written | changes})

    def ask_and_approve(self, subject: object) -> Request:
        """Asks about a comparison, approves, and returns the request."""
        assert self.ask(subject).success
        request = self.request(subject)
        assert self.answer(request).success
        return request

    # What there is to see afterwards

    def evidence(self, subject: object) -> Evidence:
        """The latest evidence on a subject."""
        return self.approvals.record.comparisons()[str(subject)].evidence

    def request(self, subject: object) -> Request:
        """The latest request on a subject."""
        return [request for request in self.approvals.record.requests() if request.subject == str(subject)][-1]

    def lake(self) -> dict[str, bytes]:
        """The lake's files."""
        folder = self.settings.home / "lake"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def metadata(self, asset: str, month: Month | None = None) -> dict[str, Any]:
        """What the latest materialization shows, as plain values."""
        partitions = None if month is None else [f"{month}-01"]
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=partitions), limit=1
        ).records
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}

    def is_materialized(self, asset: str, month: Month) -> bool:
        """Whether Dagster knows the asset's month."""
        return f"{month}-01" in self.instance.get_materialized_partitions(dg.AssetKey(asset))

    def versions(self) -> dict[str, str]:
        """The month of each registered version."""
        found = all_versions(self.registry)
        return {str(version.version): version.tags.get("month", "whole month") for version in found}

    def mlflow_runs(self, dagster_run: str) -> dict[str, Any]:
        """The MLflow runs of a Dagster run, by asset; dagster-mlflow's run of the whole is `parent`."""
        runs = all_runs(self.registry)
        assets = {run.data.tags["asset"]: run for run in runs if run.data.tags.get("dagster_run") == dagster_run}
        parents = [run for run in runs if run.data.tags.get("dagster_run_id") == dagster_run]
        assert len(parents) <= 1
        return assets | ({"parent": parents[0]} if parents else {})


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """What the checks of a run found, by name."""
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    """The checks of a run that did not pass."""
    return {name for name, evaluation in checks_of(result).items() if not evaluation.passed}


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """What each failed step says, causes included; what fails the run before its steps stands under `run`."""
    found: dict[str, str] = {}
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            said = failure.user_failure_data.description if failure.user_failure_data else None
            found[str(event.step_key)] = said or _told(failure.error)
        elif event.event_type is dg.DagsterEventType.RUN_FAILURE and not found:
            found["run"] = _told(event.job_failure_data.error)
    return found


def _told(error: Any) -> str:
    """An error and its causes, without their traces."""
    return "" if error is None else f"{error.message}{_told(error.cause)}"


def _move_mlflow_store(database: Path, old: str, new: str) -> None:
    """Ensures that a copied MLflow store finds its artifacts in the copy: it keeps their absolute addresses."""
    connection = sqlite3.connect(database)
    with connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                    (old, new, old),
                )
    connection.close()
