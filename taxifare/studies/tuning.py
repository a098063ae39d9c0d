"""Tuning: a search for better hyperparameters, which a person may then make the settings.

Trials are fits from random weights to the earlier training trips; the latest tenth of the training trips is held back.
Every other held trip chooses the winner, the rest prove it: the gain over the present settings is measured on trips
that chose nothing. The validation trips take no part. The gate compares models on them, and settings chosen on them
would make every later challenger look better than it is.

The search is an Optuna study in TAXIFARE_HOME. Its name says what is searched on which trips, so that a search that was
killed goes on, and one that is done is not done again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from taxifare.gate.scores import EvaluationError, Interval, mean_interval, paired_gains, score
from taxifare.model.fitting import Epoch, TrainingError
from taxifare.model.registry import SUBJECT_TAG, ModelRegistry
from taxifare.settings import Settings
from taxifare.training.from_random_weights import architectures_of, fit_from_scratch, predict_trips
from taxifare.trips.editions import Trips
from taxifare.trips.features import feature_names
from taxifare.trips.splitting import split_by_time
from taxifare.trips.targets import Unit

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Values: TypeAlias = Mapping[str, int | float]

State: TypeAlias = Literal["complete", "pruned", "failed"]

HELD_SHARE = 0.1
"""Share of the training trips, the latest, that trials are judged by."""

_QUARTERS = 4
"""Trials are compared, and given up, at the same quarter of their schedules: schedules differ in length."""

_ORIGIN, _FAULT, _RUN, _FINDING = "origin", "fault", "mlflow_run", "finding"


class TuningError(RuntimeError):
    """A search that cannot begin or found nothing; says why."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: Counts from 0, the present settings; a trial that is run again keeps its number.
        state: How it ended; `pruned` is given up early, `failed` gave no usable network.
        settings: What it tried.
        mae: Its error on the held trips that choose; None unless complete.
        seconds: What it took.
        fault: Why it failed, None where it did not.
        run_id: Its MLflow run.
    """

    number: int
    state: State
    settings: Values
    mae: float | None
    seconds: float
    fault: str | None
    run_id: str


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a trial.

    Attributes:
        trial: The trial.
        finished: Trials finished so far, those of earlier runs of the search included.
        best_mae: The least error so far, None where no trial is complete.
        seconds_left: How long the search may go on, by the mean time of a trial.
    """

    trial: Trial
    finished: int
    best_mae: float | None
    seconds_left: float


class Finding(BaseModel):
    """What a search found: the winner and the evidence for it.

    Attributes:
        study: Name of the Optuna study.
        subject: Month, or `base`.
        revision: Of the subject's trips.
        unit: What errors and gain are in.
        run_id: The MLflow run of the search; its trials are nested in it.
        found_at: When.
        trials: Number of trials by state.
        present: The settings that were in force.
        winner: The settings that won.
        present_mae: Error of the present settings on the held trips that choose, None where they do not train.
        winner_mae: The winner's.
        gain: How much closer the winner is per trip on the held trips that chose nothing; None where the present
            settings won or do not train.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    subject: str
    revision: str
    unit: Unit
    run_id: str
    found_at: datetime
    trials: dict[str, int]
    present: dict[str, int | float]
    winner: dict[str, int | float]
    present_mae: float | None
    winner_mae: float
    gain: Interval | None

    @property
    def env_lines(self) -> tuple[str, ...]:
        """The winner's settings as lines of `.env`."""
        return tuple(f"{name.upper()}={value!r}" for name, value in self.winner.items())


@dataclass(frozen=True)
class Search:
    """What came of a search: the finding, every trial, and each setting's share in the differences between them."""

    finding: Finding
    trials: Sequence[Trial]
    importances: Mapping[str, float]


@dataclass(frozen=True)
class _Rows:
    """Trips to learn from, the later ones held back, and which of those choose the winner."""

    learned: pd.DataFrame
    held: pd.DataFrame
    choosing: npt.NDArray[np.bool_]


def searched_settings(settings: Settings) -> Values:
    """Returns the settings that a search varies, with their present values.

    >>> searched_settings(Settings(_env_file=None, batch_size=256))["batch_size"]
    256
    """
    names = ("learning_rate", "batch_size", "patience", "max_epochs", "dense_width_factor")
    return {name: getattr(settings, name) for name in names}


