"""Challengers: several ways to renew the model with a month, learned from the same trips; the best one is staged.

| challenger | starts from | learns from |
|---|---|---|
| `warm` | production's weights and optimizer | the month and the rehearsal |
| `whole month` | production retrained on the whole of its own month, after its approval | nothing more |
| `recent` | random weights | the last twelve months |
| `since rule` | random weights | the trips since the last dated rule: fares before it are of another world |

The last two compete where they have a chance, see `may_win_anew`. A fifth of the month's training trips is held: it
decides when each stops and which one is staged. The validation trips are not asked until then, so that the verdict
compares two models, not the luckiest of several with one.

Why they are compared on held-out trips: docs/decisions.md, under training.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.scores import Interval, mean_interval
from taxifare.gate.track_record import TrackRecord
from taxifare.model.exposure import Exposure, exposure_of, union_of
from taxifare.model.fitting import Epoch, InMemory, TrainingHistory, fit, twin_of
from taxifare.settings import ChallengerName, TrainingSettings
from taxifare.training.from_random_weights import arrays_of, fit_from_scratch, held_errors
from taxifare.trips.editions import Trips
from taxifare.trips.features import feature_names
from taxifare.trips.preparation import with_target_and_features

if TYPE_CHECKING:
    import keras

HELD_SHARE = 0.2
"""Share of the month's training trips, drawn at random, that decides when to stop and which challenger is staged."""

RECENT_MONTHS = 12

FEWEST_TRIPS = 1_000
"""With fewer trips a network from random weights is not worth its seconds."""

OnEpoch = Callable[[str, Epoch], None]
"""Told the challenger's name and each epoch, from the thread in which that challenger learns."""


@dataclass(frozen=True)
class Renewal:
    """How production is trained on.

    A month is a fraction of what production has learned from: a few small steps refine it, more of them forget. Chosen
    on July 2012 to December 2013, see `docs/model.md`.

    Attributes:
        learning_rate: Step size of the first epoch.
        batch_size: Trips a step.
        epochs: Most epochs.
    """

    learning_rate: float = 0.001
    batch_size: int = 512
    epochs: int = 2


RENEWAL = Renewal()


@dataclass(frozen=True)
class Lesson:
    """What challengers learn a month from.

    Attributes:
        trips: The month's training trips and the rehearsed ones: key, when they begin, features, target, `subject` and
            `revision`.
        is_held: Which of them decide, and are not trained on; trips of the month only.
    """

    trips: pd.DataFrame
    is_held: npt.NDArray[np.bool_]

    @property
    def held(self) -> pd.DataFrame:
        """The held-out trips."""
        return self.trips[self.is_held]

    def since(self, first: pd.Timestamp) -> npt.NDArray[np.bool_]:
        """Returns which trips stay without those before a moment: held ones do, so that all are judged by the same."""
        return self.is_held | (self.trips["pickup_datetime"] >= first).to_numpy(bool)

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Lesson":
        """Returns the lesson of some of its trips, as a copy."""
        return Lesson(self.trips[chosen], self.is_held[chosen])


class Parent(Protocol):
    """A version to start from, or to take as it is."""

    @property
    def version(self) -> str:
        """Its number."""
        ...

    @property
    def exposure(self) -> tuple[Exposure, ...]:
        """What it has been trained on."""
        ...

    @property
    def network(self) -> "keras.Model":
        """Its network with its optimizer; that of a whole month is only asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One of those that `choose` chooses from: all that is asked of it.

    Attributes:
        name: The way it was made.
        errors: Predicted minus actual, of each held trip.
        learned_trips: How many trips it learned from this time.
        seconds: What that took.
    """

    name: str
    errors: npt.NDArray[np.floating]
    learned_trips: int
    seconds: float

    @property
    def mae(self) -> float:
        """Mean absolute error on the held-out trips."""
        return float(np.abs(self.errors).mean())


@dataclass(frozen=True, kw_only=True)
class Challenger(Contestant):
    """A network that may be staged.

    Attributes:
        network: With the weights it would be registered with.
        exposure: All it has been trained on.
        correction_share: How far it offers to go against its bias, see `correction.correction_share`.
        parent_version: Where it started from, None where from random weights.
        version: Its version where it is registered already.
        history: How training went, None where there was none.
    """

    network: "keras.Model"
    exposure: tuple[Exposure, ...]
    correction_share: float
    parent_version: str | None
    version: str | None = None
    history: TrainingHistory | None = None


Chosen = TypeVar("Chosen", bound=Contestant)


