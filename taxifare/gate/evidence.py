"""Evidence: everything that a decision rests on, as it is shown, kept and digested.

Why an appraisal has three shapes: docs/decisions.md, under gate.
"""

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from taxifare.gate.scores import FloatArray, Interval, Scores, score
from taxifare.gate.slices import SliceComparison
from taxifare.gate.track_record import TrackRecord
from taxifare.model.exposure import Exposure
from taxifare.trips.targets import Unit
from taxifare.values import Frozen


class Verdict(StrEnum):
    """What the evidence says about replacing production by staging."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    REJECT = "REJECT"
    UNCHANGED = "UNCHANGED"
    COLD_START = "COLD_START"
    UNSCORABLE = "UNSCORABLE"
    LEAK = "LEAK"


class Contender(Frozen):
    """A registered version as it was scored: which one, in which MLflow run, how well.

    Attributes:
        version: Its number.
        run_id: The MLflow run that scored it.
        files_digest: SHA-256 over its files when they were scored; None where an earlier release scored it.
        scores: Of its predictions.
        correction: How far it raises them against its bias when asked to, on average, see `correction_share`.
        corrected: Scores of the raised predictions.
    """

    version: str
    run_id: str
    files_digest: str | None = None
    scores: Scores
    correction: float
    corrected: Scores

    @model_serializer(mode="wrap")
    def _without_unknown_digest(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Returns the fields, without a missing digest of files, so that earlier evidence keeps its own digest."""
        return _without_none(handler(self), "files_digest")


class Hindsight(Frozen):
    """How production compares with the version that it replaced, on later rides.

    Attributes:
        replaced_version: The version that was production before.
        gain: How much closer production is than that version, on the validation trips; days are its units.
    """

    replaced_version: str
    gain: Interval

    @property
    def is_regret(self) -> bool:
        """Whether the version that was replaced would surely have been better."""
        return self.gain.high < 0


class Appraisal(Frozen):
    """What came of scoring a version on the validation trips of a month.

    Exactly one of three: scored (`contender`), nothing to score (`version` is None), or a version that exists but
    cannot be loaded or scored (`fault` says why). The three are never confused.

    Attributes:
        version: The version, None where nothing is in production.
        contender: Its scores, None unless it was scored.
        exposure: What it has been trained on.
        fault: Why it could not be scored.
        track_record: Of a candidate, how it did against production up to the validation trips; None where there is no
            production to compare it with.
        hindsight: Of production, how it compares with the version that it replaced; None where it replaced none, or
            that one can no longer be scored.
    """

    version: str | None
    contender: Contender | None = None
    exposure: tuple[Exposure, ...] = ()
    fault: str | None = None
    track_record: TrackRecord | None = None
    hindsight: Hindsight | None = None

    @model_validator(mode="after")
    def _is_one_of_three(self) -> "Appraisal":
        """Ensures that scored, nothing and unscorable exclude each other."""
        if (self.version is None) != (self.contender is None and self.fault is None):
            raise ValueError("a version is either scored or has a fault; without a version there is neither")
        if self.contender is not None and (self.fault is not None or self.contender.version != self.version):
            raise ValueError("a scored version has no fault and is the version named")
        return self


class Objection(Frozen):
    """What speaks against a model that is better on the whole.

    Attributes:
        about: `slice` where one kind of trips gets worse, `bias` where the mean error grows.
        name: The slice; `bias` for the bias.
        reason: Why, in words and numbers.
    """

    about: Literal["slice", "bias"]
    name: str
    reason: str


class Evidence(Frozen):
    """Everything a decision rests on; what was shown is what is promoted, so it has a digest.

    Attributes:
        subject: The month `YYYY-MM`, or `base` for the first model.
        revision: Revision of the trips both models were scored on.
        unit: Unit of all its numbers.
        city: Slug of a city of one's own, see `CityFile.on_record`; None for the others, and in earlier evidence.
        staging: The version asked about.
        production_version: What was in production, None where nothing was.
        production: Its scores, None where there is no production or it cannot be scored.
        difficulty_mae: Error of a flat per-km rate on the same trips: how hard they are for any model.
        gain: Paired difference on the validation trips, None where there is nothing to compare with.
        slices: The same on kinds of trips.
        track_record: What the candidate saved since production came in, validation trips included; None where there is
            none, and in earlier evidence.
        hindsight: How production compares with the version that it replaced; None where there is none to compare it
            with, and in earlier evidence.
        objections: What speaks against staging beyond its tolerance, whatever the verdict; earlier evidence has none.
        verdict: What follows.
        reasons: Why, in words.
    """

    subject: str
    revision: str
    unit: Unit
    city: str | None = None
    staging: Contender
    production_version: str | None
    production: Contender | None
    difficulty_mae: float
    gain: Interval | None
    slices: tuple[SliceComparison, ...]
    track_record: TrackRecord | None = None
    hindsight: Hindsight | None = None
    objections: tuple[Objection, ...] = ()
    verdict: Verdict
    reasons: tuple[str, ...]

    @model_serializer(mode="wrap")
    def _without_missing_records(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Returns the fields, without newer ones that are missing, so that earlier evidence keeps its own digest."""
        return _without_none(_without_none(_without_none(handler(self), "track_record"), "hindsight"), "city")

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence without the MLflow runs that produced it; the order of fields plays no part."""
        content = self.model_dump(mode="json", exclude={"staging": {"run_id"}, "production": {"run_id"}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def beats_flat_rate(self) -> bool:
        """Whether staging is closer to the truth than a flat rate per km, the least that is asked of a model."""
        return self.staging.scores.mae < self.difficulty_mae

    def objects(self, about: Literal["slice", "bias"]) -> tuple[Objection, ...]:
        """Returns the objections of one kind."""
        return tuple(objection for objection in self.objections if objection.about == about)


def contend(
    version: str,
    run_id: str,
    predicted: FloatArray,
    corrected: FloatArray,
    actual: FloatArray,
    *,
    files_digest: str | None = None,
) -> Contender:
    """Returns a version as it was scored.

    Args:
        version: Its number.
        run_id: The MLflow run that scored it.
        predicted: Its predictions of the validation trips, shape (n,).
        corrected: Its predictions, raised against its bias, shape (n,).
        actual: What they should have been, shape (n,).
        files_digest: SHA-256 over its files, None for a model that is no registered version.

    Raises:
        EvaluationError: As `score`.
    """
    return Contender(
        version=version,
        run_id=run_id,
        files_digest=files_digest,
        scores=score(predicted, actual),
        correction=float(np.subtract(corrected, predicted, dtype=np.float64).mean()),
        corrected=score(corrected, actual),
    )


def _without_none(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the fields without the one of that name where it is None."""
    return {field: value for field, value in fields.items() if field != name or value is not None}
