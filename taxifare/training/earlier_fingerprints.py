"""Fingerprints as release 431839f made them: a month that was compared then keeps its version when it is run again.

That release wrote down less than `recipe` does. A training is looked up by what it wrote only while all else is as it
was then, and the settings say what its settings could say. It can go when no month is run again that was compared by
that release; nothing else depends on it.
"""

import hashlib
import json
from collections.abc import Mapping

from taxifare.digests import digest
from taxifare.settings import TrainingSettings
from taxifare.training.recipe import recipe

_OVERRIDES = {"learning_rate": 0.01, "batch_size": 512, "max_epochs": 4}
"""Settings that shapes and renewals multiplied, with their defaults of then. Other values have no equivalent now."""

_REST_OF_THE_RECIPE = {
    ("new-york", "fare"): "4e4f61416c8e0035",
    ("new-york", "duration"): "152ffe1aa3da7ddb",
    ("chicago", "fare"): "6e65fad905faa116",
    ("chicago", "duration"): "433c883fedb9f5d4",
}
"""Digests of what else belonged to a training at that release, and was not written down."""

_ARCHITECTURES = (
    "{{0: Architecture(members=1, dense_widths=({}, {}), cells_km=(0.2, 0.8), cell_width=4, jitter_km=0.08, "
    "way_cell_km=0.8, way_width=8, way_points=4, distance_steps=24, distance_width=4, hour_width=8, week_width=8, "
    "levels_a_year=1, epochs_factor=1, batch_factor=1), "
    "120000: Architecture(members=2, dense_widths=({}, {}), cells_km=(0.2, 0.8), cell_width=4, jitter_km=0.08, "
    "way_cell_km=0.8, way_width=8, way_points=4, distance_steps=24, distance_width=4, hour_width=8, week_width=8, "
    "levels_a_year=1, epochs_factor=2, batch_factor=4), "
    "300000: Architecture(members=4, dense_widths=({}, {}), cells_km=(0.1, 0.3, 1.0), cell_width=4, jitter_km=0.08, "
    "way_cell_km=0.5, way_width=16, way_points=8, distance_steps=24, distance_width=4, hour_width=8, week_width=8, "
    "levels_a_year=1, epochs_factor=2, batch_factor=4)}}"
)


def fingerprint_at_431839f(settings: TrainingSettings, inputs: Mapping[str, object]) -> str | None:
    """Returns what that release called the training of these inputs, None where it would have trained otherwise."""
    facts = recipe(settings.model_copy(update={"dense_width_factor": 1.0}))
    written = facts.pop("settings")
    if digest(facts) != _REST_OF_THE_RECIPE.get((settings.city.slug, settings.target)):
        return None
    if any(written[name] is not None for name in _OVERRIDES):
        return None
    widths = [max(1, round(width * settings.dense_width_factor)) for width in (64, 32, 128, 64, 256, 128)]
    then = {
        **inputs,
        "features": facts["features"],
        "architectures": _ARCHITECTURES.format(*widths),
        "settings": {name: value for name, value in written.items() if name != "city"}
        | {"dense_width_factor": settings.dense_width_factor}
        | _OVERRIDES,
    }
    return hashlib.sha256(json.dumps(then, sort_keys=True).encode()).hexdigest()
