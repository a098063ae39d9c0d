"""Tuning: a search for better hyperparameters, which a person may then make the settings.

Trials are fits from random weights to the earlier training trips; the latest tenth of the training trips is held back.
Every other held trip chooses the winner, the rest prove it: the gain over the present settings is measured on trips
that chose nothing. The validation trips take no part. The gate compares models on them, and settings chosen on them
would make every later challenger look better than it is.

The search is an Optuna study. Its name says what is searched on which trips, so that a search that was
killed goes on, and one that is done is not done again.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args

import numpy as np

from taxifare.gate.scores import Interval, mean_interval, paired_gains
from taxifare.model.fitting import Epoch, TrainingError
from taxifare.model.registry import SUBJECT_TAG, ModelRegistry
from taxifare.settings import Settings, TrainingSettings, of_training
from taxifare.studies.results import Search, SettingValues, Trial, TrialEnd, TuningError, TuningResult
from taxifare.studies.storage import (
    AT_RANDOM,
    finished_trials,
    importances_of,
    keep_result,
    one_search_at_a_time,
    open_study,
    put_back,
)
from taxifare.studies.trials import (
    HELD_SHARE,
    FittedTrial,
    OnEpoch,
    TrialTrips,
    first_settings,
    fit_ahead,
    fit_trial,
    hold_back,
    run_trial,
    values_for,
)
from taxifare.texts import counted
from taxifare.training.recipe import fingerprint
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.targets import Unit
from taxifare.workers import TRIP_S, Workers, workers_if_worth


@dataclass(frozen=True)
class SearchProgress:
    """Where a search stands after a trial.

    Attributes:
        trial: The trial.
        finished: Trials finished so far, those of earlier runs of the search included.
        best_mae: The least error so far, None where no trial is complete.
        left_s: How long the search may go on, by the mean time of a trial.
        unit: What errors are in.
    """

    trial: Trial
    finished: int
    best_mae: float | None
    left_s: float
    unit: Unit

    def __str__(self) -> str:
        """Where it stands, in a line.

        >>> trial = Trial(3, "complete", {}, 2.0617, 5.2, None, "a1b2")
        >>> print(SearchProgress(trial, 4, 2.05, 90.0, "USD"))
        trial 3: 2.062 USD; 4 finished, least error 2.050 USD; at most 2 minutes left
        """
        mae, best_mae = self.trial.mae, self.best_mae
        came_to = self.trial.fault or ("given up early" if mae is None else f"{mae:.3f} {self.unit}")
        least = "none yet" if best_mae is None else f"{best_mae:.3f} {self.unit}"
        return (
            f"trial {self.trial.number}: {came_to}; {self.finished} finished, least error {least}; "
            f"at most {counted(round(self.left_s / 60), 'minutes')} left"
        )


def tune(
    trips: Trips,
    registry: ModelRegistry,
    settings: Settings,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    on_trial: Callable[[SearchProgress], None] | None = None,
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
        WorkersError: The cluster of CLUSTER_URL cannot do the trials, or a worker died again and again.
        RegistryError: MLflow does not answer.
    """
    budget = _Budget.of(trials, minutes)
    held_back, edition = hold_back(trips, settings), trips.edition
    # Everything that the trials of a search have in common.
    common = fingerprint(settings, revision=edition.revision, trips=len(trips.frame), held_share=HELD_SHARE)
    with one_search_at_a_time(settings):
        study = open_study(f"{edition.subject} {common}", settings)
        first = first_settings(settings, len(held_back.learned))
        tags = {"asset": "tuning", SUBJECT_TAG: edition.subject, "study": study.study_name}
        with registry.runs.open(f"tuning {edition.subject}", tags, grows=True) as run_id:
            shared = min(AT_RANDOM, trials or AT_RANDOM)
            with workers_if_worth(settings, shared, shared * len(held_back.learned) * TRIP_S) as workers:
                fits = _Fits(held_back, of_training(settings), workers)
                while budget.left_s(done := finished_trials(study)) > 0:
                    put_back(study, first, settings)
                    fits.begin(first, done, budget)
                    run_trial(study, held_back, registry, settings, fits.fit)
                    if on_trial is not None:
                        on_trial(_progress(finished_trials(study), budget, settings.target_facts.unit))
                fits.end()
            done = finished_trials(study)
            result = _result(done, held_back, study.study_name, edition, run_id, registry, settings)
            registry.runs.log(run_id, metrics=_metrics(result))
            keep_result(study, result)
            return Search(result, done, importances_of(study))


@dataclass(frozen=True)
class _Budget:
    """When a search ends.

    Attributes:
        trials: Trials of the whole search, None for any number.
        deadline: When this run of it ends, on the monotonic clock; infinite for never.
    """

    trials: int | None
    deadline: float

    @classmethod
    def of(cls, trials: int | None, minutes: float | None) -> "_Budget":
        """Returns the budget of a run that begins now.

        Raises:
            TuningError: There is none.
        """
        given = [bound for bound in (trials, minutes) if bound is not None]
        if not given or min(given) <= 0:
            raise TuningError(
                f"expected a budget: trials or minutes above 0, received {trials} trials, {minutes} minutes"
            )
        return cls(trials, math.inf if minutes is None else time.monotonic() + 60 * minutes)

    def left_s(self, done: Sequence[Trial]) -> float:
        """Returns how long the search may go on, 0 where no further trial may begin."""
        if self.trials is not None and len(done) >= self.trials:
            return 0.0
        mean_s = float(np.mean([trial.took_s for trial in done])) if done else 0.0
        by_trials = math.inf if self.trials is None else max(mean_s, 1.0) * (self.trials - len(done))
        by_clock = self.deadline - time.monotonic()
        return 0.0 if by_clock < mean_s else min(by_trials, by_clock)


