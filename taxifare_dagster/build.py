"""Puts the definitions together for given settings. What each is stands in the module of its kind.

Building needs no TensorFlow, MLflow, network or data.
"""

import warnings

import dagster as dg

from taxifare.settings import Settings
from taxifare_dagster import checks, jobs, schedules, sensors
from taxifare_dagster.assets import models, monitoring, production, replay, serving, trips, watch
from taxifare_dagster.executors import executor_of
from taxifare_dagster.partitions import months_of
from taxifare_dagster.resources import make_resources


def build_definitions(settings: Settings, **resources: object) -> dg.Definitions:
    """Returns the definitions under these settings, for Dagster, the demo and the tests alike.

    Args:
        settings: Which months there are, where everything lies, how steps run.
        resources: Resources by name, in place of those the settings ask for.
    """
    _accept_previews()
    months = months_of(settings)
    return dg.Definitions(
        assets=[
            *trips.build_assets(months),
            *models.build_assets(months),
            production.production_model,
            *serving.build_assets(months),
            serving.scored_files,
            serving.collected_predictions,
            *monitoring.build_assets(months),
            *watch.build_assets(months),
            *replay.build_assets(),
        ],
        asset_checks=checks.build_checks(months),
        jobs=[
            jobs.base_job,
            jobs.monthly_job,
            jobs.approval_job,
            jobs.decision_job,
            jobs.rollback_job,
            jobs.ask_again_job,
            jobs.notice_job,
            jobs.reminder_job,
            jobs.whole_month_job,
            jobs.watch_job,
            jobs.days_so_far_job,
            jobs.tuning_job,
            jobs.replay_job,
            jobs.scoring_job,
            jobs.inbox_job,
            jobs.collect_job,
            jobs.outcomes_job,
        ],
        sensors=[
            sensors.new_month_sensor,
            sensors.approval_sensor,
            sensors.production_sensor,
            sensors.damage_sensor,
            sensors.calendar_sensor,
            sensors.watch_sensor,
            sensors.inbox_sensor,
            sensors.outcomes_sensor,
        ],
        schedules=[
            schedules.monthly_schedule,
            schedules.reminder_schedule,
            schedules.inbox_schedule,
            schedules.collect_schedule,
        ],
        resources={**make_resources(settings), **resources},
        executor=executor_of(settings),
    )


def _accept_previews() -> None:
    """Ensures that this process is not warned of what was chosen with open eyes and pinned."""
    # Checks by month are a preview, and dagster-mlflow is a beta.
    warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)
    warnings.filterwarnings("ignore", "(Class `MlFlow`|Function `_create_mlflow_run_hook`)", dg.BetaWarning)
    # Dagster's own code passes this one.
    warnings.filterwarnings("ignore", "Parameter `owners` of initializer `SensorDefinition", dg.BetaWarning)
