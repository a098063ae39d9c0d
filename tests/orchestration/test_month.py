"""A month, whole: what its assets show, what its checks record, what MLflow keeps – and every verdict it can reach."""

import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

import dagster as dg
import pandas as pd
import pytest

from taxifare.approval.message import verdict_in_words
from taxifare.approval.records import RequestState
from taxifare.gate.evidence import Verdict
from taxifare.reports.month_page import pages_of
from taxifare.training.challengers import Renewal
from taxifare.trips.features import feature_names
from tests.support.world import FEBRUARY, JANUARY, World, checks_of, failed_checks, failures

ALL_CHECKS = {
    "has_trip_columns", "is_within_month", "has_enough_trips", "has_unique_keys",
    "keeps_most_trips", "has_no_nulls",
    "production_is_not_stale",
    "staging_beats_production", "keeps_every_slice", "keeps_bias", "has_no_leak",
}  # fmt: skip


def thinned(trips: pd.DataFrame) -> pd.DataFrame:
    return trips[::30].reset_index(drop=True)


def with_a_key_twice(trips: pd.DataFrame) -> pd.DataFrame:
    return trips.assign(key=trips["key"].where(trips.index != 7, trips["key"][8]))


def into_february(trips: pd.DataFrame) -> pd.DataFrame:
    """The last trip starts at midnight: the first moment of the next month."""
    last = trips.index == trips.index[-1]
    return trips.assign(pickup_datetime=trips["pickup_datetime"].where(~last, pd.Timestamp("2015-02-01")))


def with_another_type(trips: pd.DataFrame) -> pd.DataFrame:
    return trips.assign(passenger_count=trips["passenger_count"].astype("float64"))


def without_position(trips: pd.DataFrame) -> pd.DataFrame:
    """Every third meter lost its satellites."""
    return trips.assign(pickup_latitude=trips["pickup_latitude"].where(trips.index % 3 > 0, 0.0))


BAD_MONTHS = {
    "has_enough_trips": thinned,
    "has_unique_keys": with_a_key_twice,
    "is_within_month": into_february,
    "has_trip_columns": with_another_type,
}


def remove_artifacts(world: World, version: str) -> None:
    """Ensures that a registered version has lost its files."""
    uri = world.registry.store.client.get_model_version_download_uri(world.settings.registered_model, version)
    folder = Path(urlparse(uri).path)
    assert world.settings.home in folder.parents
    shutil.rmtree(folder)


@pytest.fixture
def january(_compared: World) -> World:
    """January has been run; not to be changed."""
    return _compared


@pytest.fixture
def run(january: World) -> dg.DagsterRun:
    """The run of January."""
    return january.instance.get_runs(dg.RunsFilter(job_name="monthly_job"))[0]


