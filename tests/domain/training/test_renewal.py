"""A month's two pieces of work against real MLflow: production scored, a candidate trained on the right rows, once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from taxifare.gate.evidence import Appraisal, Evidence, Verdict
from taxifare.gate.scores import difficulty_of
from taxifare.gate.staleness import baseline_of
from taxifare.gate.verdict import judge
from taxifare.model.fitting import Epoch, TrainingHistory, TrainingRows, fit, predict
from taxifare.model.network import ARCHITECTURES
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry, RegisteredVersion
from taxifare.model.store import RegistryError
from taxifare.settings import Settings
from taxifare.training.appraisal import appraise_production
from taxifare.training.candidates import Candidate, known_version, training_inputs
from taxifare.training.challengers import HELD_SHARE, RENEWAL
from taxifare.training.earlier_fingerprints import fingerprint_at_431839f
from taxifare.training.recipe import fingerprint
from taxifare.trips.city_files import shipped
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.features import feature_names
from taxifare.trips.meters import quoted
from tests.support.registry import all_versions, registry_at
from tests.support.rehearsals import reservoir
from tests.support.servers import free_port
from tests.support.small import PLAIN_NETWORK, base_file, run_tags, small_settings, train, version_of

if TYPE_CHECKING:
    from mlflow.entities import Run

pytestmark = pytest.mark.usefixtures("networks_without_tables")

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """What a fit was given."""

    training: Rows
    stopping: Rows
    learning_rate: float


@dataclass(frozen=True)
class Month:
    """January 2015 as it goes: a base model in production, its score, a candidate from it."""

    settings: Settings
    registry: ModelRegistry
    trips: Trips
    base: Candidate
    production: Appraisal
    candidate: Candidate
    fitted: tuple[Fitted, ...]
    told: tuple[tuple[str, Epoch], ...]

    def evidence(self, candidate: Candidate, production: Appraisal | None = None) -> Evidence:
        return evidence_of(self.trips, production or self.production, candidate, self.registry, self.settings)


def evidence_of(
    trips: Trips, production: Appraisal, candidate: Candidate, registry: ModelRegistry, settings: Settings
) -> Evidence:
    """The comparison, from what both models left with their MLflow runs."""
    staging = candidate.appraisal
    assert staging.contender is not None
    scored = production.contender
    return judge(
        trips=trips,
        production=production,
        production_predicted=None if scored is None else registry.runs.read_predictions(scored.run_id),
        staging=staging,
        staging_predicted=registry.runs.read_predictions(staging.contender.run_id),
        settings=settings,
    )


def appraise(trips: Trips, version: str | None, registry: ModelRegistry, run: str) -> Appraisal:
    """What the asset `production_eval_mae` does in a Dagster run."""
    tags = run_tags("production_eval_mae", trips.edition.subject, run)
    return appraise_production(trips, version, registry, Settings(_env_file=None), run_tags=tags)


@pytest.fixture(scope="module")
def month(
    january_trips: Trips,
    tmp_path_factory: pytest.TempPathFactory,
    open_registry: Callable[[Settings], ModelRegistry],
) -> Month:
    settings = small_settings(tmp_path_factory.mktemp("renewal"), max_epochs=2)
    registry = open_registry(settings)
    fitted: list[Fitted] = []
    told: list[tuple[str, Epoch]] = []

    def watched(network: Any, training: TrainingRows, stopping: Rows, fares: Rows, **given: Any) -> TrainingHistory:
        parts = (training.part(number) for number in range(len(training.counts)))
        learned = np.concatenate([features[rows] for features, _, rows in parts])
        fitted.append(Fitted(learned, stopping.copy(), given["learning_rate"]))
        return fit(network, training, stopping, fares, **given)

    def tell(challenger: str, epoch: Epoch) -> None:
        told.append((challenger, epoch))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taxifare.training.from_random_weights.fit", watched)
        patch.setattr("taxifare.training.challengers.fit", watched)
        base = train(base_file(settings), None, registry, settings, "run-base")
        registry.set_production(version_of(base))
        production = appraise(january_trips, version_of(base), registry, "run-1")
        candidate = train(january_trips, version_of(base), registry, settings, "run-1", on_epoch=tell)
    return Month(settings, registry, january_trips, base, production, candidate, tuple(fitted), tuple(told))


def mae_by_hand(registry: ModelRegistry, version: str, trips: Trips) -> float:
    """The error of the saved weights, loaded back, on the validation rides."""
    rides = trips.validation
    return float((registry.load(version).predict(rides).astype(np.float64) - rides["target"]).abs().mean())


def run_of(month: Month, appraisal: Appraisal) -> "Run":
    assert appraisal.contender is not None
    return month.registry.store.client.get_run(appraisal.contender.run_id)


# The numbers


def test_the_mae_is_that_of_the_saved_weights(month: Month) -> None:
    for appraisal in (month.production, month.candidate.appraisal):
        assert appraisal.contender is not None
        assert appraisal.version is not None
        by_hand = mae_by_hand(month.registry, appraisal.version, month.trips)
        assert appraisal.contender.scores.mae == pytest.approx(by_hand, rel=1e-6)
        assert run_of(month, appraisal).data.metrics["mae"] == pytest.approx(by_hand, rel=1e-6)


def test_the_mae_is_not_the_best_epoch_seen_in_training(month: Month) -> None:
    history = month.candidate.history
    assert history is not None
    assert month.candidate.appraisal.contender is not None
    mae = month.candidate.appraisal.contender.scores.mae
    assert all(epoch.validation_mae != pytest.approx(mae, abs=1e-9) for epoch in history.epochs)


def test_both_models_are_scored_on_exactly_the_validation_rides(month: Month) -> None:
    keys = month.trips.validation["key"].tolist()
    for appraisal in (month.production, month.candidate.appraisal):
        assert appraisal.contender is not None
        assert month.registry.runs.read_predictions(appraisal.contender.run_id).index.tolist() == keys
        assert appraisal.contender.scores.trips == len(keys)


def test_stopping_is_decided_on_training_rides(month: Month) -> None:
    names = list(feature_names(month.settings.city_facts))
    _, fitted = month.fitted

    def found(rows: Rows) -> set[bytes]:
        return {row.tobytes() for row in rows}

    validation = found(month.trips.validation[names].to_numpy(np.float32))
    training = found(month.trips.training[names].to_numpy(np.float32))
    assert found(fitted.training) | found(fitted.stopping) == training
    assert not (found(fitted.training) | found(fitted.stopping)) & validation
    assert not found(fitted.training) & found(fitted.stopping)
    assert len(fitted.stopping) / (len(fitted.stopping) + len(fitted.training)) == pytest.approx(HELD_SHARE, abs=0.03)


def test_a_renewal_starts_from_its_parent_with_small_steps(month: Month) -> None:
    first, renewal = month.fitted
    assert first.learning_rate == PLAIN_NETWORK.learning_rate
    assert renewal.learning_rate == RENEWAL.learning_rate <= first.learning_rate / 10
    assert month.base.parent_version is None
    assert month.candidate.parent_version == version_of(month.base)
    assert month.candidate.history is not None
    start = month.candidate.history.epochs[0].validation_mae
    names = list(feature_names(month.settings.city_facts))
    network = month.registry.load(version_of(month.base)).network
    predicted = predict(network, renewal.stopping)
    training = month.trips.training
    stops = np.random.default_rng(month.settings.seed).random(len(training)) < HELD_SHARE
    np.testing.assert_array_equal(training.loc[stops, names].to_numpy(np.float32), renewal.stopping)
    assert start == pytest.approx(float(np.abs(predicted - training.loc[stops, "target"]).mean()), rel=1e-5)


def test_the_optimizer_goes_on_too(month: Month) -> None:
    networks = [month.registry.load(version_of(candidate)).network for candidate in (month.base, month.candidate)]
    steps = [int(network.optimizer.iterations) for network in networks]
    assert month.candidate.history is not None
    renewed = -(-len(month.fitted[1].training) // RENEWAL.batch_size) * month.candidate.history.best_epoch
    assert steps[0] > 0
    assert steps[1] == steps[0] + renewed


def test_a_model_has_seen_what_its_parent_has_seen(month: Month) -> None:
    base, january = month.candidate.appraisal.exposure
    assert month.base.appraisal.exposure == (base,)
    assert base.subject == "base"
    training = month.trips.training["pickup_datetime"]
    assert (january.subject, january.revision) == ("2015-01", month.trips.edition.revision)
    assert (january.first_pickup, january.last_pickup) == (training.min(), training.max())
    assert january.last_pickup < month.trips.validation["pickup_datetime"].min()
    assert month.registry.load(version_of(month.candidate)).exposure == (base, january)


def test_a_whole_month_ends_in_a_verdict(month: Month) -> None:
    evidence = month.evidence(month.candidate)
    assert evidence.verdict in {Verdict.PROMOTE, Verdict.HOLD, Verdict.REJECT}
    assert evidence.gain is not None
    assert evidence.production is not None
    mae_gain = evidence.production.scores.mae - evidence.staging.scores.mae
    assert evidence.gain.mean == pytest.approx(mae_gain), "the mean difference is the difference of the means"
    assert evidence.difficulty_mae == pytest.approx(difficulty_of(month.trips))


def test_production_trained_on_the_month_cannot_judge_it(month: Month) -> None:
    """The split has moved since January's model was promoted: what it learned from is asked about now."""
    frame = month.trips.frame
    rides = Trips(Edition("2015-01", "split anew"), frame.assign(is_validation=frame.index < 200))
    production = appraise(rides, version_of(month.candidate), month.registry, "run-leak")
    staging = Candidate(appraise(rides, version_of(month.base), month.registry, "run-leak-2"), "1", None, None)
    assert evidence_of(rides, production, staging, month.registry, month.settings).verdict is Verdict.LEAK


