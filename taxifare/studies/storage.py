"""Where searches are kept: Optuna studies beside the ledger, in which one process searches at a time.

Where their database is stands in `database`.

Which settings are tried, and how, does not belong here. Why a database of its own, why quarters of schedules:
docs/decisions.md, under studies.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from taxifare.approval.locks import HeldError, holding
from taxifare.environment import HomeSettings
from taxifare.settings import Settings
from taxifare.studies.database import may_have_studies, storage_of
from taxifare.studies.results import SettingValues, Trial, TrialEnd, TuningError, TuningResult

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

QUARTERS = 4
"""Trials are compared, and given up, at the same quarter of their schedules: schedules differ in length."""

AT_RANDOM = 10
"""Trials before settings are drawn by what came of those before; Optuna's own number."""

FAULT, RUN = "fault", "mlflow_run"
"""On a trial: why it gave no usable network, and its MLflow run."""

_ORIGIN = "origin"
"""On a trial that is run again: the number that it had at first."""

_RESULT = "finding"
"""On a study: what it found."""


@contextmanager
def one_search_at_a_time(settings: HomeSettings) -> Iterator[None]:
    """Ensures that one process searches at a time, on whatever machine.

    Raises:
        TuningError: Another one does.
    """
    try:
        with holding(settings, "tuning"):
            yield
    except HeldError as error:
        raise TuningError("another search is at work; wait for its end or end it") from error


def open_study(name: str, settings: Settings) -> "optuna.Study":
    """Returns the study of this name, new or as it was left."""
    import optuna

    # Along a falling learning rate most of the error goes at the end: only what is clearly bad half-way is given up.
    pruner = optuna.pruners.PercentilePruner(75.0, n_startup_trials=4, n_warmup_steps=QUARTERS // 2)
    study = optuna.create_study(
        storage=storage_of(settings), study_name=name, pruner=pruner, direction="minimize", load_if_exists=True
    )
    # From the same seed again, a search that goes on would draw what it has drawn before, or as its first trials.
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=settings.seed + 1 + len(study.trials))
    return study


def put_back(study: "optuna.Study", first: Sequence[SettingValues], settings: HomeSettings) -> None:
    """Ensures that the first trials have the settings that are meant for them, the present ones before all others.

    Trials whose process died wait to be run again. Called before each trial by the one process that searches. So a
    trial found running in a file is of one that died; on a server it may be of a machine that has lost the lock and
    does not know it yet, and is dead once its heart has stopped.
    """
    import optuna
    from optuna.trial import TrialState

    if settings.ledger_is_server:
        optuna.storages.fail_stale_trials(study)
    else:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
    latest = {number_of(trial): trial for trial in study.get_trials(deepcopy=False)}
    for number, trial in latest.items():
        if trial.state is TrialState.FAIL and FAULT not in trial.user_attrs:
            values = first[number] if number < len(first) else trial.params
            study.enqueue_trial(dict(values), user_attrs={_ORIGIN: number})
    following = max(latest, default=-1) + 1
    if following < len(first) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(first[following]), user_attrs={_ORIGIN: following})


def finished_trials(study: "optuna.Study") -> tuple[Trial, ...]:
    """Returns the trials that ended, in the order of their ends; not those whose process died."""
    from optuna.trial import TrialState

    ends: dict[TrialState, TrialEnd] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    ended = study.get_trials(deepcopy=False, states=tuple(ends))
    kept = [trial for trial in ended if trial.state is not TrialState.FAIL or FAULT in trial.user_attrs]
    return tuple(
        Trial(
            number=number_of(trial),
            end=ends[trial.state],
            settings=trial.params,
            mae=trial.value if trial.state is TrialState.COMPLETE else None,
            took_s=trial.duration.total_seconds() if trial.duration is not None else 0.0,
            fault=trial.user_attrs.get(FAULT),
            run_id=trial.user_attrs[RUN],
        )
        for trial in kept
    )


def number_of(trial: "optuna.Trial | FrozenTrial") -> int:
    """Returns the number a trial had when it was first run."""
    return int(trial.user_attrs.get(_ORIGIN, trial.number))


def importances_of(study: "optuna.Study") -> Mapping[str, float]:
    """Returns each setting's share in the differences between complete trials; nothing where there are too few."""
    import optuna

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state is optuna.trial.TrialState.COMPLETE]
    if len(complete) < 2:
        return {}
    return optuna.importance.get_param_importances(study)


def keep_result(study: "optuna.Study", result: TuningResult) -> None:
    """Ensures that the study says what it found."""
    study.set_user_attr(_RESULT, result.model_dump(mode="json"))


def latest_result(settings: HomeSettings) -> TuningResult | None:
    """Returns what the latest search found, None where there was none.

    Raises:
        TuningError: Studies are on a server, which cannot be used as it is.
    """
    import optuna

    if not may_have_studies(settings):
        return None
    summaries = optuna.get_all_study_summaries(storage_of(settings), include_best_trial=False)
    found = [
        TuningResult.model_validate(study.user_attrs[_RESULT]) for study in summaries if _RESULT in study.user_attrs
    ]
    return max(found, key=lambda result: result.found_at, default=None)
