"""A bundle of a small model, made once for all tests of serving."""

from collections.abc import Callable

import pytest
from upath import UPath

from taxifare.model.registry import ModelRegistry
from taxifare.serving.making import make_bundle
from taxifare.settings import Settings
from tests.support.bundles import Made
from tests.support.small import base_file, clean_month, small_settings, train, version_of


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, open_registry: Callable[[Settings], ModelRegistry]) -> Made:
    """Version 1 of a small city's fares, and its bundle."""
    settings = small_settings(tmp_path_factory.mktemp("made") / "state", mlflow_tracking_uri=None)
    registry = open_registry(settings)
    version = version_of(train(base_file(settings), None, registry, settings, "run-1"))
    model = registry.load(version)
    bundles = UPath(tmp_path_factory.mktemp("bundles"))
    digest = make_bundle(model, settings, bundles)
    return Made(settings, model, bundles / digest, clean_month(settings, "2015-01").frame)