class TestJanuaryAsItWas:
    """January from the simulated meter, run once from the base model."""

    def test_trips_show_rows_columns_and_edition(self, january: World) -> None:
        raw, clean = january.metadata("raw_new_data", JANUARY), january.metadata("preprocessed_data", JANUARY)
        published = january.publisher.read_month(JANUARY)
        assert raw["dagster/partition_row_count"] == len(published.trips)
        assert raw["validation_trips"] == pytest.approx(0.2 * len(published.trips), abs=2)
        assert raw["revision"] == clean["revision"] == published.revision
        assert raw["time_span"].startswith("2015-01-01")
        assert {"pickup_datetime", "fare_amount", "is_validation"} <= {
            column.name for column in raw["dagster/column_schema"].columns
        }
        dropped = {record.data["rule"]: record.data["trips dropped"] for record in clean["dropped"].records}
        assert clean["dagster/partition_row_count"] == len(published.trips) - sum(dropped.values())
        assert 0.9 < clean["share_kept"] < 1
        assert "haversine_km" in {column.name for column in clean["dagster/column_schema"].columns}

    def test_the_lake_holds_what_the_pages_describe(self, january: World) -> None:
        lake = january.settings.home / "lake"
        clean = pd.read_parquet(lake / "preprocessed_data" / "2015-01-01.parquet")
        schema = january.metadata("preprocessed_data", JANUARY)["dagster/column_schema"]
        features = set(feature_names(january.settings.city_facts))
        assert set(clean.columns) == {column.name for column in schema.columns} - features
        revision = january.publisher.months()[JANUARY]
        assert clean.attrs == {"subject": "2015-01", "revision": revision, "target": "fare"}
        assert len(clean) == january.metadata("preprocessed_data", JANUARY)["dagster/partition_row_count"]

    def test_models_show_numbers_versions_and_pictures(self, january: World) -> None:
        production = january.metadata("production_eval_mae", JANUARY)
        staging = january.metadata("staging_model", JANUARY)
        evidence = january.evidence(JANUARY)
        assert evidence.production is not None
        assert production["mae_usd"] == round(evidence.production.scores.mae, 4)
        assert staging["mae_usd"] == round(evidence.staging.scores.mae, 4)
        assert production["production_version"] == staging["parent_version"] == evidence.production_version == "1"
        assert staging["version"] == evidence.staging.version == "2"
        assert production["difficulty_mae_usd"] == staging["difficulty_mae_usd"]
        assert production["difficulty_mae_usd"] == round(evidence.difficulty_mae, 4)
        numbers = {record.data["of what"]: record.data["USD a ride"] for record in production["all_numbers"].records}
        assert numbers["prediction: MAE"] == production["mae_usd"]
        assert numbers["flat per-km rate: MAE"] == production["difficulty_mae_usd"]
        assert list(production)[:2] == ["all_months", "all_numbers"], "pages of assets show the order given"
        assert 1 <= staging["epochs"] <= 2
        assert [entry["subject"] for entry in staging["exposure"]] == ["base", "2015-01"]
        for picture in (production["all_months"], production["errors"], staging["errors"], staging["loss_curve"]):
            assert picture.startswith("![plot](data:image/png;base64,iVBOR")

    def test_the_runs_log_says_the_error_before_training_and_loss_and_error_of_each_epoch(
        self, january: World, run: dg.DagsterRun
    ) -> None:
        told = [entry.user_message for entry in january.instance.all_logs(run.run_id)]
        epochs = [line for line in told if " on early-stopping trips " in line]
        assert re.match(r"warm, before training: error on early-stopping trips \d+\.\d{3} USD \(", epochs[0])
        assert all(re.match(r"warm, epoch [12]: loss \d+\.\d{3}, error on ", line) for line in epochs[1:])
        assert len(epochs) > 1

    def test_every_check_is_recorded_for_the_month(self, january: World, run: dg.DagsterRun) -> None:
        storage = january.instance.event_log_storage
        found = {}
        for key in january.definitions.resolve_asset_graph().asset_check_keys:
            for record in storage.get_asset_check_execution_history(key, limit=10):
                if record.run_id == run.run_id:
                    found[key.name] = record.partition
        assert found == dict.fromkeys(ALL_CHECKS, "2015-01-01")

    def test_the_comparison_is_in_the_ledger(self, january: World) -> None:
        found = january.approvals.record.comparisons()
        assert set(found) == {"base", "2015-01"}
        assert found["base"].evidence.verdict is Verdict.COLD_START
        assert found["2015-01"].evidence.verdict is Verdict.PROMOTE
        assert found["2015-01"].evidence.gain is not None
        assert found["2015-01"].revision == january.publisher.months()[JANUARY]

    def test_mlflow_has_a_run_of_each_model_within_one_of_the_whole(self, january: World, run: dg.DagsterRun) -> None:
        runs = january.mlflow_runs(run.run_id)
        assert set(runs) == {"production_eval_mae", "staging_model", "parent"}
        assert {found.info.status for found in runs.values()} == {"FINISHED"}
        for asset in ("production_eval_mae", "staging_model"):
            tags = runs[asset].data.tags
            assert (tags["asset"], tags["month"], tags["dagster_run"]) == (asset, "2015-01", run.run_id)
            assert january.metadata(asset, JANUARY)["mlflow_page"].endswith(f"/runs/{runs[asset].info.run_id}")
            assert tags["mlflow.parentRunId"] == runs["parent"].info.run_id
            assert round(runs[asset].data.metrics["mae"], 4) == january.metadata(asset, JANUARY)["mae_usd"]
            assert {"row_count", "training_set_size", "val_set_size", "model_version"} <= set(runs[asset].data.params)
        assert {"learning_rate", "batch_size", "patience", "context"} <= set(runs["staging_model"].data.params)


