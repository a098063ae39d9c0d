"""The monthly partition of the assets; nothing else is partitioned."""

import dagster as dg

from taxifare.months import partition_key
from taxifare.settings import Settings

_settings = Settings()

months = dg.MonthlyPartitionsDefinition(
    start_date=partition_key(_settings.first_month),
    end_date=None if _settings.last_month is None else partition_key(_settings.last_month + 1),
)
"""FIRST_MONTH to LAST_MONTH, both included; Dagster's own end date is the first day that is out."""