# The same month twice


def test_the_same_inputs_give_the_same_version_untrained_and_the_same_verdict(month: Month) -> None:
    again = train(month.trips, version_of(month.base), month.registry, month.settings, "run-2")
    assert version_of(again) == version_of(month.candidate)
    assert again.history is None, "nothing was trained"
    assert again.parent_version == month.candidate.parent_version
    production = appraise(month.trips, version_of(month.base), month.registry, "run-2")
    first, second = month.evidence(month.candidate), month.evidence(again, production)
    assert second.verdict is first.verdict
    assert second.staging.run_id != first.staging.run_id, "another Dagster run has runs of its own"
    assert second.digest == first.digest


def test_a_cold_start_twice_is_one_version(month: Month) -> None:
    again = train(base_file(month.settings), None, month.registry, month.settings, "run-base-2")
    assert version_of(again) == version_of(month.base)
    assert again.history is None
    assert again.parent_version is None


def test_other_trips_or_parents_are_another_training(month: Month) -> None:
    rehearsed = reservoir([month.trips], 100, seed=1)
    restated = rehearsed.assign(revision="restated")
    parents = [(None, None), (None, "1"), ("1", None), ("1", "2")]
    samples = [None, rehearsed, rehearsed[:-1], restated]
    inputs = [training_inputs(month.trips, parents=each) for each in parents]
    inputs += [training_inputs(month.trips, rehearsed=sample) for sample in samples]
    fingerprints = {fingerprint(month.settings, **each) for each in inputs}
    assert len(fingerprints) == len(parents) + len(samples)


