"""Which runs are refused; what the UI does with the refusal is seen in `test_order` and `test_decisions`."""

import dagster as dg
import pytest

from taxifare_dagster.run_guards import ensure_of_one_month

CHECKS = {dg.AssetCheckKey(dg.AssetKey("staging_model"), "has_no_leak")}


def run(**changes: object) -> dg.DagsterRun:
    return dg.DagsterRun("__ASSET_JOB", run_id="1", **changes)  # type: ignore[arg-type]


def over(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


@pytest.mark.parametrize(
    "accepted",
    [
        None,
        run(),
        run(tags={"dagster/partition": "2015-01-01"}),
        run(tags=over("2015-01-01", "2015-01-01")),
        run(tags={"dagster/partition": "2015-01-01"}, asset_selection=frozenset(), asset_check_selection=CHECKS),
        run(asset_selection=frozenset({dg.AssetKey("base_model")})),
        run(
            asset_selection=frozenset(),
            asset_check_selection={dg.AssetCheckKey(dg.AssetKey("base_model"), "base_beats_reference")},
        ),
    ],
)
def test_runs_of_one_month_or_of_none_are_accepted(accepted: dg.DagsterRun | None) -> None:
    ensure_of_one_month(accepted, None)


def test_a_run_of_several_months_is_refused() -> None:
    with pytest.raises(dg.Failure) as refused:
        ensure_of_one_month(run(tags=over("2015-01-01", "2015-02-01")), None)
    assert 'with "Launch backfill", which makes a run for each' in str(refused.value.description)
    assert not refused.value.allow_retries


def test_checks_of_months_without_a_month_are_refused() -> None:
    with pytest.raises(dg.Failure) as refused:
        ensure_of_one_month(run(asset_selection=frozenset(), asset_check_selection=CHECKS), None)
    assert "choose a month" in str(refused.value.description)
    assert not refused.value.allow_retries
