"""Resources: domain objects, made from the settings when a run needs them.

They are plain objects, not Dagster config: nothing of them, secrets least of all, is shown in the UI or stored. What
they are made of belongs in `taxifare` (`from_settings`); what belongs here is only what a Dagster run adds to them.
Why dagster-mlflow's run is used in one process only: docs/decisions.md, under taxifare_dagster.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from upath import UPath

from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import Notifier, WatchedLog, notifiers
from taxifare.approval.versions import registry_of
from taxifare.model.provenance import code_tags
from taxifare.model.registry import ModelRegistry
from taxifare.secrets import private_folder
from taxifare.serving.publishing import LakePublisher, approvals_of
from taxifare.serving.scored_table import ScoredTable
from taxifare.settings import BigQuerySettings, Settings
from taxifare.sources import make_source
from taxifare.trips.targets import TargetName
from taxifare_dagster.io_managers import BaseTripsIOManager, JsonIOManager, LakeIOManager, ParquetIOManager
from taxifare_dagster.links import DagsterLinks
from taxifare_dagster.run_guards import ensure_of_one_month
from taxifare_dagster.takeover import take_over_comparisons

if TYPE_CHECKING:
    from google.cloud.bigquery import Client


def make_resources(settings: Settings) -> Mapping[str, Any]:
    """Returns the resources of all assets, checks, jobs and sensors; making them connects to nothing."""
    bigquery_client = partial(_bigquery_client, settings)
    return {
        "settings": settings,
        "source": make_source(settings, bigquery_client=bigquery_client),
        "scored_table": ScoredTable.from_settings(settings, bigquery_client),
        "registry": _registry_resource(settings),
        "approvals": _approvals_resource(settings),
        "publisher": LakePublisher(settings, registry_of(settings)),
        "notifiers": _notifiers_resource(settings),
        "links": DagsterLinks(settings.dagster_url, settings.lake),
        "parquet_io": _lake_resource(partial(ParquetIOManager, city=settings.city_facts), settings),
        "base_trips_io": _lake_resource(BaseTripsIOManager, settings),
        "json_io": _lake_resource(JsonIOManager, settings),
    }


def _bigquery_client(settings: BigQuerySettings) -> "AbstractContextManager[Client]":
    """Returns what opens dagster-gcp's client of BigQuery, with the credentials of the environment."""
    # Importing it costs three seconds, which only those pay who read from BigQuery.
    from dagster_gcp import BigQueryResource

    return BigQueryResource(project=settings.bigquery_project, location=settings.bigquery_location).get_client()


def _lake_resource(
    manager: Callable[[UPath, TargetName], LakeIOManager[Any]], settings: Settings
) -> dg.IOManagerDefinition:
    """Returns the IO manager. Whatever is of a month opens one before its first step, so runs are refused here."""

    def io_manager(context: dg.InitResourceContext) -> LakeIOManager[Any]:
        ensure_of_one_month(context.run, context.instance)
        private_folder(settings.home)
        return manager(settings.lake, settings.target)

    return dg.IOManagerDefinition(io_manager, description="Values of assets in the lake")


def _approvals_resource(settings: Settings) -> dg.ResourceDefinition:
    """Returns the approvals; whoever uses them first on a state of an earlier release takes its comparisons over."""

    def approvals(context: dg.InitResourceContext) -> Approvals:
        found = approvals_of(settings)
        if context.instance is not None:
            take_over_comparisons(context.instance, found.ledger)
        return found

    return dg.ResourceDefinition(approvals, description="Requests and decisions")


def _notifiers_resource(settings: Settings) -> dg.ResourceDefinition:
    """Returns how people are reached: where the settings name no channel, by the log of the run that sends.

    It is on the run's page, and in the terminal of `make dev`, to which runs write. So it is a channel of runs only: a
    process that nobody watches has none.
    """

    def found(context: dg.InitResourceContext) -> Sequence[Notifier]:
        return notifiers(settings) or (WatchedLog(context.log or logging.getLogger(__name__)),)

    return dg.ResourceDefinition(found, description="How people are reached")


def _registry_resource(settings: Settings) -> dg.ResourceDefinition:
    """Returns the registry as assets use it: with an MLflow run of the whole Dagster run around it.

    That run is dagster-mlflow's and becomes the parent of the runs that assets log. Only under the in-process executor:
    with steps in processes of their own, dagster-mlflow makes several runs of one Dagster run and closes them early.
    """

    def registry(context: dg.InitResourceContext) -> Iterator[ModelRegistry]:
        found = registry_of(settings)
        if settings.executor != "in_process":
            yield found
            return
        found.prepare()
        import mlflow
        from dagster_mlflow.resources import MlFlow

        config = {
            "experiment_name": settings.mlflow_experiment,
            "mlflow_tracking_uri": settings.tracking_uri,
            "env": {},
            "extra_tags": dict(code_tags()),
        }
        try:
            MlFlow(context.replace_config(config))
            yield found
        finally:
            # A run left active would be taken for the parent of the next Dagster run in this process.
            mlflow.end_run("FAILED" if _has_failed(context) else "FINISHED")

    return dg.ResourceDefinition(registry, description="Models in MLflow")


def _has_failed(context: dg.InitResourceContext) -> bool:
    """Returns whether a step of the run has failed; resources are closed before the run's status is known."""
    if context.instance is None or context.run is None:
        return False
    return bool(context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE))
