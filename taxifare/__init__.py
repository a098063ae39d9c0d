"""The domain library: trips in, fares, verdicts and decisions out. It never imports dagster."""

import os

# TensorFlow writes a page about the processor and missing graphics cards; real faults still raise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# MLflow tells its makers, unless it is told not to, which of its functions are used.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
