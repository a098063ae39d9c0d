"""Adopting what a search found: a person makes it the settings of the next fit, on the record.

Why in `.env`: docs/decisions.md, under studies.
"""

from datetime import UTC, datetime
from pathlib import Path

from taxifare.model.registry import ModelRegistry
from taxifare.studies.results import TuningResult


def adopt(result: TuningResult, registry: ModelRegistry, env_file: Path, *, by: str, reason: str) -> None:
    """Ensures that `.env` holds the winner's settings, all else as it was, and that MLflow says who chose so and why.

    Raises:
        RegistryError: MLflow does not answer; nothing is written.
    """
    from dotenv import set_key

    adopted_at = datetime.now(UTC).isoformat(timespec="seconds")
    registry.runs.tag(result.run_id, {"adopted_by": by, "adopted_reason": reason, "adopted_at": adopted_at})
    for line in result.env_lines:
        name, value = line.split("=", 1)
        set_key(env_file, name, value, quote_mode="never")
