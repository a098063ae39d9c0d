"""Replay: what would have happened under each policy, month by month, had the lifecycle run since then.

Each month is judged as the monthly assets judge it: split by time, cleaned, production scored, challengers trained from
what that policy has in production, the best of them compared with production trip by trip. Only who decides differs.
What is in production in a month was decided on earlier months alone.

| policy | promotes |
|---|---|
| `gate` | when the verdict is PROMOTE: what a person does who follows the evidence |
| `always` | every month |
| `never` | never, and trains nothing |
| `naive` | when staging's error is the lower of the two, by however little |
| `threshold` | the course's rule about fares: when it is the lower of the two, and below 2.5 USD |
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from taxifare.gate.evidence import Appraisal, Evidence, contend
from taxifare.gate.scores import difficulty_of, mean_interval
from taxifare.gate.verdict import judge
from taxifare.replay.policies import _RULES, COURSE_THRESHOLD_USD, PolicyName, ReplayError
from taxifare.replay.results import DatedRule, Decision, Model, MonthFacts, Replay
from taxifare.replay.trainings import Assignment, Entry, Trainings, Work, key_of
from taxifare.settings import ChallengerName, Settings
from taxifare.sources.all_months import AllMonths
from taxifare.sources.base import TripSource
from taxifare.training.base_trips import BaseTrips
from taxifare.training.challengers import Lesson, choose, lesson_of, ways
from taxifare.training.gathering import gather_base
from taxifare.training.rehearsal import reservoirs
from taxifare.trips.editions import BASE, TripBatches, Trips
from taxifare.trips.features import feature_names
from taxifare.trips.months import Month, months_between
from taxifare.trips.preparation import faults_of, preprocess, split_month

_CODE = (
    *(
        "base_trips",
        "challengers",
        "cleaning",
        "evaluation",
        "features",
        "network",
        "rehearsal",
        "renewal",
        "scratch",
        "splitting",
    ),
    *("targets", "training", "trainings"),
)
"""The modules that a training's result depends on: what an earlier version of them has trained is not taken over."""

_SETTINGS = frozenset(
    {"city", "target", "validation_share", "dataset_size", "rehearsal_trips", "learning_rate", "batch_size"}
    | {"patience", "max_epochs", "dense_width_factor", "seed"}
)

_MONTHS_TIMED = 6
"""Months that the time left is reckoned from, the last ones: those that are read back take next to none."""


@dataclass(frozen=True)
class Progress:
    """How far a replay is.

    Attributes:
        month: The month that is done.
        done: How many months are done.
        months: How many there are.
        seconds_left: How long the rest will take if its months take as long as the last ones.
    """

    month: Month
    done: int
    months: int
    seconds_left: float


@dataclass(frozen=True)
class _Material:
    """A month, ready to be judged and learned from.

    Attributes:
        month: Which one.
        trips: Preprocessed.
        rows: Where its validation trips are among those of all months.
        key: Changes when its trips or those of an earlier month change.
    """

    month: Month
    trips: Trips
    rows: slice
    key: str


@dataclass
class _Course:
    """Where a policy is.

    Attributes:
        production: What it has in production.
        retraining: Key of the retraining of that on its whole month, None where there was none.
    """

    production: Model
    retraining: str | None = None


@dataclass(frozen=True)
class _Judged:
    """A month under a policy, before the other models are known."""

    policy: PolicyName
    month: int
    production: Model
    staging: Model | None
    evidence: Evidence | None
    is_promoted: bool
    reason: str
    training_seconds: float


