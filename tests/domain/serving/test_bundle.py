"""A bundle answers as the registered model does, in a process that has nothing of what trained it, or not at all."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import numpy as np
import onnx
import pandas as pd
import pytest
from upath import UPath

from taxifare.digests import digest_of_files
from taxifare.model.packaging import _pickled_by_value, _pyfunc_model
from taxifare.serving.bundle import GOLDEN, MANIFEST, NETWORK, Bundle, BundleError, Manifest
from taxifare.serving.making import rides_of
from taxifare.trips.city_files import shipped
from tests.support.bundles import ABSENT_WHERE_SERVED, MODULES_THAT_SERVE, Made, copied

LIGHT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Absent())
import importlib
for name in sys.argv[2].split(","):
    importlib.import_module(name)

import json
import numpy as np
from upath import UPath
from taxifare.serving.bundle import Bundle, GOLDEN, Golden
import msgspec

folder = UPath(sys.argv[3])
golden = msgspec.json.decode((folder / GOLDEN).read_bytes(), type=Golden)
print(json.dumps(Bundle.read(folder).quote(golden.as_rides()).fare.tolist()))
"""


def test_it_answers_as_the_registered_model_to_the_cent(made: Made) -> None:
    quotes = made.bundle.quote(rides_of(made.trips))
    assert np.abs(quotes.fare - made.model.predict(made.trips)).max() < 0.001
    assert np.abs(quotes.corrected - made.model.predict(made.trips, corrected=True)).max() < 0.001
    assert (quotes.upper >= quotes.fare).all()
    assert (quotes.upper > quotes.fare).any()
    assert quotes.fare.dtype == np.float32


def test_a_ride_costs_the_same_alone_and_among_others(made: Made) -> None:
    rides, bundle = rides_of(made.trips)[:200], made.bundle
    alone = np.concatenate([bundle.quote(rides[row : row + 1]).fare for row in range(len(rides))])
    assert np.abs(alone - bundle.quote(rides).fare).max() < 0.0001


def test_a_customer_is_told_what_the_meter_can_show(made: Made) -> None:
    quotes = made.bundle.quote(rides_of(made.trips))
    steps = (quotes.quoted - 2.5) / 0.5
    assert np.abs(steps - steps.round()).max() < 1e-9
    assert np.abs(quotes.quoted - quotes.fare)[quotes.fare > 2.5].max() <= 0.2501


def test_no_rides_have_no_prices(made: Made) -> None:
    assert made.bundle.quote(rides_of(made.trips)[:0]).fare.shape == (0,)


def test_it_answers_in_a_process_that_has_nothing_of_what_trained_it(made: Made) -> None:
    arguments = [",".join(ABSENT_WHERE_SERVED), ",".join(MODULES_THAT_SERVE), made.folder.path]
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    golden = msgspec.json.decode((made.folder / GOLDEN).read_bytes())
    assert np.abs(np.array(msgspec.json.decode(done.stdout)) - golden["fare"]).max() < 0.005


def test_its_address_is_the_digest_of_its_files(made: Made) -> None:
    assert made.folder.name == digest_of_files(Path(made.folder.path)) == made.bundle.digest


def test_its_manifest_says_what_it_is_and_what_it_has_learned(made: Made) -> None:
    manifest, settings = made.bundle.manifest, made.settings
    assert (manifest.version, manifest.target, manifest.unit, manifest.city) == ("1", "fare", "USD", "new-york")
    assert manifest.city_facts == settings.city_facts
    assert manifest.files_digest == made.model.content.files_digest
    assert manifest.rules == ("tolls_2010_12", "fares_2012_09", "tolls_2013_03")
    assert made.bundle.unlearned(pd.Timestamp("2015-03-21 23:59").to_pydatetime()) == ()
    assert made.bundle.unlearned(pd.Timestamp("2015-03-22 00:00").to_pydatetime()) == ("tolls_2015_03",)


