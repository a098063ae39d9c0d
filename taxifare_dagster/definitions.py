"""The code location: everything Dagster shows and runs. Loading it needs no TensorFlow, MLflow, network or data."""

import dagster as dg

from taxifare.settings import Settings
from taxifare_dagster import checks, jobs, schedules, sensors
from taxifare_dagster.assets import models, replay, trips
from taxifare_dagster.resources import make_resources


def build_definitions(settings: Settings | None = None, **overrides: object) -> dg.Definitions:
    """Returns the definitions; the same function serves Dagster, the demo and the tests.

    Args:
        settings: By default those of the environment.
        overrides: Resources by name, in place of those the settings ask for.
    """
    settings = settings or Settings()
    executors = {
        "in_process": dg.in_process_executor,
        # Forking from a server that has the definitions imported costs 2 s a step instead of 5.
        "multiprocess": dg.multiprocess_executor.configured(
            {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": [__name__]}}}
        ),
    }
    return dg.Definitions(
        assets=dg.load_assets_from_modules([trips, models, replay], include_specs=True),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=[
            jobs.base_job,
            jobs.monthly_job,
            jobs.approval_job,
            jobs.decision_job,
            jobs.rollback_job,
            jobs.reminder_job,
            jobs.whole_month_job,
            jobs.tuning_job,
            jobs.replay_job,
        ],
        sensors=[sensors.new_month_sensor, sensors.approval_sensor, sensors.production_sensor],
        schedules=[schedules.reminder_schedule],
        resources={**make_resources(settings), **overrides},
        executor=executors[settings.executor],
    )


defs = build_definitions()