@dataclass(frozen=True)
class Standing:
    """How a challenger did beside the others, for people.

    Attributes:
        name: Which one.
        learned_trips: How many trips it learned from.
        seconds: What that took.
        mae: Its error on the held-out trips.
        gain: How much better than the first challenger, per held trip, with an interval for all comparisons together;
            None for the first.
        is_staged: Whether it was chosen.
    """

    name: str
    learned_trips: int
    seconds: float
    mae: float
    gain: Interval | None
    is_staged: bool


def lesson_of(trips: Trips, rehearsed: pd.DataFrame | None, settings: TrainingSettings) -> Lesson:
    """Returns what to learn from a month.

    Args:
        trips: The month's preprocessed trips.
        rehearsed: Trips of `rehearsal.reservoir`, None for none.
        settings: City, target and seed.
    """
    edition, columns = trips.edition, ["key", "pickup_datetime", "target", *feature_names(settings.city_facts)]
    month = trips.training[columns].assign(subject=edition.subject, revision=edition.revision)
    held = np.random.default_rng(settings.seed).random(len(month)) < HELD_SHARE
    if rehearsed is None or rehearsed.empty:
        return Lesson(month, held)
    known = with_target_and_features(rehearsed, settings.city_facts, settings.target_facts)[list(month.columns)]
    both = pd.concat([month, known], ignore_index=True)
    return Lesson(both, np.concatenate([held, np.zeros(len(rehearsed), dtype=bool)]))


def challenge(
    lesson: Lesson,
    parent: Parent | None,
    whole_month: Parent | None,
    settings: TrainingSettings,
    on_epoch: OnEpoch | None = None,
    *,
    may_begin_anew: bool = True,
) -> list[Challenger]:
    """Returns the challengers of `ways`, in their order.

    Two learn at a time: while TensorFlow traces one in Python, another computes. Each draws from seeds of its own, so
    they come out as if they had learned one after the other; the seconds of each are those beside another.

    Raises:
        TrainingError: A training gave no usable network.
    """
    names = ways(
        lesson,
        settings,
        has_parent=parent is not None,
        has_whole_month=whole_month is not None,
        may_begin_anew=may_begin_anew,
    )
    # Not a constant of this module: those are a part of what a training depends on, and this changes nothing of it.
    with ThreadPoolExecutor(max_workers=2) as workers:
        return list(workers.map(lambda name: renewed(name, lesson, parent, whole_month, settings, on_epoch), names))


def ways(
    lesson: Lesson, settings: TrainingSettings, *, has_parent: bool, has_whole_month: bool, may_begin_anew: bool
) -> tuple[ChallengerName, ...]:
    """Returns the ways that the settings ask for and the month allows, the one that stays in doubt first.

    Without a parent those from random weights compete alone. Beside one they are left out where they have no chance,
    see `may_win_anew`, or too few trips.
    """
    names: list[ChallengerName] = []
    if has_parent:
        names.append("warm")
        if has_whole_month and "whole month" in settings.challengers:
            names.append("whole month")
    for name, window in _windows(lesson, settings).items():
        is_worth_it = may_begin_anew or not has_parent
        if is_worth_it and name in settings.challengers and (window & ~lesson.is_held).sum() >= FEWEST_TRIPS:
            names.append(name)
    return tuple(names) or ("recent",)


def may_win_anew(
    lesson: Lesson, production: Sequence[Exposure], record: TrackRecord, settings: TrainingSettings
) -> bool:
    """Returns whether networks from random weights have a chance against a renewal, which they cost many times of.

    They have where a dated rule is in force that production has not learned, for it may be stuck in another world, and
    where renewing has begun to fail: the candidate lost against production in the last month on record.

    Args:
        lesson: What is to be learned.
        production: What production has been trained on.
        record: Of the candidate, before the month.
        settings: Give the city's rules.
    """
    learned = max(entry.last_pickup for entry in production)
    last = lesson.held["pickup_datetime"].max()
    is_new = any(learned < pd.Timestamp(rule.since) <= last for rule in settings.city_facts.rules)
    return is_new or (bool(record.months) and record.months[-1].gains.all.mean < 0)


def renewed(
    name: ChallengerName,
    lesson: Lesson,
    parent: Parent | None,
    whole_month: Parent | None,
    settings: TrainingSettings,
    on_epoch: OnEpoch | None = None,
) -> Challenger:
    """Returns what comes of one way.

    Raises:
        TrainingError: Training gave no usable network.
        ValueError: The way needs a model that is not given.
    """
    if name == "warm" and parent is not None:
        return warm(lesson, parent, settings, on_epoch)
    if name == "whole month" and whole_month is not None:
        return _as_it_is(lesson, whole_month, settings)
    if name in {"warm", "whole month"}:
        raise ValueError(f"{name}: expected a model to start from, received none")
    window = _windows(lesson, settings).get(name)
    return _from_scratch(name, lesson if window is None else lesson.only(window), settings, on_epoch)


