"""Making a bundle from a registered version: its network converted, and golden rides that the registered model answers.

It takes TensorFlow, MLflow and pandas, and some seconds; servers only read the result.
"""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
from upath import UPath

from taxifare.digests import digest_of_digests
from taxifare.model.packaging import LoadedModel
from taxifare.serving.bundle import (
    FORMAT,
    GOLDEN,
    MANIFEST,
    NETWORK,
    Bundle,
    BundleError,
    Golden,
    Learned,
    Manifest,
    city_of,
)
from taxifare.serving.rides import FIELDS, PLACES, Limits, Rides
from taxifare.settings import MlflowSettings
from taxifare.trips.cities import City
from taxifare.trips.features import MISSING_PASSENGERS, compute_features
from taxifare.whole_files import whole_file

if TYPE_CHECKING:
    import keras

_OPSET = 18

_GOLDEN_RIDES = 48

_REACH_YEARS = 10
"""How long after the last trip it has learned a version may be asked for prices."""

_LIBRARIES = ("keras", "numpy", "onnx", "onnxruntime", "tensorflow", "tf2onnx")


def make_bundle(model: LoadedModel, settings: MlflowSettings, bundles: UPath) -> str:
    """Returns the digest of the version's bundle, which is in its place, read back and checked.

    Args:
        model: The version, loaded from the registry.
        settings: Name the model, the city and the target.
        bundles: Folder or bucket of all bundles.

    Raises:
        BundleError: The version cannot be served: the converted network answers differently from the registered model.
    """
    network = _converted(model.network)
    golden = _answered(model, _golden_rides(model, facts_of(model)))
    contents = {GOLDEN: msgspec.json.format(msgspec.json.encode(golden), indent=1), NETWORK: network}
    manifest = _manifest(model, settings, _digests(contents))
    contents[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    digest = digest_of_digests(dict(sorted(_digests(contents).items())))
    folder = bundles / digest
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with whole_file(folder / name) as unfinished:
            unfinished.write_bytes(content)
    Bundle.read(folder, city=settings.city, target=settings.target)
    return digest


def rides_of(trips: pd.DataFrame) -> Rides:
    """Returns trips of the trip table as rides, in order; whether they can be priced is not checked."""
    west, south, east, north = (trips[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in PLACES)
    moments = trips["pickup_datetime"].to_numpy().astype("datetime64[s]")
    passengers = trips["passenger_count"].to_numpy(dtype=np.int64, na_value=MISSING_PASSENGERS)
    return Rides(moments, west, south, east, north, passengers)


def facts_of(model: LoadedModel) -> City:
    """Returns the city facts with which the version computes its features; they travel with it.

    Raises:
        BundleError: They are not where every release puts them.
    """
    python_model = model.model.unwrap_python_model()
    facts: Any = inspect.getclosurevars(inspect.unwrap(type(python_model).predict)).nonlocals.get("city")
    try:
        # Its class is a copy that came with the pickle.
        return city_of(asdict(facts))
    except (TypeError, KeyError, ValueError) as error:
        raise BundleError(
            f"version {model.version}: expected the facts of its city with it, received {error}"
        ) from None


def _manifest(model: LoadedModel, settings: MlflowSettings, files: Mapping[str, str]) -> Manifest:
    facts = facts_of(model)
    first = min(entry.first_pickup for entry in model.exposure)
    last = max(entry.last_pickup for entry in model.exposure)
    limits = Limits(
        longitude_range_deg=facts.longitude_range_deg,
        latitude_range_deg=facts.latitude_range_deg,
        most_passengers=facts.max_passengers,
        earliest=first.replace(hour=0, minute=0, second=0, microsecond=0),
        latest=last.replace(microsecond=0) + timedelta(days=366 * _REACH_YEARS),
    )
    return Manifest(
        format=FORMAT,
        model_name=settings.registered_model,
        version=model.version,
        run_id=model.content.run_id,
        files_digest=model.content.files_digest,
        target=settings.target,
        unit=settings.target_facts.unit,
        city=settings.city.slug,
        facts=asdict(facts),
        limits=limits,
        correction_share=model.correction_share,
        features=model.features,
        exposure=tuple(Learned(**entry.model_dump()) for entry in model.exposure),
        rules=tuple(rule.name for rule in facts.rules if rule.since <= last.date()),
        meter=settings.meter,
        libraries={name: version(name) for name in _LIBRARIES},
        files=dict(files),
    )


def _converted(network: "keras.Model") -> bytes:
    """Returns the means of the network's members, see `fitting.quote`, as an ONNX graph.

    It is left as translated: ONNX Runtime simplifies a graph when it loads it; in tf2onnx that would take four times as
    long as the translation.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tf2onnx.tfonnx import process_tf_graph

    from taxifare.model.fitting import means_of

    # Frozen first: otherwise what a layer holds besides its weights would become an input of the graph.
    means: Any = means_of(network)
    frozen = convert_variables_to_constants_v2(means.get_concrete_function())
    graph = process_tf_graph(
        frozen.graph,
        input_names=[tensor.name for tensor in frozen.inputs],
        output_names=[tensor.name for tensor in frozen.outputs],
        opset=_OPSET,
    )
    content: bytes = graph.make_model("taxifare").SerializeToString(deterministic=True)
    return content


def _golden_rides(model: LoadedModel, facts: City) -> pd.DataFrame:
    """Returns rides all over the city and the time the version has learned, also between airports; always the same.

    Most are where most rides are: around the middle of the box.
    """
    draws = np.random.default_rng(0)
    n, low, high = _GOLDEN_RIDES, *np.array([facts.longitude_range_deg, facts.latitude_range_deg]).T
    ends = (low + high) / 2 + draws.normal(0, 0.12, (2, n, 2)) * (high - low)
    airports = [(airport.longitude_deg, airport.latitude_deg) for airport in facts.airports]
    for place, airport in enumerate(airports):
        ends[place % 2, place :: 3 * len(airports)] = airport
    ends = np.clip(ends, low, high).round(6)
    first = min(entry.first_pickup for entry in model.exposure)
    last = max(entry.last_pickup for entry in model.exposure)
    moments = pd.Timestamp(first) + draws.random(n) * (pd.Timestamp(last) - pd.Timestamp(first) + timedelta(days=366))
    rides = pd.DataFrame(
        {
            "pickup_datetime": pd.DatetimeIndex(moments).floor("s").astype("datetime64[us]"),
            **dict(zip(PLACES, (*ends[0].T, *ends[1].T), strict=True)),
            "passenger_count": pd.array(draws.integers(1, facts.max_passengers + 1, n), dtype="Int32"),
        }
    )
    return rides[list(FIELDS)]


def _answered(model: LoadedModel, rides: pd.DataFrame) -> Golden:
    """Returns rides with what the registered model answers."""
    from taxifare.model.fitting import quote

    upper = quote(model.network, compute_features(rides, facts_of(model)).to_numpy())[:, 1]
    told: dict[str, list[Any]] = {name: rides[name].tolist() for name in FIELDS}
    told["pickup_datetime"] = rides["pickup_datetime"].dt.strftime("%Y-%m-%dT%H:%M:%S").tolist()
    fare, corrected = model.predict(rides), model.predict(rides, corrected=True)
    return Golden(told, fare.tolist(), upper.tolist(), corrected.tolist())


def _digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