class TestEveryVerdictIsAnAnswer:
    """Comparisons never fail a run: what they find is for a person to hear."""

    def test_hold(self, compared_january: World) -> None:
        world = compared_january.under(minimum_gain=100.0)
        result = world.run("monthly_job", month=JANUARY, assets=["staging_model"])
        assert failures(result) == {}
        assert failed_checks(result) == {"staging_beats_production"}
        check = checks_of(result)["staging_beats_production"]
        assert check.severity is dg.AssetCheckSeverity.WARN
        assert check.metadata["verdict"].value == "HOLD"
        assert check.description == check.metadata["answer"].value
        in_words = verdict_in_words(world.evidence(JANUARY))
        assert check.description.startswith(f"2015-01: HOLD, {in_words} (a gain of at least 100.00 ")
        assert min(check.metadata) == "answer", "pages of checks sort by name"
        assert world.evidence(JANUARY).verdict is Verdict.HOLD

    def test_unchanged(self, started: World) -> None:
        """The month's first weeks cost a third: what is learned from them is wrong for the last, and is not kept."""

        def cheapen_the_first_weeks(trips: pd.DataFrame) -> pd.DataFrame:
            early = trips["pickup_datetime"] < "2015-01-24"
            return trips.assign(fare_amount=trips["fare_amount"].where(~early, trips["fare_amount"] / 3))

        started.publisher.restate(JANUARY, "cheap", cheapen_the_first_weeks)
        result = started.run_month(JANUARY)
        assert failures(result) == {}
        assert failed_checks(result) >= {"staging_beats_production"}
        evidence = started.evidence(JANUARY)
        assert evidence.verdict is Verdict.UNCHANGED
        assert evidence.staging.version == evidence.production_version == "1"
        assert (
            started.metadata("staging_model", JANUARY)["lesson"] == "version 2, from version 1, was no better: not kept"
        )
        assert {checks_of(result)[name].severity for name in failed_checks(result)} == {dg.AssetCheckSeverity.WARN}

    def test_cold_start(self, empty: World) -> None:
        result = empty.run_month(JANUARY)
        assert failures(result) == {}
        assert failed_checks(result) == set()
        assert checks_of(result)["production_is_not_stale"].metadata["not_scored"].value == "nothing is in production"
        evidence = empty.evidence(JANUARY)
        assert evidence.verdict is Verdict.COLD_START
        assert (evidence.production_version, evidence.production, evidence.gain) == (None, None, None)
        assert empty.metadata("staging_model", JANUARY)["parent_version"] == "none"

    def test_a_cold_start_begins_with_the_base_model_s_weights(self, trained: World) -> None:
        """Nobody has decided on the base model yet: that is no reason to forget six years."""
        trained.publisher.out = (JANUARY,)
        assert failures(trained.run_month(JANUARY)) == {}
        assert trained.evidence(JANUARY).verdict is Verdict.COLD_START
        staging = trained.metadata("staging_model", JANUARY)
        assert staging["parent_version"] == "1"
        assert [entry["subject"] for entry in staging["exposure"]] == ["base", "2015-01"]

        # The second start to be asked about says which to take first, and is void with the first.
        assert trained.ask("base").success
        assert trained.ask(JANUARY).success
        first, second = (message.text for message in trained.chat.messages)
        assert "2 first models are waiting for an answer: 2015-01, base. Decide on base first" in second
        assert "first models are waiting" not in first
        assert trained.answer(trained.request("base")).success
        outcome = trained.approvals.record.outcome(trained.request(JANUARY).id)
        assert outcome is not None
        assert outcome.state is RequestState.VOID
        assert "production moved from nothing to version 1" in outcome.reason

    def test_a_production_that_predicts_nonsense_is_unscorable(self, started: World) -> None:
        """It loads, but its weights are not numbers: that is said, and the person gets something to decide on."""
        import keras

        uri = started.registry.store.client.get_model_version_download_uri(started.settings.registered_model, "1")
        (path,) = Path(urlparse(uri).path).rglob("network.keras")
        network = keras.models.load_model(path)
        network.set_weights([weights * float("nan") for weights in network.get_weights()])
        network.save(path)
        with started.approvals.ledger._begin(exclusive=True) as connection:
            # It was registered so: what is altered afterwards is not even loaded.
            connection.exec_driver_sql("DROP TRIGGER versions_refuse_update")
            digest = started.registry._digest_of("1")
            connection.exec_driver_sql(f"UPDATE versions SET files_digest = '{digest}'")
        assert failures(started.run_month(JANUARY)) == {}
        assert started.evidence(JANUARY).verdict is Verdict.UNSCORABLE
        assert "not finite" in started.metadata("staging_model", JANUARY)["production_fault"]

    def test_unscorable(self, compared_january: World) -> None:
        """Production's files are gone: that is a fault to hear of, not a cold start and not a broken month."""
        remove_artifacts(compared_january, "1")
        compared_january.publisher.restate(JANUARY, "other")
        result = compared_january.run_month(JANUARY)
        assert failures(result) == {}
        assert {"production_is_not_stale", "staging_beats_production"} <= failed_checks(result)
        assert checks_of(result)["production_is_not_stale"].severity is dg.AssetCheckSeverity.ERROR
        evidence = compared_january.evidence(JANUARY)
        assert (evidence.verdict, evidence.production_version) == (Verdict.UNSCORABLE, "1")
        assert evidence.production is None
        assert "version 1 cannot be loaded" in compared_january.metadata("production_eval_mae", JANUARY)["not_scored"]
        assert "version 1 cannot be loaded" in compared_january.metadata("staging_model", JANUARY)["production_fault"]

        # The person hears of it, and approving takes saying so.
        assert failures(compared_january.ask(JANUARY)) == {}
        assert "UNSCORABLE" in compared_january.chat.messages[-1].text

    def test_leak(self, compared_january: World) -> None:
        """Production learned from January; restated without its second half, it ends with trips production knows."""
        decided = compared_january.ask_and_approve(JANUARY)
        compared_january.publisher.restate(
            JANUARY, "half", lambda trips: trips[trips["pickup_datetime"] < "2015-01-16"].reset_index(drop=True)
        )
        # Half a month waits otherwise.
        result = compared_january.under(month_ends_within_hours=31 * 24).run_month(JANUARY)
        assert failures(result) == {}
        assert {"staging_beats_production", "has_no_leak"} <= failed_checks(result)
        assert checks_of(result)["has_no_leak"].severity is dg.AssetCheckSeverity.ERROR
        assert "2015-01" in str(checks_of(result)["has_no_leak"].metadata["leak"].value)
        assert compared_january.evidence(JANUARY).verdict is Verdict.LEAK
        shown = compared_january.metadata("production_eval_mae", JANUARY)
        assert "has learned rides of 2015-01 until 2015-01-" in shown["learned_these_rides"]
        assert "mae_usd" not in shown, "a point too good for the plots"

        # Asking says which decision rested on the edition that was replaced.
        assert failures(compared_january.ask(JANUARY)) == {}
        assert f"Restated: {decided.id} was approved by " in compared_january.chat.messages[-1].text

    def test_production_is_stale_where_the_candidate_surely_saves_more(self, compared_january: World) -> None:
        for tolerance, is_fresh in ((1.0, True), (0.0, False)):
            world = compared_january.under(staleness_tolerance=tolerance)
            result = world.run("monthly_job", month=JANUARY, assets=["production_eval_mae"])
            check = checks_of(result)["production_is_not_stale"]
            lost = check.metadata["skill_when_approved"].value - check.metadata["skill"].value
            assert 0 < lost < 1
            rise = [
                check.metadata[f"rise_{part}"].value for part in ("usd", "by_a_harder_month_usd", "by_lost_skill_usd")
            ]
            assert rise[0] == pytest.approx(rise[1] + rise[2], abs=1e-3)
            assert f"The model is {'not ' if is_fresh else ''}stale: " in str(check.metadata["why"].value)
            assert check.metadata["gain_low_usd"].value > 0
            assert str(check.metadata["all_months"].value).startswith("![plot](data:image/png;base64,")
            assert check.metadata["all_months"].value != world.metadata("production_eval_mae", JANUARY)["all_months"]
            assert (check.passed, check.severity) == (is_fresh, dg.AssetCheckSeverity.WARN)
            assert failures(result) == {}

    def test_a_month_of_the_past_makes_no_page_amber(self, compared_january: World) -> None:
        """February has been compared since: of January it is said how it stood, and nothing fails."""
        assert failures(compared_january.run_month(FEBRUARY)) == {}
        world = compared_january.under(staleness_tolerance=0.0)
        check = checks_of(world.run("monthly_job", month=JANUARY, assets=["production_eval_mae"]))[
            "production_is_not_stale"
        ]
        assert check.passed
        assert "A later month has been compared since" in str(check.description)
        assert "The model is stale: " in str(check.description)

    def test_the_error_at_the_approval_is_the_ledgers_whatever_mlflow_says(self, compared_january: World) -> None:
        """The tag in MLflow moved along with every unchanged month that kept the version: a slow rise did not show."""
        decided = compared_january.ask_and_approve(JANUARY)
        compared_january.registry.tag(decided.staging_version, {"footing": '{"mae": 0.01, "difficulty_mae": 9.99}'})
        check = checks_of(compared_january.run_month(FEBRUARY))["production_is_not_stale"]
        evidence = decided.evidence
        assert check.metadata["skill_when_approved"].value == pytest.approx(
            1 - evidence.staging.scores.mae / evidence.difficulty_mae, abs=1e-4
        )
        told = f"The error went from {evidence.staging.scores.mae:.2f} to "
        assert str(check.description).startswith(told)
        with compared_january.approvals.ledger.reading() as entries:
            page = pages_of(entries, compared_january.settings, {})[-1]
        assert page.month.subject == str(FEBRUARY)
        assert page.change is not None
        assert str(check.description) == page.change.sentence

    def test_without_a_candidate_of_these_trips_nobody_can_tell(self, compared_january: World) -> None:
        """January is restated, and staging has not been run on it again."""
        compared_january.publisher.restate(JANUARY, "other", lambda trips: trips.iloc[200:].reset_index(drop=True))
        world = compared_january.under(staleness_tolerance=0.0)
        result = world.run(
            "monthly_job", month=JANUARY, assets=["raw_new_data", "preprocessed_data", "production_eval_mae"]
        )
        check = checks_of(result)["production_is_not_stale"]
        assert check.passed
        assert "It is unknown whether the model is stale" in str(check.description)