def tune(
    trips: Trips,
    registry: ModelRegistry,
    settings: Settings,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    on_trial: Callable[[Progress], None] | None = None,
) -> Search:
    """Returns the best settings that a search found, which goes on where an earlier run of it ended.

    The first trial is the present settings. A trial whose process died is run again, under its number and in its
    MLflow run; one that gives no usable network is a failed trial.

    Args:
        trips: Preprocessed trips with `is_validation`; only the training trips are looked at.
        registry: Where the search and its trials are logged, as one MLflow run with a nested run for each trial.
        settings: Give what is not searched, and the present values of what is.
        trials: Trials of the whole search, earlier runs of it included.
        minutes: Time of this run; no trial is begun that would end later, if it took as long as the mean so far.
        on_trial: Told of each trial.

    Raises:
        TuningError: No budget, too few trips, another search at work, or no trial that gave a usable network.
        RegistryError: MLflow does not answer.
    """
    if (trials is None and minutes is None) or min(trials or 1, minutes or 1) <= 0 or 0 in (trials, minutes):
        raise TuningError(f"expected a budget: trials or minutes above 0, received {trials} trials, {minutes} minutes")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    rows, present, edition = _split(trips, settings), searched_settings(settings), trips.edition
    with _alone(settings):
        study = _open_study(f"{edition.subject} {_fingerprint(trips, settings)}", settings)
        tags = {"asset": "tuning", SUBJECT_TAG: edition.subject, "study": study.study_name}
        with registry.runs.open(f"tuning {edition.subject}", tags) as run_id:
            while (left_s := _seconds_left(study, trials, deadline)) > 0:
                _put_back(study, present)
                _run_trial(study, rows, registry, settings)
                left_s = _seconds_left(study, trials, deadline)
                if on_trial is not None:
                    done = _finished(study)
                    best_mae = min((trial.mae for trial in done if trial.mae is not None), default=None)
                    on_trial(Progress(done[-1], len(done), best_mae, left_s))
            done = _finished(study)
            evidence = _evidence(done, rows, registry)
            found = Finding(
                study=study.study_name,
                subject=edition.subject,
                revision=edition.revision,
                unit=settings.target_facts.unit,
                run_id=run_id,
                found_at=datetime.now(UTC),
                present=dict(present),
                **evidence,
            )
            search = Search(found, done, _importances(study))
            registry.runs.log(run_id, metrics=_metrics(found))
            study.set_user_attr(_FINDING, found.model_dump(mode="json"))
    return search


def latest_finding(settings: Settings) -> Finding | None:
    """Returns what the latest search found, None where there was none."""
    import optuna

    if not _database(settings).exists():
        return None
    summaries = optuna.get_all_study_summaries(_storage(settings), include_best_trial=False)
    found = [Finding.model_validate(study.user_attrs[_FINDING]) for study in summaries if _FINDING in study.user_attrs]
    return max(found, key=lambda finding: finding.found_at, default=None)


def adopt(finding: Finding, registry: ModelRegistry, env_file: Path, *, by: str, reason: str) -> None:
    """Ensures that `.env` holds the winner's settings, all else as it was, and that MLflow says who chose so and why.

    Raises:
        RegistryError: MLflow does not answer; nothing is written.
    """
    from dotenv import set_key

    adopted_at = datetime.now(UTC).isoformat(timespec="seconds")
    registry.runs.tag(finding.run_id, {"adopted_by": by, "adopted_reason": reason, "adopted_at": adopted_at})
    for line in finding.env_lines:
        name, value = line.split("=", 1)
        set_key(env_file, name, value, quote_mode="never")


def _split(trips: Trips, settings: Settings) -> _Rows:
    """Returns the training trips, divided into those to learn from and those held back."""
    training = trips.training
    if len(training) < settings.minimum_trips:
        raise TuningError(f"expected at least {settings.minimum_trips} training trips, received {len(training)}")
    is_held = split_by_time(training, HELD_SHARE)
    held = training[is_held]
    return _Rows(training[~is_held], held, np.arange(len(held)) % 2 == 0)


def _fingerprint(trips: Trips, settings: Settings) -> str:
    """Returns a hash of everything that the trials of a search have in common."""
    common = {
        "revision": trips.edition.revision,
        "trips": len(trips.frame),
        "held_share": HELD_SHARE,
        "features": feature_names(settings.city_facts),
        "architectures": str(architectures_of(settings)),
        "settings": settings.model_dump(
            mode="json", include={"seed", "target", "validation_share", *searched_settings(settings)}
        ),
    }
    return hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()[:16]


