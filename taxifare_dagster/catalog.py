"""Names and words that more than one definition uses: the catalog's groups, owners and kinds, pools, lists of assets.

A name that one definition has alone stands with it.
"""

CODE_LOCATION = "taxifare_dagster.definitions"
"""The module that Dagster loads, and its name in the UI's addresses."""

TRIPS_GROUP = "trips"
MODELS_GROUP = "models"
REPLAY_GROUP = "replay"
SERVING_GROUP = "serving"
MONITORING_GROUP = "monitoring"
OWNERS = ["team:taxifare"]

TRIPS_KINDS = {"pandas", "parquet"}
MODEL_KINDS = {"tensorflow", "mlflow"}
SERVING_KINDS = {"onnx", "parquet"}
MONITORING_KINDS = {"pandas", "parquet"}

PRODUCTION_POOL = "production_model"
"""Held by what trains from production: a backfill and a sensor run take turns on a small machine."""

MONTHLY_ASSETS = ("raw_new_data", "preprocessed_data", "rehearsal_trips", "production_eval_mae", "staging_model")
"""The assets of a month, in their order."""

BEATS_PRODUCTION = "staging_beats_production"
"""The check that holds the comparison of a month."""

OUTCOME_ASSETS = ("served_predictions", "served_outcomes", "served_mae")
"""What becomes of a month's quotes, in their order."""
