"""How assets are grouped, owned and described in Dagster's catalog: the words that more than one asset uses."""

TRIPS_GROUP = "trips"
MODELS_GROUP = "models"
REPLAY_GROUP = "replay"
OWNERS = ["team:taxifare"]

TRIPS_KINDS = {"pandas", "parquet"}
MODEL_KINDS = {"tensorflow", "mlflow"}

PRODUCTION_POOL = "production_model"
"""Held by what trains from production: a backfill and a sensor run take turns on a small machine."""

MONTHLY_ASSETS = ("raw_new_data", "preprocessed_data", "rehearsal_trips", "production_eval_mae", "staging_model")
"""The assets of a month, in their order."""