def replay(
    source: TripSource,
    settings: Settings,
    *,
    first: Month,
    last: Month,
    policies: Sequence[PolicyName],
    on_progress: Callable[[Progress], None] | None = None,
) -> Replay:
    """Returns what would have happened from a month to a month under each of the policies.

    Trainings that policies have in common are done once. They stay under TAXIFARE_HOME: a replay that was killed goes
    on, and the same one again trains nothing.

    Args:
        source: Whose trips: its base years, cut into months, and its months.
        settings: Target, challengers, hyperparameters, seed and the verdict's tolerances.
        first: The first month to judge; there must be trips before it.
        last: The last one.
        policies: Who decides.
        on_progress: Told of each month that is done.

    Raises:
        ReplayError: A month has no trips or too few, another replay is at work, or the course's rule, which is about
            fares, is asked about durations.
        SourceError: The source does not give its trips.
        TrainingError: A training gave no usable network.
    """
    if "threshold" in policies and settings.target != "fare":
        raise ReplayError(
            f"expected policies that TARGET={settings.target} allows, received threshold: the course's rule is about "
            f"fares below {COURSE_THRESHOLD_USD} USD"
        )
    history = AllMonths(source, first)
    own = settings.model_copy(update={"first_month": first, "last_month": last})
    base, materials = _materials(history, own)
    names = list(feature_names(own.city_facts))
    validation = np.concatenate([material.trips.validation[names].to_numpy(np.float32) for material in materials])
    with _folder(own) as folder, Trainings(folder, validation, own) as trainings:
        first_fit = Assignment(key_of(_base_key(base), "base"), "base", BASE)
        trainings.begin(first_fit, lambda: _filed(base, folder), with_state=True)
        first_model = trainings.entry(first_fit.key).model
        courses = {policy: _Course(first_model) for policy in policies}
        judged = list(_walk(base, materials, courses, trainings, own, on_progress))
        return _told(first_model, materials, judged, trainings, own)


def _materials(history: AllMonths, settings: Settings) -> tuple[BaseTrips, list[_Material]]:
    """Returns the base trips and the months, as the assets `base_trips` and `preprocessed_data` make them."""
    revisions = history.months()
    asked = list(months_between(settings.first_month, settings.last_month or max(revisions)))
    missing = [str(month) for month in asked if month not in revisions]
    if missing or not asked:
        raise ReplayError(
            f"expected trips of every month from {settings.first_month} to {settings.last_month}, "
            f"received none of {', '.join(missing) or 'them: the last month is before the first'}"
        )
    base = gather_base(history.read_base(), settings).trips
    materials: list[_Material] = []
    row, key = 0, _base_key(base)
    for month in asked:
        trips = _month(month, history, settings)
        end, key = row + len(trips.validation), key_of(key, _key(trips))
        materials.append(_Material(month, trips, slice(row, end), key))
        row = end
    return base, materials


def _month(month: Month, history: AllMonths, settings: Settings) -> Trips:
    """Returns a month's clean trips with features; one that is not sound is an error."""
    published = history.read_month(month)
    raw = split_month(published, month, settings.validation_share)
    trips = preprocess(raw, settings.city_facts, settings.target_facts).trips
    needed = (*feature_names(settings.city_facts), "target")
    faults = faults_of(raw, trips.frame, month, settings.minimum_trips, needed)
    if faults:
        told = ", ".join(map(str, faults))
        raise ReplayError(f"{month}, {published.origin}: the checks would stop this month: {told}")
    return trips