def _suggest(trial: "optuna.Trial", present: Values) -> Values:
    """Returns the settings of a trial; the ranges are usual ones, widened to take in the present settings."""

    def values(name: str, *usual: float) -> list[float]:
        return sorted({*usual, present[name]})

    def edges(name: str, *usual: float) -> tuple[float, float]:
        return values(name, *usual)[0], values(name, *usual)[-1]

    lowest_epochs, most_epochs = map(int, edges("max_epochs", 2, 12))
    least_patience, most_patience = map(int, edges("patience", 1, 4))
    return {
        "learning_rate": trial.suggest_float("learning_rate", *edges("learning_rate", 0.0005, 0.02), log=True),
        "batch_size": int(trial.suggest_categorical("batch_size", values("batch_size", 128, 256, 512, 1024, 2048))),
        "patience": trial.suggest_int("patience", least_patience, most_patience),
        "max_epochs": trial.suggest_int("max_epochs", lowest_epochs, most_epochs),
        "dense_width_factor": float(
            trial.suggest_categorical("dense_width_factor", values("dense_width_factor", 0.5, 1.0, 2.0))
        ),
    }


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Ensures that one process searches at a time, so that a trial found running is one whose process died."""
    from filelock import FileLock, Timeout

    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.home / "tuning.lock", timeout=0):
            yield
    except Timeout as error:
        raise TuningError("another search is at work; wait for its end or end it") from error


def _database(settings: Settings) -> Path:
    """Returns where studies are. Not in DATABASE_URL: Optuna and the ledger both name their table `alembic_version`."""
    return settings.home / "tuning.db"


def _storage(settings: Settings) -> "optuna.storages.RDBStorage":
    """Returns Optuna's storage."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.RDBStorage(f"sqlite:///{_database(settings)}")


