"""Replay: what would have happened under each policy, month by month, had the lifecycle run since then.

Each month is judged as the monthly assets judge it: split by time, cleaned, production scored, challengers trained from
what that policy has in production, the best of them compared with production trip by trip. Only who decides differs.
What is in production in a month was decided on earlier months alone.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from taxifare.digests import digest
from taxifare.gate.track_record import TrackRecord
from taxifare.model.fitting import Matrix
from taxifare.replay.assignments import Assignment, Work
from taxifare.replay.errors import ReplayError
from taxifare.replay.hindsight import in_hindsight
from taxifare.replay.judging import JudgedMonth, Situation, judge_month
from taxifare.replay.months import ReplayedMonth, key_of_base, replayed_months
from taxifare.replay.policies import COURSE_THRESHOLD_USD, Policy
from taxifare.replay.results import Model, Replay
from taxifare.replay.store import training_folder
from taxifare.replay.trainings import Trainings
from taxifare.settings import ChallengerName, Settings
from taxifare.sources.all_months import AllMonths
from taxifare.sources.base import TripSource
from taxifare.texts import counted
from taxifare.training.base_trips import BaseTrips
from taxifare.training.challengers import Lesson, lesson_of, may_win_anew, ways
from taxifare.training.reservoir import Reservoir
from taxifare.trips.editions import BASE, TripBatches
from taxifare.trips.features import feature_names
from taxifare.trips.months import Month
from taxifare.workers import Workers

_MONTHS_TIMED = 6
"""Months that the time left is reckoned from, the last ones: those that are read back take next to none."""


@dataclass(frozen=True)
class ReplayProgress:
    """How far a replay is.

    Attributes:
        month: The month that is done.
        done: How many months are done.
        months: How many there are.
        left_s: How long the rest will take if its months take as long as the last ones.
    """

    month: Month
    done: int
    months: int
    left_s: float

    def __str__(self) -> str:
        """How far it is, in a line.

        >>> print(ReplayProgress(Month("2015-02"), 2, 6, 240.0))
        2015-02: 2 of 6 months, about 4 minutes left
        """
        left = counted(round(self.left_s / 60), "minutes")
        return f"{self.month}: {self.done} of {counted(self.months, 'months')}, about {left} left"


OnProgress = Callable[[ReplayProgress], None]


def replay(
    source: TripSource,
    settings: Settings,
    *,
    first: Month,
    last: Month,
    policies: Mapping[str, Policy],
    on_progress: OnProgress | None = None,
) -> Replay:
    """Returns what would have happened from a month to a month under each of the policies.

    Trainings that policies have in common are done once. They stay under TAXIFARE_HOME: a replay that was killed goes
    on, and the same one again trains nothing.

    Args:
        source: Whose trips: its base years, cut into months, and its months.
        settings: Target, challengers, hyperparameters, seed and the verdict's tolerances.
        first: The first month to judge; there must be trips before it.
        last: The last one.
        policies: Who decides, by name; those of the project are `POLICIES`.
        on_progress: Told of each month that is done.

    Raises:
        ReplayError: A month has no trips or too few, another replay is at work, or the course's rule, which is about
            fares, is asked about durations.
        SourceError: The source does not give its trips.
        TrainingError: A training gave no usable network.
        WorkersError: The cluster of CLUSTER_URL cannot do the work, or a worker died again and again.
    """
    if "threshold" in policies and settings.target_facts.unit != "USD":
        raise ReplayError(
            f"expected policies that TARGET={settings.target} in {settings.target_facts.unit} allows, received "
            f"threshold: the course's rule is about fares below {COURSE_THRESHOLD_USD} USD"
        )
    with training_folder(settings) as folder, Workers(settings) as workers:
        workers.ensure_sees("TAXIFARE_HOME", folder)
        base, months = replayed_months(AllMonths(source, first), first, last, settings)
        names = list(feature_names(settings.city_facts))
        validation = np.concatenate([month.trips.validation[names].to_numpy(np.float32) for month in months])
        trainings = Trainings(folder, validation, settings, workers)
        first_fit = Assignment(digest([key_of_base(base), "base"]), "base", BASE)
        trainings.begin(first_fit, lambda: _file_of(base, folder), with_state=True)
        first_model = trainings.result(first_fit.key).model
        start = Situation(first_model, first_model, TrackRecord(production=first_model.name))
        walk = _Walk(months, policies, {name: _UnderPolicy(start) for name in policies}, trainings, settings)
        judged = list(_told(walk.steps(base), months, on_progress))
        return in_hindsight(first_model, months, judged, trainings, settings)


def _file_of(base: BaseTrips, folder: Path) -> Path:
    """Returns a file of the base trips, for the process that learns from them."""
    path = folder / "base.parquet"
    with path.open("wb") as file:
        base.copy_to(file)
    return path


def _told(
    steps: Iterable[Sequence[JudgedMonth]], months: Sequence[ReplayedMonth], on_progress: OnProgress | None
) -> Iterator[JudgedMonth]:
    """Yields what the steps, a step a month, come to, and tells of each that is done."""
    took_s: deque[float] = deque(maxlen=_MONTHS_TIMED)
    started = time.perf_counter()
    for done, (month, step) in enumerate(zip(months, steps, strict=True), 1):
        yield from step
        took_s.append(time.perf_counter() - started)
        if on_progress is not None:
            left_s = sum(took_s) / len(took_s) * (len(months) - done)
            on_progress(ReplayProgress(month.month, done, len(months), left_s))
        started = time.perf_counter()


@dataclass
class _UnderPolicy:
    """What a policy has come to.

    Attributes:
        situation: What it has in production, and how the candidate does.
        retraining: Key of the retraining of production on its whole month, None where there was none.
    """

    situation: Situation
    retraining: str | None = None

    @property
    def competes_whole(self) -> bool:
        """Whether that retraining is a challenger: while the candidate is production itself."""
        return self.retraining is not None and self.situation.candidate == self.situation.production


@dataclass(frozen=True)
class _TrainingMonth:
    """What is learned in a month: trips of earlier months and years to rehearse, and what challengers learn from."""

    rehearsed: pd.DataFrame
    lesson: Lesson


@dataclass(frozen=True)
class _Walk:
    """The way through the months, all policies side by side.

    Attributes:
        months: In order.
        policies: Who decides.
        states: What each policy has come to; moves on with the steps.
        trainings: What is trained, shared by the policies.
        settings: In force.
    """

    months: Sequence[ReplayedMonth]
    policies: Mapping[str, Policy]
    states: Mapping[str, _UnderPolicy]
    trainings: Trainings
    settings: Settings

    def steps(self, base: BaseTrips) -> Iterator[list[JudgedMonth]]:
        """Yields what becomes of each month under each policy, month by month."""
        learned = self._training_months(base)
        coming = next(learned)
        for month in self.months:
            present = coming
            contests = self._begin_contests(month, present.lesson)
            self._begin_pricing(month)
            coming = next(learned, coming)  # made while this month's trainings are done
            yield [self._step(name, month, contests.get(name, ()), present) for name in self.policies]
            self._forget_what_lost(month, contests)

    def _training_months(self, base: BaseTrips) -> Iterator[_TrainingMonth]:
        """Yields what is learned in each month."""
        editions: Iterable[TripBatches] = chain([base], (month.trips for month in self.months))
        sample = Reservoir(self.settings.rehearsal_trips, self.settings.seed)
        for edition, month in zip(editions, self.months, strict=False):
            sample.draw_from(edition)
            yield _TrainingMonth(sample.drawn, lesson_of(month.trips, sample.drawn, self.settings))

    def _begin_pricing(self, month: ReplayedMonth) -> None:
        """Begins what tells the track record: production and candidate price the training trips of the month."""
        names = list(feature_names(self.settings.city_facts))

        def features() -> Matrix:
            return month.trips.training[names].to_numpy(np.float32)

        for state in self.states.values():
            for model in (state.situation.production, state.situation.candidate):
                self.trainings.begin_pricing(model, month, features)

    def _begin_contests(self, month: ReplayedMonth, lesson: Lesson) -> Mapping[str, Sequence[Assignment]]:
        """Returns the trainings of each policy that trains, the one that stays in doubt first; all are begun."""
        names = {
            policy: ways(
                lesson,
                self.settings,
                has_parent=True,
                has_whole_month=state.competes_whole,
                may_begin_anew=self._may_begin_anew(state, lesson),
            )
            for policy, state in self.states.items()
            if self.policies[policy].rule is not None
        }
        begun: dict[tuple[str, ChallengerName], Assignment] = {}
        # Retrained models come last: their retraining may not be done yet.
        asked = [(policy, name) for policy, named in names.items() for name in named]
        for policy, name in sorted(asked, key=lambda way: way[1] == "whole month"):
            begun[policy, name] = _assignment(name, month, self._parent(policy, name))
            self.trainings.begin(begun[policy, name], lambda: lesson)
        return {policy: [begun[policy, name] for name in named] for policy, named in names.items()}

    def _may_begin_anew(self, state: _UnderPolicy, lesson: Lesson) -> bool:
        """Whether networks from random weights have a chance."""
        situation = state.situation
        return may_win_anew(lesson, situation.production.exposure, situation.record, self.settings)

    def _parent(self, policy: str, name: ChallengerName) -> Model | None:
        """Returns the model that a challenger starts from, or that is it; None where it starts from random weights."""
        state = self.states[policy]
        if name == "warm":
            return state.situation.candidate
        if name == "whole month" and state.retraining is not None:
            return self.trainings.result(state.retraining).model
        return None

    def _step(
        self, name: str, month: ReplayedMonth, contest: Sequence[Assignment], present: _TrainingMonth
    ) -> JudgedMonth:
        """Returns what becomes of a month under a policy, with which things stand as they then do."""
        state, policy = self.states[name], self.policies[name]
        results = [self.trainings.result(assignment.key) for assignment in contest]
        judged = judge_month(name, policy, month, state.situation, results, self.trainings, self.settings)
        if judged.next is not None:
            state.situation = judged.next
            self._ensure_state(state.situation.candidate, contest, present.lesson)
        if judged.is_promoted:
            state.retraining = None
            if "whole month" in self.settings.challengers and month is not self.months[-1]:
                state.retraining = self._begin_retraining(state.situation.production, month, present.rehearsed)
        return judged

    def _ensure_state(self, model: Model, contest: Sequence[Assignment], lesson: Lesson) -> None:
        """Ensures that trainings can start from a model of the month: another replay may have dropped its state."""
        for assignment in contest:
            if assignment.key == model.key:  # last month's retraining is kept in any case
                self.trainings.begin(assignment, lambda: lesson, with_state=True)
                _ = self.trainings.result(assignment.key)

    def _begin_retraining(self, promoted: Model, month: ReplayedMonth, rehearsed: pd.DataFrame) -> str:
        """Returns the key of the retraining of a promoted model on its whole month; it is begun."""
        assignment, whole = _assignment("retraining", month, promoted), month.trips.without_validation()
        self.trainings.begin(assignment, lambda: lesson_of(whole, rehearsed, self.settings), with_state=True)
        return assignment.key

    def _forget_what_lost(self, month: ReplayedMonth, contests: Mapping[str, Sequence[Assignment]]) -> None:
        """Ensures that states of the month's models take no room where nothing goes on from them."""
        results = [self.trainings.result(assignment.key) for contest in contests.values() for assignment in contest]
        trained = {result.model.key for result in results if result.model.subject == str(month.month)}
        situations = [state.situation for state in self.states.values()]
        kept = {model.key for situation in situations for model in (situation.production, situation.candidate)}
        self.trainings.forget_states(trained - kept)


def _assignment(work: Work, month: ReplayedMonth, parent: Model | None) -> Assignment:
    """Returns a training of the month."""
    key = digest([month.key, work, None if parent is None else parent.key])
    return Assignment(key, work, str(month.month), parent)