def choose(challengers: Sequence[Chosen]) -> tuple[Chosen, list[Standing]]:
    """Returns the challenger to stage and how all of them stand.

    The first stays unless another is better on the held-out trips beyond chance: the 95 % is shared out over the
    comparisons (Bonferroni), so that many challengers do not make a lucky one. Of those that are, the one with the
    least error wins.
    """
    first, others = challengers[0], challengers[1:]
    confidence = 1 - 0.05 / max(len(others), 1)
    gains = {other.name: mean_interval(np.abs(first.errors) - np.abs(other.errors), confidence) for other in others}
    better = [other for other in others if gains[other.name].low > 0]
    chosen = min(better, key=lambda challenger: challenger.mae, default=first)
    standings = [
        Standing(
            name=challenger.name,
            learned_trips=challenger.learned_trips,
            seconds=challenger.seconds,
            mae=challenger.mae,
            gain=gains.get(challenger.name),
            is_staged=challenger is chosen,
        )
        for challenger in challengers
    ]
    return chosen, standings


def _windows(lesson: Lesson, settings: TrainingSettings) -> Mapping[ChallengerName, npt.NDArray[np.bool_]]:
    """Returns which trips each challenger from random weights learns from; windows of the same trips count once."""
    last = lesson.held["pickup_datetime"].max()
    recent = last - pd.DateOffset(months=RECENT_MONTHS)
    dated = [pd.Timestamp(rule.since) for rule in settings.city_facts.rules if pd.Timestamp(rule.since) <= last]
    windows: dict[ChallengerName, npt.NDArray[np.bool_]] = {"recent": lesson.since(recent)}
    since_rule = lesson.since(max(dated, default=recent))
    if since_rule.sum() != windows["recent"].sum():
        windows["since rule"] = since_rule
    return windows


def warm(lesson: Lesson, parent: Parent, settings: TrainingSettings, on_epoch: OnEpoch | None = None) -> Challenger:
    """Returns the parent, trained on with the whole lesson."""
    started, network = time.perf_counter(), parent.network
    features, targets = arrays_of(lesson.trips, settings)
    with twin_of(network) as twin:
        history = fit(
            twin,
            InMemory(features, targets, ~lesson.is_held),
            features[lesson.is_held],
            targets[lesson.is_held],
            learning_rate=RENEWAL.learning_rate,
            batch_size=RENEWAL.batch_size,
            patience=settings.patience,
            max_epochs=RENEWAL.epochs,
            seed=settings.seed,
            on_epoch=_named("warm", on_epoch),
        )
        errors, share = held_errors(twin, features[lesson.is_held], targets[lesson.is_held])
    return Challenger(
        name="warm",
        network=network,
        exposure=union_of(parent.exposure, exposure_of(lesson.trips)),
        errors=errors,
        correction_share=share,
        learned_trips=int((~lesson.is_held).sum()),
        seconds=time.perf_counter() - started,
        parent_version=parent.version,
        history=history,
    )


def _as_it_is(lesson: Lesson, model: Parent, settings: TrainingSettings) -> Challenger:
    """Returns a registered version as a challenger."""
    started = time.perf_counter()
    errors, share = held_errors(model.network, *arrays_of(lesson.held, settings))
    return Challenger(
        name="whole month",
        network=model.network,
        exposure=model.exposure,
        errors=errors,
        correction_share=share,
        learned_trips=0,
        seconds=time.perf_counter() - started,
        parent_version=None,
        version=model.version,
    )


def _from_scratch(
    name: ChallengerName, lesson: Lesson, settings: TrainingSettings, on_epoch: OnEpoch | None
) -> Challenger:
    """Returns a new network, trained on the lesson."""
    started = time.perf_counter()
    network, history = fit_from_scratch(lesson.trips, settings, stops=lesson.is_held, on_epoch=_named(name, on_epoch))
    errors, share = held_errors(network, *arrays_of(lesson.held, settings))
    return Challenger(
        name=name,
        network=network,
        exposure=exposure_of(lesson.trips),
        errors=errors,
        correction_share=share,
        learned_trips=int((~lesson.is_held).sum()),
        seconds=time.perf_counter() - started,
        parent_version=None,
        history=history,
    )


def _named(name: str, on_epoch: OnEpoch | None) -> Callable[[Epoch], None] | None:
    """Returns what tells of a challenger's epochs."""
    return None if on_epoch is None else lambda epoch: on_epoch(name, epoch)
