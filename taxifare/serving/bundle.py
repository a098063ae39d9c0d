"""Bundles: a registered version as files that price rides without the software that trained it.

A bundle is a folder: the network for ONNX Runtime, a manifest that says which version it is and what it has learned,
and golden rides with the answers that the registered model gave. It is addressed by the digest of its files. Weights
with a changed byte would load without an error, so nothing is served unchecked.

`making` makes them.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import numpy.typing as npt
from upath import UPath

from taxifare.buckets import UnreachableError
from taxifare.digests import digest_of_digests
from taxifare.errors import ToldError
from taxifare.serving.rides import Limits, Moments, Rides
from taxifare.trips.cities import Airport, City, Rule
from taxifare.trips.city_files import CityFile
from taxifare.trips.features import RideFeatures
from taxifare.trips.meters import Fares, MeterStep, quoted

NETWORK, MANIFEST, GOLDEN = "network.onnx", "manifest.json", "golden.json"

FORMAT = 1
"""Of the manifest; a release reads only the formats that it knows."""

CENT = 0.005
"""Answers closer than this are the same to the cent, or to the hundredth of a minute."""

_DIGITS = 1e-5
"""So are those closer than this share of their value: in fares of thousands a network cannot resolve cents."""

_RANGES = ("longitude_range_deg", "latitude_range_deg", "night_hours", "rush_hours")
"""Those of a city's facts that are pairs."""

_ROWS = 4_096
"""Rides that go through the network at once: more take more memory and are no faster."""

Values = npt.NDArray[np.float32]


class BundleError(ToldError, RuntimeError):
    """A bundle cannot be served; says which one, what was expected and what was found."""


class Learned(msgspec.Struct, frozen=True):
    """Trips that the version has learned from: those of one revision with pickups in `[first_pickup, last_pickup]`."""

    subject: str
    revision: str
    first_pickup: datetime
    last_pickup: datetime


class Manifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a bundle is.

    Attributes:
        format: See `FORMAT`.
        model_name: Name of the registered model.
        version: Its number.
        run_id: The MLflow run that registered it.
        files_digest: Digest of the registered files.
        target: What it predicts.
        unit: The unit of its predictions.
        city: Where.
        facts: Facts of the city, as they were when the version was trained.
        limits: Limits within which it prices rides.
        correction_share: How far corrected predictions go towards the upper ones.
        features: Inputs of the network, in order.
        exposure: What it has learned.
        rules: The city's dated rules that were in force on some trip it has learned.
        meter: Steps in which fares are shown.
        libraries: Versions of the libraries that made the bundle.
        files: SHA-256 of each other file.
    """

    format: int
    model_name: str
    version: str
    run_id: str
    files_digest: str
    target: str
    unit: str
    city: str
    # Not as `City`: msgspec attaches something to the classes that it reads and writes which cannot be pickled, and
    # models carry these classes by value: the first month after a bundle was made could not be registered. Pydantic in
    # turn cannot read a dataclass that came with a model.
    facts: dict[str, Any]
    limits: Limits
    correction_share: float
    features: tuple[str, ...]
    exposure: tuple[Learned, ...]
    rules: tuple[str, ...]
    meter: tuple[MeterStep, ...]
    libraries: dict[str, str]
    files: dict[str, str]

    @cached_property
    def city_facts(self) -> City:
        """The city's facts; raises KeyError, TypeError or ValueError if they are not valid."""
        return city_of(self.facts)


def city_of(told: Mapping[str, Any]) -> City:
    """Returns a city from its facts, as read from JSON or taken from another release's `City`.

    >>> from dataclasses import asdict
    >>> from taxifare.trips.city_files import shipped
    >>> city_of(asdict(shipped("chicago").facts)) == shipped("chicago").facts
    True

    Raises:
        KeyError, TypeError, ValueError: They are not a city's facts.
    """
    ranges = {name: tuple(told[name]) for name in _RANGES}
    airports = tuple(Airport(**airport) for airport in told["airports"])
    rules = tuple(Rule(**rule | {"since": date.fromisoformat(str(rule["since"]))}) for rule in told["rules"])
    return City(**{**told, **ranges, "airports": airports, "rules": rules})