def _open_study(name: str, settings: Settings) -> "optuna.Study":
    """Returns the study of this name, new or as it was left."""
    import optuna

    # Along a falling learning rate most of the error goes at the end: only what is clearly bad half-way is given up.
    pruner = optuna.pruners.PercentilePruner(75.0, n_startup_trials=4, n_warmup_steps=_QUARTERS // 2)
    study = optuna.create_study(
        storage=_storage(settings), study_name=name, pruner=pruner, direction="minimize", load_if_exists=True
    )
    # From the same seed again, a search that goes on would draw what it has drawn before.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials))
    return study


def _put_back(study: "optuna.Study", present: Values) -> None:
    """Ensures that the present settings are tried first, and that trials whose process died wait to be run again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    latest = {_origin(trial): trial for trial in study.get_trials(deepcopy=False)}
    if not latest:
        study.enqueue_trial(dict(present), user_attrs={_ORIGIN: 0})
    for origin, trial in latest.items():
        if trial.state is TrialState.FAIL and _FAULT not in trial.user_attrs:
            study.enqueue_trial(dict(present) if origin == 0 else trial.params, user_attrs={_ORIGIN: origin})


def _run_trial(study: "optuna.Study", rows: _Rows, registry: ModelRegistry, settings: Settings) -> None:
    """Runs the next trial in an MLflow run of its own, and tells the study how it ended."""
    import keras
    from optuna.trial import TrialState

    trial = study.ask()
    values = _suggest(trial, searched_settings(settings))
    number = _origin(trial)
    try:
        with registry.runs.open(
            f"trial {number}", {"asset": "tuning_trial", "study": study.study_name, "trial": str(number)}
        ) as run_id:
            trial.set_user_attr(_RUN, run_id)
            registry.runs.log(run_id, params={**values, "seed": settings.seed, "training_set_size": len(rows.learned)})
            mae = _fit_and_score(trial, run_id, rows, registry, settings.model_copy(update=dict(values)))
    except (TrainingError, EvaluationError) as error:
        trial.set_user_attr(_FAULT, str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        state = TrialState.PRUNED if mae is None else TrialState.COMPLETE
        study.tell(trial, mae, state=state)
    # Keras keeps something of every network it has built.
    keras.utils.clear_session()


def _fit_and_score(
    trial: "optuna.Trial", run_id: str, rows: _Rows, registry: ModelRegistry, settings: Settings
) -> float | None:
    """Returns the trial's error on the held trips that choose, None where it was given up; logs how it went."""
    import optuna

    epochs: list[Epoch] = []

    def watch(epoch: Epoch) -> None:
        before = _QUARTERS * (epoch.number - 1) // epoch.last
        quarter = _QUARTERS * epoch.number // epoch.last
        epochs.append(epoch)
        if epoch.number and quarter > before:
            trial.report(epoch.validation_mae, quarter)
            # The evidence needs the present settings' error, and at the end nothing is saved by giving up.
            if quarter < _QUARTERS and _origin(trial) != 0 and trial.should_prune():
                raise optuna.TrialPruned

    try:
        network, history = fit_from_scratch(rows.learned, settings, on_epoch=watch)
    except optuna.TrialPruned:
        return None
    finally:
        registry.runs.log_curve(run_id, "epoch_loss", [epoch.loss for epoch in epochs if epoch.number])
        registry.runs.log_curve(
            run_id, "epoch_early_stopping_mae", [epoch.validation_mae for epoch in epochs], first_epoch=0
        )
        registry.runs.tag(run_id, {"epochs": str(max(len(epochs) - 1, 0))})
    predicted, targets = predict_trips(network, rows.held, settings), _targets(rows)
    scores = score(predicted[rows.choosing], targets[rows.choosing])
    registry.runs.log_predictions(run_id, pd.Series(predicted, index=rows.held["key"]))
    registry.runs.log(
        run_id,
        metrics={
            "mae": scores.mae,
            "rmse": scores.rmse,
            "bias": scores.bias,
            "best_epoch": history.best_epoch,
            "training_seconds": history.seconds,
        },
    )
    return scores.mae


def _seconds_left(study: "optuna.Study", trials: int | None, deadline: float | None) -> float:
    """Returns how long the search may go on, 0 where no further trial may begin."""
    done = _finished(study)
    if trials is not None and len(done) >= trials:
        return 0.0
    mean_s = float(np.mean([trial.seconds for trial in done])) if done else 0.0
    by_trials = float("inf") if trials is None else max(mean_s, 1.0) * (trials - len(done))
    by_clock = float("inf") if deadline is None else deadline - time.monotonic()
    return 0.0 if by_clock < mean_s else min(by_trials, by_clock)


def _evidence(done: Sequence[Trial], rows: _Rows, registry: ModelRegistry) -> Mapping[str, Any]:
    """Returns the fields of a finding that follow from the trials: the best one, and what it gains."""
    errors = {trial.number: trial.mae for trial in done if trial.mae is not None}
    if not errors:
        faults = [trial.fault for trial in done if trial.fault is not None]
        raise TuningError(f"none of {len(done)} trials gave a usable network; the first: {faults[0]}")
    by_number = {trial.number: trial for trial in done}
    best = min(errors, key=lambda number: errors[number])
    gain = None
    if 0 in errors and best != 0:
        before, after = (
            registry.runs.read_predictions(by_number[number].run_id).loc[rows.held["key"]].to_numpy(np.float64)
            for number in (0, best)
        )
        gain = mean_interval(paired_gains(before, after, _targets(rows))[~rows.choosing])
    states = [trial.state for trial in done]
    return {
        "trials": {state: states.count(state) for state in get_args(State)},
        "winner": dict(by_number[best].settings),
        "present_mae": errors.get(0),
        "winner_mae": errors[best],
        "gain": gain,
    }


def _metrics(finding: Finding) -> Mapping[str, float]:
    """Returns what the MLflow run of the search shows, the winner's settings among it."""
    measured = {"mae": finding.winner_mae} | {f"winner_{name}": value for name, value in finding.winner.items()}
    if finding.present_mae is not None:
        measured["present_mae"] = finding.present_mae
    if finding.gain is not None:
        gain = finding.gain
        measured |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    return measured | {f"trials_{state}": count for state, count in finding.trials.items()}


def _importances(study: "optuna.Study") -> Mapping[str, float]:
    """Returns each setting's share in the differences between complete trials; nothing where there are too few."""
    import optuna

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state is optuna.trial.TrialState.COMPLETE]
    if len(complete) < 2:
        return {}
    return optuna.importance.get_param_importances(study)


def _finished(study: "optuna.Study") -> tuple[Trial, ...]:
    """Returns the trials that ended, in the order of their ends; not those whose process died."""
    from optuna.trial import TrialState

    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    ended = study.get_trials(deepcopy=False, states=tuple(states))
    kept = [trial for trial in ended if trial.state is not TrialState.FAIL or _FAULT in trial.user_attrs]
    return tuple(
        Trial(
            number=_origin(trial),
            state=states[trial.state],
            settings=trial.params,
            mae=trial.value if trial.state is TrialState.COMPLETE else None,
            seconds=trial.duration.total_seconds() if trial.duration is not None else 0.0,
            fault=trial.user_attrs.get(_FAULT),
            run_id=trial.user_attrs[_RUN],
        )
        for trial in kept
    )


def _origin(trial: "optuna.Trial | FrozenTrial") -> int:
    """Returns the number a trial had when it was first run."""
    return int(trial.user_attrs.get(_ORIGIN, trial.number))


def _targets(rows: _Rows) -> npt.NDArray[np.float64]:
    """Returns the targets of the held trips."""
    return rows.held["target"].to_numpy(np.float64)
