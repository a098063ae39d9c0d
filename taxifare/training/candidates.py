"""Candidates: versions that were trained, registered and scored, each once.

What a training learned from and its recipe make a fingerprint; where a version has it, that one is taken. How networks
are trained is said in `base_model` and `renewal`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from taxifare.gate.evidence import Appraisal
from taxifare.gate.scores import FloatArray, difficulty_of, paired_gains
from taxifare.gate.staleness import Baseline
from taxifare.gate.track_record import TrackRecord
from taxifare.model.exposure import exposure_of
from taxifare.model.fitting import TrainingHistory, peak_memory_mib
from taxifare.model.packaging import LoadedModel
from taxifare.model.registry import SUBJECT_TAG, ModelRegistry, RegisteredVersion
from taxifare.model.story import KEPT_INSTEAD_TAG, NOTHING
from taxifare.settings import TrainingSettings
from taxifare.training.appraisal import appraise
from taxifare.training.challengers import Challenger, Standing
from taxifare.training.earlier_fingerprints import fingerprint_at_431839f
from taxifare.training.recipe import fingerprint
from taxifare.trips.editions import Edition, Trips


@dataclass(frozen=True)
class Candidate:
    """A trained and scored version.

    Attributes:
        appraisal: Its scores on the validation trips, from its saved weights.
        lesson_version: What was trained: the candidate itself, unless that was no better than what it started from.
        parent_version: The version whose weights it started from, None where it started from none.
        history: How training went, None where there was none, or where a version of the same inputs was taken.
        standings: The challengers it was chosen from; none for the base, or where a version of the same inputs was
            taken.
    """

    appraisal: Appraisal
    lesson_version: str
    parent_version: str | None
    history: TrainingHistory | None
    standings: tuple[Standing, ...] = ()

    @property
    def keeps_lesson(self) -> bool:
        """Whether the candidate is what was trained."""
        return self.appraisal.version == self.lesson_version

    @property
    def version(self) -> str:
        """The version that it is."""
        return str(self.appraisal.version)

    @property
    def record(self) -> TrackRecord:
        """Its track record; raises ValueError where it is held against no production."""
        if self.appraisal.track_record is None:
            raise ValueError(f"version {self.version} is held against no production: it has no track record")
        return self.appraisal.track_record

    def with_record(self, record: TrackRecord) -> "Candidate":
        """Returns the candidate with its track record."""
        return replace(self, appraisal=self.appraisal.model_copy(update={"track_record": record}))


@dataclass(frozen=True)
class Rival:
    """What a training has to beat.

    Attributes:
        version: A registered version.
        predicted: Its predictions of the validation trips, shape (n,).
    """

    version: str
    predicted: FloatArray


def candidate_of(
    trips: Trips,
    facts: Mapping[str, object],
    inputs: Mapping[str, object],
    learn: Callable[[str], tuple[Challenger, Sequence[Standing]]],
    registry: ModelRegistry,
    settings: TrainingSettings,
    run_tags: Mapping[str, str],
    *,
    rival: Rival | None = None,
) -> Candidate:
    """Returns what was learned, registered and scored; or the version that was registered for the same inputs.

    Where there is a rival that is as close or closer on the validation trips, the candidate is the rival.

    Args:
        trips: Preprocessed trips, whose validation trips it is scored on.
        facts: Of the trips, params of the MLflow run.
        inputs: Of the training, see `training_inputs`.
        learn: Given the MLflow run, to which it logs how it chose, returns what is to be registered, and those it was
            chosen from.
        registry: Where versions are.
        settings: The training's.
        run_tags: Identify the MLflow run: asset, month and Dagster run.
        rival: What the training has to beat, None where what comes of it is taken in any case.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The new version does not predict.
        EvaluationError: There are too few trips to judge by; nothing was learned then.
    """
    history: TrainingHistory | None = None
    standings: Sequence[Standing] = ()
    with registry.runs.open(f"{run_tags['asset']} {trips.edition.subject}", run_tags) as run_id:
        # A month that cannot be judged is an error before it is learned from: no version is left behind.
        difficulty = difficulty_of(trips)
        known = known_version(inputs, registry, settings)
        if known is None:
            trained, standings = learn(run_id)
            history = trained.history
            registry.runs.log(run_id, params={**facts, "parent_version": trained.parent_version})
            version, parent_version = _registered(trained, trips.edition, inputs, registry, settings, run_id)
        else:
            version, parent_version = known.version, known.tags.get("parent_version")
            registry.runs.log(run_id, params={**facts, "context": "reuse"})
        kept = _closer(registry.load_once(version), rival, trips.validation, registry)
        _tell_what_was_kept(version, kept.version, registry)
        registry.runs.log(run_id, params={"model_version": kept.version, "lesson_version": version})
        appraisal = appraise(trips, kept, registry, settings, run_id)
        if appraisal.contender is not None:
            baseline = Baseline(mae=appraisal.contender.scores.mae, difficulty_mae=difficulty)
            registry.tag(kept.version, baseline.tags)
    return Candidate(appraisal, version, parent_version, history, tuple(standings))


def _closer(model: LoadedModel, rival: Rival | None, trips: pd.DataFrame, registry: ModelRegistry) -> LoadedModel:
    """Returns the model, or the rival where that is as close or closer."""
    if rival is None:
        return model
    actual = trips["target"].to_numpy(np.float64)
    is_closer = paired_gains(rival.predicted, model.predict(trips), actual).mean() > 0
    return model if is_closer else registry.load_once(rival.version)


def _tell_what_was_kept(version: str, kept_version: str, registry: ModelRegistry) -> None:
    """Ensures that a version that was no closer than another says so in MLflow, for nobody is asked about it."""
    before = registry.describe(version).tags.get(KEPT_INSTEAD_TAG, NOTHING)
    instead = NOTHING if kept_version == version else kept_version
    if instead != before:
        registry.tag(version, {KEPT_INSTEAD_TAG: instead})


def _registered(
    trained: Challenger,
    edition: Edition,
    inputs: Mapping[str, object],
    registry: ModelRegistry,
    settings: TrainingSettings,
    run_id: str,
) -> tuple[str, str | None]:
    """Returns the version of what was trained, and its parent; logs how training went."""
    if trained.history is not None:
        _log_history(trained.history, registry, settings, run_id)
    if trained.version is not None:
        return trained.version, registry.describe(trained.version).tags.get("parent_version")
    version = registry.register(
        trained.network,
        settings.city_facts,
        trained.exposure,
        run_id=run_id,
        fingerprint=fingerprint(settings, **inputs),
        tags={SUBJECT_TAG: edition.subject, "revision": edition.revision}
        | ({} if trained.parent_version is None else {"parent_version": trained.parent_version}),
        correction_share=trained.correction_share,
    )
    return version, trained.parent_version


def _log_history(history: TrainingHistory, registry: ModelRegistry, settings: TrainingSettings, run_id: str) -> None:
    """Logs how training went, and what the fit was given: by the settings, the shape or the renewal."""
    epochs = history.epochs
    registry.runs.log(
        run_id,
        params=settings.model_dump(include={"patience", "dense_width_factor", "seed"})
        | {"learning_rate": history.learning_rate, "batch_size": history.batch_size}
        | {"max_epochs": epochs[0].last, "best_epoch": history.best_epoch},
        metrics={
            "epochs_per_second": history.epochs_per_s,
            "trips_per_second": history.trips_per_s,
            "peak_memory_mib": peak_memory_mib(),
        },
    )
    registry.runs.log_curve(run_id, "epoch_loss", [epoch.loss for epoch in epochs if epoch.number])
    registry.runs.log_curve(
        run_id, "epoch_early_stopping_mae", [epoch.validation_mae for epoch in epochs], first_epoch=0
    )


def known_version(
    inputs: Mapping[str, object], registry: ModelRegistry, settings: TrainingSettings
) -> RegisteredVersion | None:
    """Returns the version that a training of the inputs has given before, None where there is none."""
    earlier = fingerprint_at_431839f(settings, inputs)
    found = registry.find(fingerprint(settings, **inputs))
    return found if found is not None or earlier is None else registry.find(earlier)


def training_inputs(
    trips: Trips, *, rehearsed: pd.DataFrame | None = None, parents: Sequence[str | None] = ()
) -> dict[str, object]:
    """Returns what a training learns from and starts from, as plain values; what else it depends on is its recipe."""
    drawn, judged = trips.training_trips, trips.validation_trips
    return {
        "subject": trips.edition.subject,
        "revision": trips.edition.revision,
        "trips": trips.rides,
        **({"drawn_trips": drawn} if drawn + judged < trips.rides else {}),
        "validation_trips": judged,
        "rehearsed_trips": 0 if rehearsed is None else len(rehearsed),
        "rehearsed": [] if rehearsed is None else [entry.model_dump(mode="json") for entry in exposure_of(rehearsed)],
        "parents": parents,
    }