class Golden(msgspec.Struct, frozen=True):
    """Rides with the answers that the registered model gave, a list for each field of `Rides` and `Quotes`."""

    rides: dict[str, list[Any]]
    fare: list[float]
    upper: list[float]
    corrected: list[float]

    def as_rides(self) -> Rides:
        """Returns the rides as arrays."""
        told = self.rides
        west, south, east, north = (
            np.array(told[name], np.float64)
            for name in ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")
        )
        moments: Moments = np.array(told["pickup_datetime"], "datetime64[s]")
        return Rides(moments, west, south, east, north, np.array(told["passenger_count"], np.int64))


@dataclass(frozen=True)
class Quotes:
    """Answers to n rides, in the unit of the target, each of shape (n,).

    Attributes:
        fare: The prediction.
        upper: The upper prediction, never below `fare`.
        corrected: The prediction, raised to correct the bias of a model that predicts medians.
        quoted: The prediction as the meter in force would show it: the customer's quote.
    """

    fare: Values
    upper: Values
    corrected: Values
    quoted: Fares


class Bundle:
    """A version, loaded and checked.

    Attributes:
        manifest: What it is.
        digest: Of its files: its address.
    """

    def __init__(self, manifest: Manifest, digest: str, network: bytes, rules: tuple[Rule, ...]) -> None:
        self.manifest = manifest
        self.digest = digest
        self._rules = rules
        self._features = RideFeatures(manifest.city_facts)
        self._session = _session(network)
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def read(cls, folder: UPath, *, city: CityFile | None = None, target: str | None = None) -> "Bundle":
        """Returns the bundle in a folder or bucket; it answers its golden rides as the registered model did.

        A folder named by a digest holds the bundle with that digest, or none.

        Args:
            folder: Where it is.
            city: The city it must be of, with the dated rules known today; None: any city, with the rules of its day.
            target: The target it must predict; None: any.

        Raises:
            BundleError: It is not whole, was changed, is of another city or target, or answers differently.
            UnreachableError: Its bucket does not answer.
        """
        contents = {name: _content(folder, name) for name in (GOLDEN, MANIFEST, NETWORK)}
        found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        digest = digest_of_digests(found)
        if _is_digest(folder.name) and folder.name != digest:
            raise BundleError(
                f"bundle {_shown(folder)}: expected files of that digest, received {digest[:12]}: changed"
            )
        manifest = _manifest(contents[MANIFEST], folder)
        _ensure_right(manifest, {"city": None if city is None else city.slug, "target": target}, found, folder)
        _ensure_finite(contents[NETWORK], folder)
        try:
            rules = (manifest.city_facts if city is None else city.facts).rules
            bundle = cls(manifest, digest, contents[NETWORK], rules)
            golden = msgspec.json.decode(contents[GOLDEN], type=Golden)
            answers = bundle.quote(golden.as_rides())
        except Exception as error:  # the runtime may raise anything about a graph that does not fit
            raise BundleError(f"bundle {_shown(folder)} does not answer its golden rides: {error}") from error
        _ensure_golden(answers, golden, folder)
        return bundle

    def unlearned(self, pickup: datetime) -> tuple[str, ...]:
        """Returns the city's dated rules in force at a pickup that this version has learned nothing about."""
        learned = self.manifest.rules
        return tuple(rule.name for rule in self._rules if rule.since <= pickup.date() and rule.name not in learned)

    def quote(self, rides: Rides) -> Quotes:
        """Returns the answers to rides that can be priced, see `taxifare.serving.rides`."""
        outputs = np.empty((len(rides), 2), np.float32)
        for start in range(0, len(rides), _ROWS):
            some = rides[start : start + _ROWS]
            features = self._features.of(
                some.pickup_datetime,
                (some.pickup_longitude, some.pickup_latitude),
                (some.dropoff_longitude, some.dropoff_latitude),
                some.passenger_count,
            )
            outputs[start : start + _ROWS] = self._session.run(None, {self._input: np.ascontiguousarray(features)})[0]
        fare, upper = outputs.T
        corrected = fare + np.float32(self.manifest.correction_share) * (upper - fare)
        return Quotes(fare, upper, corrected, quoted(fare, rides.pickup_datetime, self.manifest.meter))


