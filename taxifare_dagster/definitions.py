"""The code location: what `dagster dev` and the workspace load. The one module that reads the environment at import."""

from taxifare.settings import settings_in_force
from taxifare_dagster.build import build_definitions

defs = build_definitions(settings_in_force())
