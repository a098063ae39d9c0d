"""The code location: what `dagster dev` and the workspace load. The one module that reads the environment at import."""

from taxifare.settings import Settings
from taxifare_dagster.build import build_definitions

defs = build_definitions(Settings())