class TestSameMonthTwice:
    def test_gives_the_same_version_the_same_evidence_and_one_question(self, compared_january: World) -> None:
        first = compared_january.evidence(JANUARY)
        compared_january.ask(JANUARY)
        assert failures(compared_january.run_month(JANUARY)) == {}
        second = compared_january.evidence(JANUARY)
        assert second.digest == first.digest
        assert compared_january.versions() == {"1": "base", "2": "2015-01"}
        assert "registered before" in compared_january.metadata("staging_model", JANUARY)["reused"]

        assert compared_january.ask(JANUARY).success
        assert compared_january.ask(JANUARY).success
        requests = [request for request in compared_january.approvals.record.requests() if request.subject == "2015-01"]
        assert [request.staging_version for request in requests] == ["2"]
        assert len(compared_january.chat.messages) == 1
        assert compared_january.chat.messages[0].text.startswith("Evaluation MAE: ")

    def test_restated_is_another_question_and_the_open_one_is_void(self, compared_january: World) -> None:
        compared_january.ask(JANUARY)
        before = compared_january.request(JANUARY)
        compared_january.publisher.restate(JANUARY, "r2", lambda trips: trips[5:].reset_index(drop=True))
        assert failures(compared_january.run_month(JANUARY)) == {}
        assert compared_january.ask(JANUARY).success

        after = compared_january.request(JANUARY)
        assert (after.revision, after.staging_version) == ("r2", "3")
        outcome = compared_january.approvals.record.outcome(before.id)
        assert outcome is not None
        assert (outcome.state, outcome.reason) == ("void", "2015-01 restated as r2")
        assert compared_january.approvals.record.open_requests() == (after,)
        assert len(compared_january.chat.messages) == 2
        assert compared_january.metadata("raw_new_data", JANUARY)["revision"] == "r2"