@dataclass
class _Fits:
    """The fits of a search. Workers begin the first ones ahead of their trials; all others are done in this process.

    Trials end in their order all the same, and each is given up by what those before it came to: a search that is
    shared finds what it finds alone.

    Attributes:
        trips: What they are fits to.
        settings: Give what is not searched.
        workers: Who shares the first ones, None for nobody.
        begun: Those, by what they try.
    """

    trips: TrialTrips
    settings: TrainingSettings
    workers: Workers | None
    begun: dict[tuple[tuple[str, int | float], ...], Future[tuple[list[Epoch], FittedTrial | TrainingError]]] = field(
        default_factory=dict
    )

    def begin(self, first: Sequence[SettingValues], done: Sequence[Trial], budget: _Budget) -> None:
        """Ensures that workers are busy with the next of the first trials, as far as the budget allows."""
        if self.workers is None:
            return
        ended = {trial.number for trial in done}
        coming = [tuple(values.items()) for number, values in enumerate(first) if number not in ended]
        most = 2 * self.workers.count
        for values in coming[: most if budget.trials is None else min(most, budget.trials - len(done))]:
            if values not in self.begun:
                self.begun[values] = self.workers.submit(fit_ahead, self.trips, self.settings, dict(values))

    def end(self) -> None:
        """Ensures that no fit is begun any more: time may be over before the first trials are."""
        for begun in self.begun.values():
            begun.cancel()

    def fit(self, values: SettingValues, on_epoch: OnEpoch) -> FittedTrial:
        """Returns what a fit comes to; of one that was begun ahead, epochs are told once it is over.

        Raises:
            TrainingError: It gave no usable network.
        """
        begun = self.begun.get(tuple(values.items()))
        if begun is None:
            return fit_trial(self.trips, self.settings, values, on_epoch)
        epochs, fitted = begun.result()
        for epoch in epochs:
            on_epoch(epoch)
        if isinstance(fitted, TrainingError):
            raise fitted
        return fitted


def _progress(done: Sequence[Trial], budget: _Budget, unit: Unit) -> SearchProgress:
    """Returns where the search stands after the last of its trials."""
    best_mae = min((trial.mae for trial in done if trial.mae is not None), default=None)
    return SearchProgress(done[-1], len(done), best_mae, budget.left_s(done), unit)


def _result(
    done: Sequence[Trial],
    trips: TrialTrips,
    study: str,
    edition: Edition,
    run_id: str,
    registry: ModelRegistry,
    settings: TrainingSettings,
) -> TuningResult:
    """Returns what follows from the trials: the best one, and its gain on the held-out trips that chose nothing."""
    errors = {trial.number: trial.mae for trial in done if trial.mae is not None}
    if not errors:
        faults = [trial.fault for trial in done if trial.fault is not None]
        raise TuningError(f"none of {len(done)} trials gave a usable network; the first: {faults[0]}")
    by_number = {trial.number: trial for trial in done}
    best = min(errors, key=lambda number: errors[number])
    gain = None
    if 0 in errors and best != 0:
        gain = _gain(by_number[0], by_number[best], trips, registry)
    ends = [trial.end for trial in done]
    return TuningResult(
        study=study,
        subject=edition.subject,
        revision=edition.revision,
        unit=settings.target_facts.unit,
        run_id=run_id,
        found_at=datetime.now(UTC),
        trials={end: ends.count(end) for end in get_args(TrialEnd)},
        present=dict(values_for(settings, len(trips.learned))),
        winner=dict(by_number[best].settings),
        present_mae=errors.get(0),
        winner_mae=errors[best],
        gain=gain,
    )


def _gain(present: Trial, winner: Trial, trips: TrialTrips, registry: ModelRegistry) -> Interval:
    """Returns how much closer the winner is than the present settings, per held trip that chose nothing."""
    before, after = (
        registry.runs.read_predictions(trial.run_id).loc[trips.held["key"]].to_numpy(np.float64)
        for trial in (present, winner)
    )
    return mean_interval(paired_gains(before, after, trips.targets)[~trips.is_choosing])


def _metrics(result: TuningResult) -> Mapping[str, float]:
    """Returns what the MLflow run of the search shows, the winner's settings among it."""
    measured = {"mae": result.winner_mae} | {f"winner_{name}": value for name, value in result.winner.items()}
    if result.present_mae is not None:
        measured["present_mae"] = result.present_mae
    if result.gain is not None:
        gain = result.gain
        measured |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    return measured | {f"trials_{end}": count for end, count in result.trials.items()}
