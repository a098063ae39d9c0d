"""Orchestration: Dagster assets, checks, sensors and jobs around the domain library `taxifare`."""

import warnings

import dagster as dg

# Chosen with open eyes, the versions are pinned: checks by month are a preview, and dagster-mlflow is a beta.
warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)
warnings.filterwarnings("ignore", "(Class `MlFlow`|Function `_create_mlflow_run_hook`)", dg.BetaWarning)
# Dagster's own code passes this one.
warnings.filterwarnings("ignore", "Parameter `owners` of initializer `SensorDefinition", dg.BetaWarning)