class TestFaults:
    """What cannot be done fails its step, says why, and leaves earlier results as they were."""

    def test_training_that_blows_up_fails_the_mlflow_runs_too(
        self, compared_january: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lake, world = compared_january.lake(), compared_january
        monkeypatch.setattr("taxifare.training.challengers.RENEWAL", Renewal(learning_rate=1e30))
        result = world.run("monthly_job", month=JANUARY, assets=["staging_model"])
        assert not result.success
        assert "TrainingError" in failures(result)["staging_model"]
        runs = world.mlflow_runs(result.run_id)
        assert {asset: run.info.status for asset, run in runs.items()} == {
            "staging_model": "FAILED",
            "parent": "FAILED",
        }
        assert world.versions() == {"1": "base", "2": "2015-01"}
        assert world.lake() == lake

    def test_an_mlflow_that_does_not_answer_is_no_cold_start(self, compared_january: World, closed_port: int) -> None:
        lake = compared_january.lake()
        world = compared_january.under(mlflow_tracking_uri=f"http://127.0.0.1:{closed_port}")
        result = world.run_month(JANUARY)
        assert not result.success
        assert "RegistryError" in "\n".join(failures(result).values())
        assert "MLflow could not describe the experiment" in "\n".join(failures(result).values())
        assert world.lake() == lake
        assert not [event for event in result.all_events if event.is_successful_output]

    def test_a_truncated_file_fails_with_its_name_and_leaves_other_months(
        self, compared_january: World, tmp_path: Path
    ) -> None:
        lake = compared_january.lake()
        files = tmp_path / "published"
        files.mkdir()
        whole = files / "taxi_2015_02.parquet"
        compared_january.publisher.city.read_month(FEBRUARY).trips.to_parquet(whole)
        whole.write_bytes(whole.read_bytes()[:-1000])
        world = compared_january.reading(files)
        result = world.run_month(FEBRUARY)
        assert not result.success
        assert set(failures(result)) == {"raw_new_data"}
        assert "SourceError" in failures(result)["raw_new_data"]
        assert "taxi_2015_02.parquet" in failures(result)["raw_new_data"]
        # What is rehearsed for February is earlier trips, and does not wait for February's.
        assert set(world.lake()) - set(lake) == {"rehearsal_trips/2015-02-01.parquet"}
        assert lake.items() <= world.lake().items()
        assert not world.is_materialized("raw_new_data", FEBRUARY)

    def test_a_month_not_published_is_named(self, started: World, tmp_path: Path) -> None:
        (tmp_path / "published").mkdir()
        result = started.reading(tmp_path / "published").run_month(FEBRUARY)
        assert "no file for month 2015-02" in failures(result)["raw_new_data"]
        assert set(failures(result)) == {"raw_new_data"}


class TestBlockingChecks:
    """What is not a month of trips trains no model, whatever its source lets through."""

    @pytest.mark.parametrize("check", BAD_MONTHS)
    def test_a_bad_month_stops_before_the_models(self, compared_january: World, check: str) -> None:
        before = compared_january.lake()
        compared_january.publisher.restate(JANUARY, "bad", BAD_MONTHS[check])
        result = compared_january.run_month(JANUARY)
        assert not result.success
        assert failed_checks(result) == {check}
        assert check in "\n".join(failures(result).values())
        materialized = {str(event.asset_key.path[-1]) for event in result.get_asset_materialization_events()}
        assert materialized == {"raw_new_data", "rehearsal_trips"}
        after = compared_january.lake()
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {"raw_new_data/2015-01-01.parquet", "whole_months/2015-01.seen.json"}
        assert compared_january.versions() == {"1": "base", "2": "2015-01"}

    def test_a_month_that_is_not_whole_is_not_used(self, compared_january: World) -> None:
        """Its first half may be all that is written yet: it waits, and nothing in the lake is lost."""
        before = compared_january.lake()
        compared_january.publisher.restate(JANUARY, "half", lambda trips: trips[: len(trips) // 2])
        result = compared_january.run_month(JANUARY)
        assert not result.success
        assert "month 2015-01 is not whole yet: its last ride begins 2015-01-1" in failures(result)["raw_new_data"]
        assert 'taxifare take 2015-01 --by YOU --reason "WHY"' in failures(result)["raw_new_data"]
        after = compared_january.lake()
        assert {name for name in before if before[name] != after[name]} == {"whole_months/2015-01.seen.json"}
        assert compared_january.versions() == {"1": "base", "2": "2015-01"}

    def test_a_month_that_cleaning_mostly_drops_trains_nothing(self, compared_january: World) -> None:
        compared_january.publisher.restate(
            JANUARY,
            "zeros",
            lambda trips: trips.assign(pickup_latitude=trips["pickup_latitude"].where(trips.index % 3 > 0, 0)),
        )
        result = compared_january.run_month(JANUARY)
        assert not result.success
        assert failed_checks(result) == {"keeps_most_trips"}
        materialized = {str(event.asset_key.path[-1]) for event in result.get_asset_materialization_events()}
        assert materialized == {"raw_new_data", "preprocessed_data", "rehearsal_trips"}