def test_a_version_of_the_release_before_is_found(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month that was compared keeps its version; one that the newer release has trained goes before."""
    monkeypatch.setattr("taxifare.training.from_random_weights.ARCHITECTURES", ARCHITECTURES)  # by fingerprint
    inputs = training_inputs(month.trips, parents=("1", "elsewhere"))
    earlier = RegisteredVersion("7", "run", {})
    plain = small_settings(month.settings.home, max_epochs=None, batch_size=None)
    before = fingerprint_at_431839f(plain, inputs)
    assert before is not None
    versions = {before: earlier}
    monkeypatch.setattr(ModelRegistry, "find", lambda _self, asked: versions.get(asked))
    assert known_version(inputs, month.registry, plain) is earlier
    assert known_version(inputs, month.registry, plain.model_copy(update={"seed": 2})) is None
    later = versions[fingerprint(plain, **inputs)] = RegisteredVersion("9", "run", {})
    assert known_version(inputs, month.registry, plain) is later


def test_another_revision_or_parent_gives_another_version(month: Month) -> None:
    restated = replace(month.trips, edition=Edition("2015-01", "restated"))
    of_it = train(restated, version_of(month.base), month.registry, month.settings, "run-3")
    assert month.registry.staging_version() == version_of(of_it), "the newest challenger is staging"
    from_it = train(month.trips, version_of(month.candidate), month.registry, month.settings, "run-4")
    assert len({version_of(candidate) for candidate in (month.base, month.candidate, of_it, from_it)}) == 4
    assert of_it.history is not None
    assert from_it.history is not None


def test_the_newest_question_is_about_the_version_that_staging_points_at(month: Month) -> None:
    train(month.trips, version_of(month.base), month.registry, month.settings, "run-6")
    assert month.registry.staging_version() == version_of(month.candidate)


@pytest.mark.parametrize("moment", ["register", "set_staging"])
def test_a_month_that_was_killed_half_way_is_finished_by_running_it_again(
    month: Month, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again in the same Dagster run, as a retry, and so in the same MLflow run unless that had ended well."""
    trips = replace(month.trips, edition=Edition("2015-01", f"killed at {moment}"))
    before, run_id = len(versions_in(month.registry)), f"run-{moment}"

    def killed(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ModelRegistry, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            train(trips, version_of(month.base), month.registry, month.settings, run_id)
    done = train(trips, version_of(month.base), month.registry, month.settings, run_id)
    assert len(versions_in(month.registry)) == before + 1
    run = run_of(month, done.appraisal)
    assert run.info.status == "FINISHED"
    assert run.data.params["context"] == ("renewal" if moment == "register" else "reuse")
    assert run.data.params["model_version"] == done.appraisal.version
    assert month.registry.staging_version() == done.appraisal.version


def versions_in(registry: ModelRegistry) -> list[str]:
    return [str(version.version) for version in all_versions(registry)]


def test_other_features_start_training_anew_and_say_so(
    month: Month, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights of yesterday's features mean nothing to today's, though the shapes may agree."""
    names = feature_names(month.settings.city_facts)
    changed = tuple("riders" if name == "passengers" else name for name in names)
    modules = ("training.renewal", "training.challengers", "training.from_random_weights")
    for module in (*modules, "model.packaging", "model.network"):
        monkeypatch.setattr(f"taxifare.{module}.feature_names", lambda _city: changed)
    trips = Trips(Edition("2015-01", "new features"), month.trips.frame.rename(columns={"passengers": "riders"}))
    anew = train(trips, version_of(month.base), month.registry, month.settings, "run-8")
    assert anew.parent_version is None
    assert [entry.subject for entry in anew.appraisal.exposure] == ["2015-01"]
    assert run_of(month, anew.appraisal).data.params["parents_of_other_features"] == version_of(month.base)
    assert "parents_of_other_features" not in run_of(month, month.candidate.appraisal).data.params
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "taxifare.training.renewal"]
    changed_names = "(passengers, riders)"
    assert warning.startswith(f"version {version_of(month.base)} takes other features than today's {changed_names}: ")
    again = train(trips, version_of(month.base), month.registry, month.settings, "run-9")
    assert (version_of(again), again.parent_version) == (version_of(anew), None)


def test_the_error_of_rounded_quotes_is_logged_beside_and_is_no_part_of_the_scores(month: Month) -> None:
    contender = month.production.contender
    assert contender is not None
    metrics = month.registry.store.client.get_run(contender.run_id).data.metrics
    assert metrics["mae"] == pytest.approx(contender.scores.mae)
    validation = month.trips.validation
    shown = quoted(
        month.registry.load(contender.version).predict(validation),
        validation["pickup_datetime"],
        shipped("new-york").meter,
    )
    assert metrics["quoted_mae"] == pytest.approx(np.abs(shown - validation["target"]).mean())
    assert metrics["quoted_mae"] != metrics["mae"]


# What is not there, and what does not answer


def test_nothing_in_production_is_said_and_not_scored(month: Month) -> None:
    assert appraise(month.trips, None, month.registry, "run-x") == Appraisal(version=None)


def dead() -> ModelRegistry:
    return registry_at(f"http://127.0.0.1:{free_port()}")


def test_a_registry_that_does_not_answer_is_no_cold_start(month: Month) -> None:
    with pytest.raises(RegistryError):
        appraise(month.trips, "1", dead(), "run-x")
    for parent in ("1", None):
        with pytest.raises(RegistryError):
            train(month.trips, parent, dead(), month.settings, "run-x")


def test_a_registry_that_falls_silent_before_production_is_fetched_is_no_fault_of_production(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was begun, then the server went away: the step fails, and the month is run again when it is back."""

    def silent(*_args: object) -> None:
        raise RegistryError("no connection")

    monkeypatch.setattr(ModelRegistry, "load_once", silent)
    with pytest.raises(RegistryError, match="no connection"):
        appraise(month.trips, version_of(month.base), month.registry, "run-silent")


@pytest.fixture
def damaged(month: Month, tmp_path: Path, open_registry: Callable[[Settings], ModelRegistry]) -> ModelRegistry:
    """A registry of the test's own whose version 1 was registered and then lost its weights."""
    import mlflow

    registry = open_registry(small_settings(tmp_path))
    with registry.runs.open("a test", {"number": "1"}) as run_id:
        network = month.registry.load(version_of(month.base)).network
        registry.register(network, month.settings.city_facts, (), run_id=run_id, fingerprint="f", tags={})
        model = mlflow.artifacts.download_artifacts(f"models:/{registry.model_name}/1")
    (Path(model) / "artifacts" / "network.keras").write_bytes(b"torn")
    return registry


def test_an_unusable_production_has_a_fault_and_makes_the_month_unscorable(
    month: Month, damaged: ModelRegistry
) -> None:
    production = appraise(month.trips, "1", damaged, "run-x")
    assert production.version == "1"
    assert production.contender is None
    assert production.fault is not None
    assert production.fault.startswith("version 1 cannot be loaded: ")
    evidence = month.evidence(month.candidate, production)
    assert evidence.verdict is Verdict.UNSCORABLE
    assert "version 1 cannot be loaded" in evidence.reasons[0]


def test_a_parent_that_cannot_be_loaded_is_not_replaced_by_random_weights(month: Month, damaged: ModelRegistry) -> None:
    with pytest.raises(VersionUnusableError, match="version 1 cannot be loaded"):
        train(month.trips, "1", damaged, month.settings, "run-x")
    assert versions_in(damaged) == ["1"]


# What MLflow is told


def test_runs_carry_the_courses_params(month: Month) -> None:
    validation, rows = len(month.trips.validation), len(month.trips.frame)
    shared = {
        "row_count": str(rows),
        "training_set_size": str(rows - validation),
        "val_set_size": str(validation),
        "dataset_timestamp": str(month.trips.frame["pickup_datetime"].max()),
        "dataset_revision": month.trips.edition.revision,
    }
    params = run_of(month, month.candidate.appraisal).data.params
    assert (
        params.items()
        >= (
            shared
            | {
                "context": "renewal",
                "learning_rate": "0.001",
                "batch_size": "512",
                "patience": "2",
                "max_epochs": "2",
                "challenger": "warm",
                "learned_trips": str(len(month.fitted[1].training)),
                "seed": "1",
                "model_version": version_of(month.candidate),
                "parent_version": version_of(month.base),
            }
        ).items()
    )
    scored = run_of(month, month.production).data.params
    assert scored == shared | {"context": "evaluation", "model_version": version_of(month.base)}
    assert run_of(month, month.base.appraisal).data.params["context"] == "training"


def test_runs_carry_scores_and_curves(month: Month) -> None:
    run = run_of(month, month.candidate.appraisal)
    assert month.candidate.appraisal.contender is not None
    assert month.candidate.history is not None
    scores = month.candidate.appraisal.contender.scores
    assert {name: run.data.metrics[name] for name in ("mae", "rmse", "bias")} == {
        "mae": scores.mae,
        "rmse": scores.rmse,
        "bias": scores.bias,
    }
    client = month.registry.store.client
    curves = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in ("epoch_loss", "epoch_early_stopping_mae")
    }
    epochs = month.candidate.history.epochs
    assert curves["epoch_loss"] == [(epoch.number, epoch.loss) for epoch in epochs[1:]]
    assert curves["epoch_early_stopping_mae"] == [(epoch.number, epoch.validation_mae) for epoch in epochs]


def test_a_version_says_where_it_comes_from(month: Month) -> None:
    tags = month.registry.describe(version_of(month.candidate)).tags
    assert tags["month"] == "2015-01"
    assert tags["revision"] == month.trips.edition.revision
    assert tags["parent_version"] == version_of(month.base)
    assert "parent_version" not in month.registry.describe(version_of(month.base)).tags
    contender = month.candidate.appraisal.contender
    assert contender is not None
    assert float(tags["skill"]) == pytest.approx(baseline_of(month.trips, contender).skill, abs=1e-6)


def test_progress_is_told_epoch_by_epoch(month: Month) -> None:
    assert month.candidate.history is not None
    assert month.told == tuple(("warm", epoch) for epoch in month.candidate.history.epochs)


@pytest.mark.parametrize(("replaced", "is_held_against_it"), [("1", True), ("999", False)], ids=["there", "unknown"])
def test_production_is_held_against_what_it_replaced_where_that_is_still_there(
    month: Month, replaced: str, is_held_against_it: bool
) -> None:
    """A version that somebody deleted before anything was on record takes the comparison away, not the month."""
    production = version_of(month.candidate)
    found = appraise_production(
        month.trips,
        production,
        month.registry,
        month.settings,
        run_tags=run_tags("production_eval_mae", "2015-01", f"run-{replaced}"),
        replaced=replaced,
    )
    assert found.contender is not None
    assert (found.hindsight is not None) == is_held_against_it
    if found.hindsight is not None:
        by_hand = mae_by_hand(month.registry, replaced, month.trips) - mae_by_hand(
            month.registry, production, month.trips
        )
        assert found.hindsight.gain.mean == pytest.approx(by_hand, abs=1e-3)
