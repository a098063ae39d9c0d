"""Appraising a registered version on a month: production's, and that of a version which was trained just now.

An appraisal has an MLflow run, and leaves the per-trip predictions there, so that `gate.verdict.judge` can pair two
models trip by trip. What follows from appraisals is the business of `gate`.
"""

import logging
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.evidence import Appraisal, Hindsight, contend
from taxifare.gate.gains import days_of, gains_of
from taxifare.gate.scores import EvaluationError, Interval, paired_gains, score
from taxifare.gate.staleness import Baseline, Change, baseline_of, explain_change
from taxifare.model.contents import NotOnRecordError
from taxifare.model.packaging import LoadedModel, VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.settings import GateSettings, ProblemSettings
from taxifare.trips.editions import Trips
from taxifare.trips.meters import Meter, quoted

_log = logging.getLogger(__name__)


def appraise_production(
    trips: Trips,
    version: str | None,
    registry: ModelRegistry,
    settings: ProblemSettings,
    *,
    run_tags: Mapping[str, str],
    replaced: str | None = None,
) -> Appraisal:
    """Returns what came of scoring the production version on the validation trips, and logs it as an MLflow run.

    A version that cannot be loaded or does not predict is reported as such; a registry that does not answer is an
    error, because then nothing is known about production.

    Args:
        trips: Preprocessed trips.
        version: The version in production, None where there is none.
        registry: Where it is.
        settings: Give the meter that quotes are rounded to.
        run_tags: Identify the MLflow run: asset, month and Dagster run.
        replaced: The version that it replaced, which it is held against; None where it replaced none.

    Raises:
        RegistryError: MLflow does not answer.
    """
    if version is None:
        return Appraisal(version=None)
    with registry.runs.open(f"{run_tags['asset']} {trips.edition.subject}", run_tags) as run_id:
        registry.runs.log(run_id, params=facts_of(trips) | {"context": "evaluation", "model_version": version})
        try:
            model = registry.load_once(version)
            appraisal = appraise(trips, model, registry, settings, run_id)
        except VersionUnusableError as error:
            return Appraisal(version=version, fault=str(error))
        hindsight = None if replaced is None else _hindsight(trips, model, replaced, registry)
        if hindsight is not None:
            registry.runs.log(run_id, metrics={"gain_over_replaced": hindsight.gain.mean})
        return appraisal.model_copy(update={"hindsight": hindsight})


def _hindsight(trips: Trips, production: LoadedModel, replaced: str, registry: ModelRegistry) -> Hindsight | None:
    """Returns how production does against the version that it replaced; None, and a warning, where that is gone."""
    validation = trips.validation
    actual = validation["target"].to_numpy(np.float64)
    try:
        before = registry.load_once(replaced).predict(validation)
    except (VersionUnusableError, NotOnRecordError) as error:
        _log.warning("production cannot be held against version %s, which it replaced: %s", replaced, error)
        return None
    gains = gains_of(paired_gains(before, production.predict(validation), actual), days_of(validation))
    return Hindsight(replaced_version=replaced, gain=gains.interval)


def appraise(
    trips: Trips, model: LoadedModel, registry: ModelRegistry, settings: ProblemSettings, run_id: str
) -> Appraisal:
    """Returns the scores of a registered version on the validation trips; its predictions stay with the run.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The version does not predict.
    """
    validation = trips.validation
    predicted, raised = model.predict(validation), model.predict(validation, corrected=True)
    actual = validation["target"].to_numpy(np.float64)
    contender = contend(model.version, run_id, predicted, raised, actual, files_digest=model.content.files_digest)
    scores, corrected = contender.scores, contender.corrected
    registry.runs.log_predictions(run_id, pd.Series(predicted, index=validation["key"]))
    registry.runs.log(
        run_id,
        metrics={"mae": scores.mae, "rmse": scores.rmse, "bias": scores.bias}
        | {
            "corrected_mae": corrected.mae,
            "corrected_rmse": corrected.rmse,
            "corrected_bias": corrected.bias,
        }
        | quoted_mae(predicted, validation, settings.meter),
    )
    return Appraisal(version=model.version, contender=contender, exposure=model.exposure)


def quoted_mae(predicted: npt.NDArray[np.floating], validation: pd.DataFrame, meter: Meter) -> dict[str, float]:
    """Returns the MAE of the predictions as the meter would show them, under its name; nothing without a meter.

    Args:
        predicted: Of each trip, shape (n,).
        validation: The trips, n rows.
        meter: The city's, see `ProblemSettings.meter`.

    Raises:
        EvaluationError: As `scores.score`.
    """
    if not meter:
        return {}
    shown = quoted(predicted, validation["pickup_datetime"], meter)
    return {"quoted_mae": score(shown, validation["target"].to_numpy(np.float64)).mae}


def change_since_approval(
    trips: Trips, appraisal: Appraisal, then: Baseline | None, attainable: Interval | None, settings: GateSettings
) -> Change:
    """Returns why a version that was scored on a month errs more or less than when it was approved.

    Args:
        trips: Preprocessed trips of the month.
        appraisal: What came of scoring the version on them.
        then: How it did by the evidence that it was approved on; None where that is not on record.
        attainable: What the month's candidate saves a trip on the same trips; None where that is not known.
        settings: Give the target, the city's rules and the tolerance.

    Raises:
        EvaluationError: The version was not scored.
    """
    if appraisal.contender is None:
        raise EvaluationError(f"version {appraisal.version} was not scored: {appraisal.fault}")
    return explain_change(
        then,
        baseline_of(trips, appraisal.contender),
        appraisal.exposure,
        trips.validation,
        settings.city_facts,
        settings.target_facts.unit,
        settings.staleness_tolerance,
        attainable,
    )


def facts_of(trips: Trips) -> dict[str, object]:
    """Returns the params of the trips that every run of a month logs, by the course's names."""
    return {
        "row_count": trips.rides,
        "training_set_size": trips.training_trips,
        "val_set_size": trips.validation_trips,
        "dataset_timestamp": str(trips.last_pickup),
        "dataset_revision": trips.edition.revision,
    }
