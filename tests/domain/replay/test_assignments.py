"""What a process of a worker keeps between trainings: networks of this replay, though it has seen another."""

from pathlib import Path

import keras
import numpy as np

from taxifare.replay.assignments import _StoredParent
from taxifare.replay.results import Model
from taxifare.replay.store import TrainingStore


def test_replays_of_other_settings_have_networks_of_their_own(tmp_path: Path) -> None:
    """A lineage is called alike in both; a dask worker outlives a replay."""
    model = Model(
        key="1f", name="base", subject="base", lineage="1f", parent=None, exposure=(), correction_share=1.0, seconds=1.0
    )
    widths = {"narrow": 2, "wide": 5}
    for name, width in widths.items():
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width)])
        network.compile("adam")
        network.optimizer.build(network.trainable_variables)
        store = TrainingStore(tmp_path / name, "rows")
        store.folder.mkdir()
        store.put_network(model.key, network, is_new=True)
    for name, width in [*widths.items()] * 2:
        network = _StoredParent(model, TrainingStore(tmp_path / name, "rows")).network
        assert network(np.zeros((1, 3), np.float32)).shape == (1, width)
