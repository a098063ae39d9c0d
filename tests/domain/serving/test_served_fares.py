"""The service's fares are the registered model's, alone and in a batch, by whichever door."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from taxifare.trips.columns import KNOWN_AT_PICKUP
from tests.support.bundles import Made
from tests.support.services import installation

CENT = 0.005

pytestmark = pytest.mark.end_to_end


def test_fares_are_those_of_the_registered_model_to_the_cent(made: Made, tmp_path: Path) -> None:
    trips = made.trips.head(400)
    rides: list[dict[str, Any]] = [
        {
            "pickup_datetime": trip.pickup_datetime.strftime("%Y-%m-%d %H:%M:%S"),
            "pickup_longitude": float(trip.pickup_longitude),
            "pickup_latitude": float(trip.pickup_latitude),
            "dropoff_longitude": float(trip.dropoff_longitude),
            "dropoff_latitude": float(trip.dropoff_latitude),
            "passenger_count": None if trip.passenger_count is None else int(trip.passenger_count),
        }
        for trip in trips.astype({"passenger_count": object}).where(trips.notna(), None).itertuples()
    ]
    with installation(tmp_path) as service:
        service.start(SERVICE_MODEL_PATH=made.folder.path)
        asked = [{"ride_id": number, "ride": ride} for number, ride in enumerate(rides)]
        together = service.post("/predict/batch", {"rides": asked}).json()["answers"]
        alone = [service.post("/predict", each).json() for each in asked[:40]]
        client = ScoringServerClient("127.0.0.1", service.port)
        client.ping()
        as_mlflow = client.invoke(trips[list(KNOWN_AT_PICKUP)]).get_predictions()
    fares = np.array([answer["fare"] for answer in together])
    assert np.abs(fares - made.model.predict(trips)).max() < CENT
    corrected = np.array([answer["corrected"] for answer in together])
    assert np.abs(corrected - made.model.predict(trips, corrected=True)).max() < CENT
    assert np.abs(np.array([answer["fare"] for answer in alone]) - fares[:40]).max() < CENT
    assert as_mlflow.squeeze().tolist() == fares.tolist()