def read_manifest(folder: UPath) -> Manifest:
    """Returns the manifest of the bundle in a folder or bucket; its network is neither read nor checked.

    Raises:
        BundleError: There is none, or it is not a bundle's.
        UnreachableError: The bucket does not answer.
    """
    return _manifest(_content(folder, MANIFEST), folder)


def copy_bundle(bundle: UPath, folder: Path) -> None:
    """Ensures that a copy of a bundle is in a folder, whole or not at all; it is checked when it is read."""
    aside = folder.with_name(f".{uuid4().hex}")
    aside.mkdir(parents=True)
    try:
        for file in bundle.iterdir():
            (aside / file.name).write_bytes(file.read_bytes())
        with suppress(OSError):  # another process was quicker
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _session(network: bytes) -> Any:
    """Returns ONNX Runtime's session for a network, on one thread: there are many processes instead."""
    # Unless told not to, ONNX Runtime 1.32 writes an id of the machine to ~/.cache/Microsoft and reports to its maker.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # faults are raised instead
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def _content(folder: UPath, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except UnreachableError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"bundle {_shown(folder)}: expected a file {name}, received none") from None
    except OSError as error:
        raise BundleError(f"bundle {_shown(folder)}: {name} cannot be read: {error}") from None


def _manifest(content: bytes, folder: UPath) -> Manifest:
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
        _ = manifest.city_facts
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"bundle {_shown(folder)}: {MANIFEST} is not that of a bundle: {error}") from None
    if manifest.format != FORMAT:
        raise BundleError(f"bundle {_shown(folder)}: expected format {FORMAT}, received {manifest.format}")
    return manifest


def _ensure_right(
    manifest: Manifest, expected: Mapping[str, str | None], found: Mapping[str, str], folder: UPath
) -> None:
    for name, value in expected.items():
        received = getattr(manifest, name)
        if value is not None and received != value:
            raise BundleError(f"bundle {_shown(folder)}: expected {name.upper()}={value}, received {name} {received}")
    for name in (GOLDEN, NETWORK):
        if manifest.files.get(name) != found[name]:
            raise BundleError(
                f"bundle {_shown(folder)}: expected {name} with digest "
                f"{manifest.files.get(name, '')[:12]}, received {found[name][:12]}"
            )
    if manifest.features != RideFeatures(manifest.city_facts).names:
        raise BundleError(
            f"bundle {_shown(folder)}: expected the features {', '.join(RideFeatures(manifest.city_facts).names)}, "
            f"received {', '.join(manifest.features)}"
        )


def _ensure_finite(network: bytes, folder: UPath) -> None:
    """Ensures that all weights are finite: an embedding table has many rows that no golden ride looks up."""
    import onnx

    try:
        graph = onnx.load_model_from_string(network).graph
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as error:  # protobuf and onnx have no common error
        raise BundleError(f"bundle {_shown(folder)}: {NETWORK} cannot be read: {error}") from error
    unfit = [name for name, values in weights.items() if values.dtype.kind == "f" and not np.isfinite(values).all()]
    if unfit or not weights:
        raise BundleError(
            f"bundle {_shown(folder)}: expected weights that are numbers, received "
            f"{'others in ' + ', '.join(unfit) if unfit else 'none'}"
        )


def _ensure_golden(answers: Quotes, golden: Golden, folder: UPath) -> None:
    for name in ("fare", "upper", "corrected"):
        expected, received = np.array(getattr(golden, name)), getattr(answers, name)
        if not len(expected) or expected.shape != received.shape:
            raise BundleError(
                f"bundle {_shown(folder)}: expected an answer to each golden ride, received {expected.shape}"
            )
        off = ~(np.abs(expected - received) < np.maximum(CENT, _DIGITS * np.abs(expected)))
        if off.any():
            row = int(off.argmax())
            raise BundleError(
                f"bundle {_shown(folder)}: expected {name} {expected[row]:.2f} of golden ride {row}, "
                f"received {received[row]:.2f}"
            )


def _is_digest(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def _shown(folder: UPath) -> str:
    name = folder.name
    return name[:12] if _is_digest(name) else name