def _walk(
    base: BaseTrips,
    materials: Sequence[_Material],
    courses: Mapping[PolicyName, _Course],
    trainings: Trainings,
    settings: Settings,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[_Judged]:
    """Yields what becomes of each month under each policy, month by month; moves the courses on."""
    editions: Iterable[TripBatches] = chain([base], (material.trips for material in materials))
    rehearsals = reservoirs(editions, settings.rehearsal_trips, settings.seed)
    lessons = (
        (rehearsed, lesson_of(material.trips, rehearsed, settings))
        for material, rehearsed in zip(materials, rehearsals, strict=False)
    )
    took_s: deque[float] = deque(maxlen=_MONTHS_TIMED)
    coming = next(lessons)
    for number, material in enumerate(materials):
        started = time.perf_counter()
        rehearsed, lesson = coming
        contests = _begin(material, lesson, courses, trainings, settings)
        coming = next(lessons, coming)  # made while this month's trainings are done
        trained = set()
        for policy, course in courses.items():
            contest = [trainings.entry(assignment.key) for assignment in contests.get(policy, {}).values()]
            trained |= {entry.model.key for entry in contest if entry.model.subject == str(material.month)}
            judged = _decide(policy, number, course, contest, materials, trainings, settings)
            if judged.is_promoted and judged.staging is not None:
                _ensure_state(judged.staging, contests[policy].values(), lesson, trainings)
                course.production, course.retraining = judged.staging, None
                if "whole month" in settings.challengers and material is not materials[-1]:
                    course.retraining = _retrain(judged.staging, material, rehearsed, trainings, settings)
            yield judged
        trainings.forget_states(trained - {course.production.key for course in courses.values()})
        took_s.append(time.perf_counter() - started)
        if on_progress is not None:
            left_s = sum(took_s) / len(took_s) * (len(materials) - number - 1)
            on_progress(Progress(material.month, number + 1, len(materials), left_s))


def _begin(
    material: _Material,
    lesson: Lesson,
    courses: Mapping[PolicyName, _Course],
    trainings: Trainings,
    settings: Settings,
) -> Mapping[PolicyName, Mapping[ChallengerName, Assignment]]:
    """Returns the month's trainings of each policy that trains, the one that stays in doubt first; all are begun."""
    names = {
        policy: ways(lesson, settings, has_parent=True, has_whole_month=course.retraining is not None)
        for policy, course in courses.items()
        if policy != "never"
    }
    begun: dict[tuple[PolicyName, ChallengerName], Assignment] = {}
    # Retrained models come last: their retraining may not be done yet.
    asked = [(policy, name) for policy, named in names.items() for name in named]
    for policy, name in sorted(asked, key=_is_retrained):
        course, parent = courses[policy], None
        if name == "warm":
            parent = course.production
        elif name == "whole month" and course.retraining is not None:
            parent = trainings.entry(course.retraining).model
        begun[policy, name] = _assignment(name, material, parent)
        trainings.begin(begun[policy, name], lambda: lesson)
    return {policy: {name: begun[policy, name] for name in names[policy]} for policy in names}


def _is_retrained(way: tuple[PolicyName, ChallengerName]) -> bool:
    """Whether it is the way that takes last month's retraining."""
    return way[1] == "whole month"


def _ensure_state(staging: Model, contest: Iterable[Assignment], lesson: Lesson, trainings: Trainings) -> None:
    """Ensures that trainings can start from a staged model: another replay may have dropped it."""
    for assignment in contest:
        if assignment.key == staging.key:  # last month's retraining is kept in any case
            trainings.begin(assignment, lambda: lesson, with_state=True)
            _ = trainings.entry(assignment.key)


def _retrain(
    staging: Model, material: _Material, rehearsed: pd.DataFrame, trainings: Trainings, settings: Settings
) -> str:
    """Returns the key of the retraining of a promoted model on its whole month; it is begun."""
    assignment = _assignment("retraining", material, staging)
    whole = material.trips.without_validation()
    trainings.begin(assignment, lambda: lesson_of(whole, rehearsed, settings), with_state=True)
    return assignment.key


def _assignment(work: Work, material: _Material, parent: Model | None) -> Assignment:
    """Returns a training of the month."""
    key = key_of(material.key, work, None if parent is None else parent.key)
    return Assignment(key, work, str(material.month), parent)


def _decide(
    policy: PolicyName,
    number: int,
    course: _Course,
    contest: Sequence[Entry],
    materials: Sequence[_Material],
    trainings: Trainings,
    settings: Settings,
) -> _Judged:
    """Returns what becomes of a month under a policy."""
    if not contest:
        return _Judged(policy, number, course.production, None, None, False, "nothing is trained", 0.0)
    material, staging = materials[number], choose(contest)[0].model
    (production, production_predicted), (challenger, challenger_predicted) = (
        _appraisal(model, material, trainings) for model in (course.production, staging)
    )
    evidence = judge(
        trips=material.trips,
        production=production,
        production_predicted=production_predicted,
        staging=challenger,
        staging_predicted=challenger_predicted,
        settings=settings,
    )
    is_promoted, reason = _RULES[policy](evidence)
    # A retraining is paid for in the month that it is first a challenger.
    before = None if number == 0 else str(materials[number - 1].month)
    retrained = [entry.model for entry in contest if entry.name == "whole month" and entry.model.subject == before]
    seconds = sum(entry.seconds for entry in contest) + sum(model.seconds for model in retrained)
    return _Judged(policy, number, course.production, staging, evidence, is_promoted, reason, seconds)


def _appraisal(model: Model, material: _Material, trainings: Trainings) -> tuple[Appraisal, pd.Series]:
    """Returns what came of scoring a model on a month, and its predictions by trip key."""
    validation = material.trips.validation
    predicted, corrected = trainings.predictions(model)[material.rows].T
    targets = validation["target"].to_numpy(np.float64)
    contender = contend(model.name, "replay", predicted, corrected, targets)
    appraisal = Appraisal(version=model.name, contender=contender, exposure=model.exposure)
    return appraisal, pd.Series(predicted, index=validation["key"])


def _told(
    first_model: Model,
    materials: Sequence[_Material],
    judged: Sequence[_Judged],
    trainings: Trainings,
    settings: Settings,
) -> Replay:
    """Returns the replay from what was judged: every model is scored on every month."""
    order = {BASE: -1} | {str(material.month): number for number, material in enumerate(materials)}
    found = {model.key: model for one in judged for model in (one.production, one.staging) if model is not None}
    models = sorted(found.values(), key=lambda model: order[model.subject])
    targets = np.concatenate([material.trips.validation["target"].to_numpy(np.float64) for material in materials])
    starts = [material.rows.start for material in materials]
    counts = np.diff([*starts, len(targets)])
    errors = {model.key: np.abs(trainings.predictions(model)[:, 0] - targets) for model in models}
    mae = np.array([np.add.reduceat(errors[model.key], starts) / counts for model in models])

    def decision(one: _Judged) -> Decision:
        known = [number for number, model in enumerate(models) if order[model.subject] < one.month]
        best = min(known, key=lambda number: mae[number, one.month])
        production_mae = float(mae[models.index(one.production), one.month])
        is_regretted = None
        if one.is_promoted and one.staging is not None and one.month + 1 < len(materials):
            rows = materials[one.month + 1].rows
            gains = errors[one.production.key][rows] - errors[one.staging.key][rows]
            is_regretted = mean_interval(gains).high < 0
        return Decision(
            policy=one.policy,
            month=str(materials[one.month].month),
            production=one.production.name,
            production_mae=production_mae,
            staging=None if one.staging is None else one.staging.name,
            staging_mae=None if one.evidence is None else one.evidence.staging.scores.mae,
            gain=None if one.evidence is None else one.evidence.gain,
            verdict=None if one.evidence is None else one.evidence.verdict,
            is_promoted=one.is_promoted,
            reason=one.reason,
            is_regretted=is_regretted,
            best=models[best].name,
            regret=production_mae - float(mae[best, one.month]),
            training_seconds=one.training_seconds,
        )

    policies = list(dict.fromkeys(one.policy for one in judged))
    first, end = materials[0].month.start_time, (materials[-1].month + 1).start_time
    return Replay(
        city=settings.city_facts.name,
        target=settings.target,
        challengers=settings.challengers,
        base_seconds=first_model.seconds,
        months=tuple(
            MonthFacts(
                month=str(material.month),
                trips=len(material.trips.frame),
                validation_trips=int(count),
                difficulty_mae=difficulty_of(material.trips),
            )
            for material, count in zip(materials, counts, strict=True)
        ),
        rules=tuple(
            DatedRule(since=rule.since, description=rule.description)
            for rule in settings.city_facts.rules
            if first <= pd.Timestamp(rule.since) < end
        ),
        models=tuple(models),
        mae=tuple(tuple(row) for row in mae.tolist()),
        decisions=tuple(decision(one) for policy in policies for one in judged if one.policy == policy),
    )


def _filed(base: BaseTrips, folder: Path) -> Path:
    """Returns a file of the base trips, for the process that learns from them."""
    path = folder / "base.parquet"
    with path.open("wb") as file:
        base.copy_to(file)
    return path


def _base_key(base: BaseTrips) -> str:
    """Returns what changes when the base trips do."""
    return key_of(base.edition.subject, base.edition.revision, base.training_trips, base.validation_trips)


def _key(trips: Trips) -> str:
    """Returns what changes when the trips do."""
    return key_of(trips.edition.subject, trips.edition.revision, len(trips.frame), len(trips.validation))


@contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """Yields where trainings under these settings and this code are kept; one replay at a time is at work there.

    Raises:
        ReplayError: Another one is.
    """
    from filelock import FileLock, Timeout

    code = {name: hashlib.sha256(Path(__file__).with_name(f"{name}.py").read_bytes()).hexdigest() for name in _CODE}
    features = feature_names(settings.city_facts)
    packages = [version(package) for package in ("keras", "numpy", "tensorflow")]
    inputs = settings.model_dump(mode="json", include=set(_SETTINGS))
    folder = settings.home / "replay" / key_of(inputs, features, code, packages)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout as error:
        raise ReplayError(f"another replay of these settings is at work, in {folder}") from error