def test_one_changed_byte_is_refused(made: Made, tmp_path: Path) -> None:
    network = bytearray((made.folder / NETWORK).read_bytes())
    network[len(network) // 2] ^= 1
    damaged = copied(made.folder, tmp_path, {NETWORK: bytes(network)})
    with pytest.raises(BundleError, match=rf"bundle {made.folder.name[:12]}: expected files of that digest, received"):
        Bundle.read(damaged)
    # In a folder of another name the manifest tells.
    with pytest.raises(BundleError, match=r"expected network.onnx with digest \w{12}, received \w{12}"):
        Bundle.read(UPath(Path(damaged.path).rename(tmp_path / "some bundle")))


def nan_weights(content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    table = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(table).copy()
    values.flat[-1] = np.nan
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    return model.SerializeToString()


def other_weights(content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 2 and values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.01), tensor.name))
    return model.SerializeToString()


def without_answers(content: bytes) -> bytes:
    golden = msgspec.json.decode(content)
    return msgspec.json.encode(
        golden | {"fare": [], "upper": [], "corrected": []} | {"rides": {name: [] for name in golden["rides"]}}
    )


FORGERIES: Mapping[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "truncated": (NETWORK, lambda content: content[: len(content) // 2], "network.onnx cannot be read"),
    "empty": (NETWORK, lambda _: b"", "received none"),
    "NaN weights": (NETWORK, nan_weights, "expected weights that are numbers, received others in"),
    "other weights": (NETWORK, other_weights, r"expected fare \d+\.\d\d of golden ride \d+, received \d+\.\d\d"),
    "no golden rides": (GOLDEN, without_answers, "expected an answer to each golden ride"),
    "golden rides that are none": (GOLDEN, lambda _: b"[]", "does not answer its golden rides"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_bundle_whose_digests_were_put_right_is_refused_all_the_same(
    made: Made, tmp_path: Path, forgery: str
) -> None:
    name, change, said = FORGERIES[forgery]
    forged = copied(made.folder, tmp_path, {name: change((made.folder / name).read_bytes())}, forged=True)
    with pytest.raises(BundleError, match=said):
        Bundle.read(forged)


CHANGES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "format": ({"format": 2}, "expected format 1, received 2"),
    "features": ({"features": ["fare_amount"]}, "expected the features haversine_km.*received fare_amount"),
    "share": ({"correction_share": "all"}, "manifest.json is not that of a bundle"),
    "no version": ({"version": None}, "manifest.json is not that of a bundle"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_forged_manifest_is_refused(made: Made, tmp_path: Path, change: str) -> None:
    fields, said = CHANGES[change]
    manifest = msgspec.json.decode((made.folder / MANIFEST).read_bytes()) | fields
    with pytest.raises(BundleError, match=said):
        Bundle.read(copied(made.folder, tmp_path, {MANIFEST: msgspec.json.encode(manifest)}, forged=True))


def test_a_manifest_of_another_city_angle_does_not_pass_the_golden_rides(made: Made, tmp_path: Path) -> None:
    manifest = msgspec.json.decode((made.folder / MANIFEST).read_bytes(), type=Manifest)
    turned = msgspec.structs.replace(manifest, facts=manifest.facts | {"grid_angle_deg": 60.0})
    with pytest.raises(BundleError, match="of golden ride"):
        Bundle.read(copied(made.folder, tmp_path, {MANIFEST: msgspec.json.encode(turned)}, forged=True))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"city": shipped("chicago")}, "CITY=chicago, received city new-york"),
        ({"target": "duration"}, "TARGET=duration, received target fare"),
    ],
)
def test_another_city_or_target_is_refused(made: Made, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        Bundle.read(made.folder, **asked)


@pytest.mark.parametrize("name", [NETWORK, MANIFEST, GOLDEN])
def test_a_missing_file_is_named(made: Made, tmp_path: Path, name: str) -> None:
    copy = copied(made.folder, tmp_path, {})
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"expected a file {name}, received none"):
        Bundle.read(copy)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a file golden\.json, received none"):
        Bundle.read(UPath(tmp_path / "nowhere"))


def test_models_can_be_registered_after_a_bundle_was_made_and_read(made: Made) -> None:
    """What reads and writes bundles leaves nothing on the classes that models carry by value."""
    Bundle.read(made.folder)
    with _pickled_by_value():
        cloudpickle.dumps(_pyfunc_model(made.settings.city_facts, 0.3))
