"""Dagster as its own UI drives it: the same GraphQL mutations, against a running webserver."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import requests

T = TypeVar("T")

LOCATION = "taxifare_dagster.definitions"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

_RUNS = """query ($filter: RunsFilter, $steps: Boolean!) { runsOrError(filter: $filter, limit: 500) {
  ... on Runs { results { runId jobName status startTime endTime parentRunId tags { key value }
    stepStats @include(if: $steps) { stepKey status startTime endTime } } }
  ... on PythonError { message } } }"""
_LAUNCH = """mutation ($list: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $list) {
  ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } } } } ... on PythonError { message } } }"""
_BACKFILL = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_BACKFILL_STATUS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } ... on PythonError { message } } }"""
_SENSOR = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
  id sensorState { status ticks(limit: 20) { timestamp status skipReason error { message } } } } } }"""
_EVENTS = """query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events { __typename
  ... on MessageEvent { message stepKey timestamp }
  ... on EngineEvent { metadataEntries { label ... on TextMetadataEntry { text } } }
  ... on ErrorEvent { error { message className causes { message className } } } } } } }"""
_ASSETS = """{ assetNodes { assetKey { path } description groupName owners { ... on TeamAssetOwner { team } } kinds
  assetMaterializations { partition timestamp runOrError { ... on Run { runId } }
    metadataEntries { label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intRepr }
    ... on FloatMetadataEntry { floatValue } } } } }"""
_CHECKS = """query ($asset: AssetKeyInput!) { assetNodeOrError(assetKey: $asset) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name blocking partitionStatuses {
    ... on AssetCheckTimePartitionStatuses { ranges { startKey endKey status } } } } } } } } }"""


@dataclass(frozen=True)
class Run:
    """A run as the UI lists it; times in seconds since the epoch."""

    id: str
    job: str
    status: str
    tags: Mapping[str, str]
    parent_id: str | None
    started: float | None
    ended: float | None
    steps: Mapping[str, Mapping[str, Any]]

    @property
    def partition(self) -> str | None:
        """The partition it is of."""
        return self.tags.get("dagster/partition")

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status in FINISHED

    def interval(self, step: str) -> tuple[float, float] | None:
        """When the step began and ended; None if it did not do both."""
        stats = self.steps.get(step, {})
        begun, ended = stats.get("startTime"), stats.get("endTime")
        return None if begun is None or ended is None else (begun, ended)


@dataclass(frozen=True)
class Ui:
    """Dagster's webserver at a URL."""

    url: str

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of the answer; raises AssertionError for errors."""
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    # Launching

    def launch_job(self, job: str, config: Mapping[str, Any] | None = None, **tags: str) -> str:
        """What the launchpad does."""
        return self._launch([_execution({"pipelineName": job}, config, tags)])[0]

    def materialize(self, assets: Sequence[str], partition: str) -> str:
        """What "Materialize" on an asset's page does for one partition; returns the run's id."""
        selector = {"pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [asset]} for asset in assets]}
        tags = {"dagster/partition": partition, "dagster/from_ui": "true"}
        return self._launch([_execution(selector, None, tags)])[0]

    def backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """What "Materialize" does for several partitions; returns the backfill's id."""
        return self._backfill({"assetSelection": [{"path": [asset]} for asset in assets]}, partitions)

    def backfill_job(self, job: str, partitions: Sequence[str]) -> str:
        """What "Launch backfill" on a job's page does; returns the backfill's id."""
        repository = {"repositorySelector": REPOSITORY, "partitionSetName": f"{job}_partition_set"}
        return self._backfill({"selector": repository}, partitions)

    def materialize_range(self, assets: Sequence[str], first: str, last: str) -> str:
        """What "Materialize" does with "Single run" chosen; returns the run's id."""
        selector = {"pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [asset]} for asset in assets]}
        ends = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self._launch([_execution(selector, None, ends)])[0]

    def _backfill(self, chosen: Mapping[str, Any], partitions: Sequence[str]) -> str:
        tags = [{"key": "dagster/from_ui", "value": "true"}]
        params = {**chosen, "partitionNames": list(partitions), "tags": tags}
        launched = self.query(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def _launch(self, executions: Sequence[Mapping[str, Any]]) -> list[str]:
        results = self.query(_LAUNCH, list=executions)["launchMultipleRuns"]["launchMultipleRunsResult"]
        assert all(result["__typename"] == "LaunchRunSuccess" for result in results), results
        return [result["run"]["runId"] for result in results]

    # Sensors

    def stop_sensor(self, name: str) -> None:
        """What the sensor's switch does, pressed until it holds.

        At the end of a tick Dagster's daemon writes back the state it read a moment before, the switch with it.
        """
        mutation = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"

        def stopped() -> bool:
            sensor = self._sensor(name)
            if sensor["sensorState"]["status"] == "STOPPED":
                return all(tick["status"] != "STARTED" for tick in sensor["sensorState"]["ticks"])
            self.query(mutation, id=sensor["id"])
            return False

        eventually(stopped, f"{name} to stop", within_s=60)
        time.sleep(1)
        eventually(stopped, f"{name} to stay stopped", within_s=60)

    def start_sensor(self, name: str) -> None:
        """What the sensor's switch does."""
        mutation = "mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }"
        started = self.query(mutation, selector={**REPOSITORY, "sensorName": name})["startSensor"]
        assert started["__typename"] == "Sensor", started

    def ticks(self, name: str) -> list[dict[str, Any]]:
        """The sensor's last ticks, newest first."""
        ticks: list[dict[str, Any]] = self._sensor(name)["sensorState"]["ticks"]
        return ticks

    def _sensor(self, name: str) -> dict[str, Any]:
        sensor: dict[str, Any] = self.query(_SENSOR, selector={**REPOSITORY, "sensorName": name})["sensorOrError"]
        return sensor

    # What there is

    def runs(self, job: str | None = None, partition: str | None = None, **tags: str) -> list[Run]:
        """Runs without their steps, oldest first."""
        if partition is not None:
            tags |= {"dagster/partition": partition}
        chosen: dict[str, Any] = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        return self._runs(chosen | ({} if job is None else {"pipelineName": job}), steps=False)

    def backfill_status(self, backfill_id: str) -> str:
        """Where the backfill stands."""
        return str(self.query(_BACKFILL_STATUS, id=backfill_id)["partitionBackfillOrError"]["status"])

    def run(self, run_id: str) -> Run:
        """The run with its steps."""
        return self._runs({"runIds": [run_id]}, steps=True)[0]

    def _runs(self, chosen: Mapping[str, Any], *, steps: bool) -> list[Run]:
        runs = [
            Run(
                id=run["runId"],
                job=run["jobName"],
                status=run["status"],
                tags={tag["key"]: tag["value"] for tag in run["tags"]},
                parent_id=run["parentRunId"],
                started=run["startTime"],
                ended=run["endTime"],
                steps={stats["stepKey"]: stats for stats in run.get("stepStats", ())},
            )
            for run in self.query(_RUNS, filter=chosen, steps=steps)["runsOrError"]["results"]
        ]
        return runs[::-1]

    def finished(self, run_id: str, within_s: float = 120) -> Run:
        """The run, once it has ended."""
        return eventually(
            lambda: run if (run := self.run(run_id)).is_finished else None, f"the end of run {run_id}", within_s
        )

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The run's log."""
        events: list[dict[str, Any]] = self.query(_EVENTS, run=run_id)["logsForRun"]["events"]
        return events

    def errors(self, run_id: str) -> str:
        """All the errors in the run's log, as one text."""
        errors = [event["error"] for event in self.events(run_id) if event.get("error")]
        return "\n".join(part["message"] for error in errors for part in (error, *error["causes"]))

    def worker(self, run_id: str) -> int | None:
        """The id of the process that executes the run, None as long as there is none."""
        for event in self.events(run_id):
            for entry in event.get("metadataEntries") or ():
                if entry["label"] == "pid":
                    return int(entry["text"])
        return None

    def assets(self) -> dict[str, dict[str, Any]]:
        """The assets with their materialisations, newest first."""
        return {node["assetKey"]["path"][-1]: node for node in self.query(_ASSETS)["assetNodes"]}

    def checks(self, asset: str) -> dict[str, list[dict[str, str]]]:
        """The state of each check of the asset by ranges of months."""
        checks = self.query(_CHECKS, asset={"path": [asset]})["assetNodeOrError"]["assetChecksOrError"]["checks"]
        return {check["name"]: check["partitionStatuses"]["ranges"] for check in checks}


def _execution(
    selector: Mapping[str, Any], config: Mapping[str, Any] | None, tags: Mapping[str, str]
) -> Mapping[str, Any]:
    return {
        "selector": {**REPOSITORY, **selector},
        "runConfigData": config or {},
        "mode": "default",
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }


def eventually(find: Callable[[], T | None], what: str, within_s: float = 120, every_s: float = 0.5) -> T:
    """What `find` returns once it finds something; fails the test when that takes too long."""
    deadline = time.monotonic() + within_s
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for {what}"
        time.sleep(every_s)


def config_of(link: str) -> str:
    """The config that a link to the launchpad fills in."""
    (config,) = parse_qs(urlsplit(link).query)["config"]
    return config
