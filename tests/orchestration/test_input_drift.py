"""Input drift: what is shown of a month is shown of all of its days, however many trips it has."""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from upath import UPath

from taxifare.trips import stored
from taxifare.trips.editions import Trips
from taxifare.trips.preparation import preprocess
from taxifare_dagster.assets.watch import input_drift
from taxifare_dagster.io_managers import ParquetIOManager
from tests.support.small import raw_month, small_settings


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
def test_of_a_large_month_all_days_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small_settings(tmp_path, simulator_trips_per_month=400)
    january, february = raw_month(settings, "2015-01"), raw_month(settings, "2015-02")
    lake = ParquetIOManager(UPath(settings.lake), "fare", settings.city_facts)

    def write(asset: str, value: Trips | pd.DataFrame) -> None:
        lake.place(asset, "2015-02-01").parent.mkdir(parents=True)
        lake.write(value, lake.place(asset, "2015-02-01"))

    clean = preprocess(february, settings.city_facts, settings.target_facts).trips
    write("raw_new_data", february)
    write("preprocessed_data", clean)
    write("rehearsal_trips", january.frame)

    def shown() -> Any:
        context = dg.build_asset_context(partition_key="2015-02-01")
        return input_drift(context, lake, settings).metadata

    whole = shown()
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 100)
    large = shown()
    assert large["rides"] == whole["rides"] == clean.rides
    assert large["features"] == whole["features"]
