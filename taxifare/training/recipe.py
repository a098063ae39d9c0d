"""The recipe: what the result of a training depends on besides the trips and the model it starts from.

With the same recipe, trips and parent a training gives the same model, so it is not done twice; when a thing changes
that it depends on, another model is trained. What is new – a setting of the training group, a fact of the city, a
number at the head of a module – belongs to it without being named here. Code is no part of it: a version keeps its
place when a line is rewritten, and the MLflow run says which commit trained it.
"""

import importlib
from collections.abc import Iterable
from dataclasses import fields
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from taxifare.digests import digest, modules_behind
from taxifare.settings import TrainingSettings
from taxifare.training import challengers
from taxifare.training.from_random_weights import architectures_of
from taxifare.trips.features import feature_names
from taxifare.trips.targets import Target

_REGISTRY = "taxifare.model.registry"

_APART = frozenset(
    {
        "taxifare.secrets",
        "taxifare.sources.whole_months",
        "taxifare.trips.city_files",
        "taxifare.trips.clock",
        "taxifare.trips.stored",
        "taxifare.trips.table",
        "taxifare.trips.text_files",
        "taxifare.trips.wholeness",
    }
)


def recipe(settings: TrainingSettings) -> dict[str, Any]:
    """Returns everything that the result of a training depends on besides its trips and its parent, as plain values.

    - `settings`: the training group, whole.
    - `city`: box, angle of the streets, airports, dated rules, hours.
    - `target`: its limits.
    - `features`: their names, in order.
    - `architectures`: the shapes of new networks by the least number of trips, overrides of the settings included.
    - `renewal`: how a network is trained on.
    - `numbers`: the constants of the modules that trainings are made of: shares held, windows, half-lives, limits.
    """
    facts: dict[str, Any] = to_jsonable_python(
        {
            "settings": settings.model_dump(mode="json", include=set(TrainingSettings.model_fields)),
            "city": settings.city_facts,
            "target": _limits_of(settings.target_facts),
            "features": feature_names(settings.city_facts),
            "architectures": architectures_of(settings),
            "renewal": challengers.RENEWAL,
            "numbers": sorted(_numbers()),
        }
    )
    return facts


def fingerprint(settings: TrainingSettings, **inputs: object) -> str:
    """Returns a short text that changes when the recipe does, or one of the inputs, which are what JSON can hold."""
    return digest({"recipe": recipe(settings), **inputs})


def _limits_of(target: Target) -> dict[str, float]:
    """Returns whatever of the target is a number; the rest is words about it, or follows from its name."""
    values = {field.name: getattr(target, field.name) for field in fields(target)}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _numbers() -> Iterable[str]:
    """Returns the constants at the head of the modules that trainings are made of, each once, as `NAME=value`.

    Constants are named alike wherever they are used and wherever they may be moved to, so the module is not named.
    """
    return {
        f"{name}={value}"
        for module in map(importlib.import_module, _modules())
        for name, value in vars(module).items()
        if name.isupper() and _is_measure(value)
    }


def _is_measure(value: object) -> bool:
    """Returns whether a constant is a number, a moment or a span of time, or several of them."""
    if isinstance(value, tuple):
        return all(map(_is_measure, value))
    return isinstance(value, int | float | np.generic | date | timedelta) and not isinstance(value, bool)


@cache
def _modules() -> frozenset[str]:
    """Returns the modules that trainings are made of: those of this package with what they import.

    What talks to the model registry trains nothing itself: how long MLflow is waited for changes no model. Nor does
    what settings keep secret, and how; what a city file may say is no fact of a city; and how published rows become
    trips is part of their revision. Which months are whole, and what is drawn of a large one, is among the inputs.
    """
    own = (name for name in modules_behind(__package__) if name.startswith(__package__))
    behind = (modules_behind(name) for name in own)
    return frozenset().union(*(names for names in behind if _REGISTRY not in names)) - _APART
