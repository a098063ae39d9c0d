"""How the steps of a run are executed. Where runs are executed is a matter of Dagster's instance (`dagster.yaml`).

A run holds a lock for as long as its process lives, so that whoever asks, on whatever machine, knows whether it does.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig

from taxifare.approval.locks import holding, is_held
from taxifare.environment import HomeSettings
from taxifare.settings import Settings
from taxifare_dagster.catalog import CODE_LOCATION


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """Returns the executor of all jobs: EXECUTOR, with the run's lock held meanwhile."""
    executor = dg.in_process_executor
    if settings.executor == "multiprocess":
        # Forking from a server that has the definitions imported costs 2 s a step instead of 5.
        start = {"forkserver": {"preload_modules": [CODE_LOCATION]}}
        executor = dg.multiprocess_executor.configured({"max_concurrent": 2, "start_method": start})

    def locking(context: dg.InitExecutorContext) -> dg.Executor:
        create = cast("Callable[[dg.InitExecutorContext], dg.Executor]", executor.executor_creation_fn)
        return _LockingExecutor(create(context), settings)

    return dg.ExecutorDefinition(
        name=executor.name,
        config_schema=cast("Any", executor.config_schema),
        requirements=executor.get_requirements,
        executor_creation_fn=locking,
        description=executor.description,
    )


def is_alive(run_id: str, settings: HomeSettings) -> bool:
    """Returns whether the process of a run that has begun is alive, on whatever machine.

    Raises:
        LedgerError: The server that has the locks does not answer.
    """
    return is_held(settings, f"run {run_id}")


def while_alive(run_id: str, settings: HomeSettings) -> AbstractContextManager[None]:
    """Ensures, until the block ends, that whoever asks knows that the process of a run is alive.

    Raises:
        HeldError: Another process executes the run.
        LedgerError: The server that has the locks does not answer.
    """
    return holding(settings, f"run {run_id}")


class _LockingExecutor(dg.Executor):
    """Another executor, in whose process the run's lock is held: a second process of the same run ends at once."""

    def __init__(self, executor: dg.Executor, settings: HomeSettings) -> None:
        self._executor = executor
        self._settings = settings

    @property
    def retries(self) -> RetryMode:
        """Those of the other."""
        return self._executor.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """That of the other."""
        return self._executor.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Yields the events of the run."""
        with while_alive(plan_context.run_id, self._settings):
            yield from self._executor.execute(plan_context, execution_plan)
