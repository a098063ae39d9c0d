"""The evidence as a document: read back as it was shown, with a digest of what was shown."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from taxifare.gate.evidence import Appraisal, Evidence, Hindsight, Objection, Verdict, contend
from taxifare.gate.scores import (
    Interval,
    score,
)
from taxifare.gate.track_record import TrackRecord
from tests.support.approvals import contender
from tests.support.comparison import (
    PAID,
    RIDES,
    judged,
    noise,
    off_by,
    scored,
)


def test_scored_nothing_and_unscorable_exclude_each_other() -> None:
    found = contender("1", score(PAID, PAID))
    for confused in (
        {"version": None, "fault": "?"},
        {"version": None, "contender": found},
        {"version": "1"},
        {"version": "1", "contender": found, "fault": "?"},
        {"version": "2", "contender": found},
    ):
        with pytest.raises(ValidationError):
            Appraisal.model_validate(confused)


def test_a_version_is_scored_as_it_predicts_and_as_it_is_corrected() -> None:
    """Too low by 1 and by 3 USD; raised by 2, it is too high by 1 and too low by 1."""
    paid, predicted = np.array([10.0, 20.0]), np.array([9.0, 17.0])
    found = contend("7", "run-7", predicted, predicted + 2, paid, files_digest="f00d")
    assert (found.version, found.run_id, found.files_digest) == ("7", "run-7", "f00d")
    assert (found.scores.mae, found.scores.bias, found.scores.rmse) == (2.0, -2.0, math.sqrt(5))
    assert (found.corrected.mae, found.corrected.bias, found.correction) == (1.0, 0.0, 2.0)


# The evidence as a document


def test_evidence_survives_json_with_infinite_bounds() -> None:
    """One validation ride: a mean, and no idea how sure it is."""
    one = RIDES.iloc[:-199].assign(is_validation=[False] * 800 + [True])
    ride = one[one["is_validation"]]
    production_predicted, staging_predicted = (
        pd.Series(ride["target"].to_numpy() + by, index=ride["key"]) for by in (2, 1)
    )
    evidence = judged(
        production_predicted,
        staging_predicted,
        production=scored("1", production_predicted, trips=ride),
        staging=scored("2", staging_predicted, trips=ride),
        trips=one,
    )
    assert evidence.verdict is Verdict.HOLD
    assert evidence.gain is not None
    assert evidence.gain.low == -math.inf
    for text in (evidence.model_dump_json(), json.dumps(evidence.model_dump(mode="json"), allow_nan=False)):
        assert Evidence.model_validate_json(text) == evidence
        assert Evidence.model_validate(json.loads(text)).digest == evidence.digest


def test_the_digest_is_of_what_was_shown_and_not_of_the_run_that_showed_it() -> None:
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.production is not None
    again = evidence.model_copy(
        update={
            "staging": evidence.staging.model_copy(update={"run_id": "another"}),
            "production": evidence.production.model_copy(update={"run_id": "a third"}),
        }
    )
    assert again.digest == evidence.digest


def test_evidence_of_before_keeps_its_digest() -> None:
    """It knows no track record; the digest under which somebody was asked about it is that of today."""
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.track_record is None
    assert "track_record" not in evidence.model_dump(mode="json")
    content = evidence.model_dump(mode="json", exclude={"staging": {"run_id"}, "production": {"run_id"}})
    assert "run_id" not in content["staging"]


CHANGES: dict[str, object] = {
    "objections": (Objection(about="bias", name="bias", reason="it grows"),),
    "subject": "2015-02",
    "revision": "r2",
    "production_version": "9",
    "unit": "min",
    "difficulty_mae": 1.0,
    "gain": None,
    "slices": (),
    "city": "lisbon",
    "track_record": TrackRecord(production="1"),
    "hindsight": Hindsight(replaced_version="0", gain=Interval(mean=0.1, low=0.0, high=0.2)),
    "verdict": Verdict.HOLD,
    "reasons": ("because",),
    "production": None,
    "staging": contender("3", score(PAID + 1, PAID)),
}


@pytest.mark.parametrize("name", list(Evidence.model_fields))
def test_whatever_is_shown_differs_in_the_digest(name: str) -> None:
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.model_copy(update={name: CHANGES[name]}).digest != evidence.digest
