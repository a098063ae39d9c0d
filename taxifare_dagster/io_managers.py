"""Where the values of assets live: the lake, one parquet or JSON file per asset and month, local or in a bucket.

How a value is written and read, and nothing else: which runs are refused stands in `run_guards`, what values are in the
domain. Why a bucket is asked each time: docs/decisions.md, under taxifare_dagster.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import dagster as dg
import pandas as pd
from pydantic import BaseModel
from upath import UPath

from taxifare.gate.slices import judged_features
from taxifare.training.base_trips import BaseTrips
from taxifare.training.large_months import drawn
from taxifare.trips.cities import City
from taxifare.trips.editions import Trips
from taxifare.trips.preparation import with_features
from taxifare.trips.stored import STORED, StoredTrips, marks_of
from taxifare.trips.table import TripTableError
from taxifare.trips.targets import TargetName
from taxifare.whole_files import whole_file

Value = TypeVar("Value")

Found = TypeVar("Found")

Model = TypeVar("Model", bound=BaseModel)


class LakeIOManager(dg.UPathIOManager, Generic[Value]):
    """Writes a value as a whole file, so that a killed run leaves the earlier value.

    Args:
        base_path: The lake.
        target: What its trips are to be learned for; those that were made ready for another target are refused.
    """

    def __init__(self, base_path: UPath, target: TargetName) -> None:
        super().__init__(base_path=base_path)
        self._target = target

    def ensure_ours(self, made_for: str, path: UPath) -> None:
        """Ensures that a file was made for this target.

        Raises:
            dg.Failure: It was made for another one.
        """
        if made_for != self._target:
            raise dg.Failure(
                f"{path}: expected trips for TARGET={self._target}, received trips for TARGET={made_for}. Set TARGET "
                "back, or use another TAXIFARE_HOME (and STORAGE_URI, DATABASE_URL)",
                allow_retries=False,
            )

    def make_directory(self, path: UPath) -> None:
        """Ensures that a local folder exists; a bucket needs none, and would be made where it is missing."""
        if path.protocol in {"", "file"}:
            super().make_directory(path)

    def dump_to_path(self, context: dg.OutputContext, obj: Value, path: UPath) -> None:
        """Ensures that the path holds the value, whole."""
        del context
        with whole_file(path) as unfinished:
            self.write(obj, unfinished)

    def place(self, asset: str, partition: str) -> UPath:
        """Returns where the value of an asset's partition is in the lake, which may be too large to load."""
        return self._base_path / asset / f"{partition}{self.extension}"

    def if_there(self, read: Callable[[UPath], Found], place: str) -> Found | None:
        """Returns what is read from a place in the lake; None where nothing is there."""
        try:
            return read(self._base_path / f"{place}{self.extension}")
        except FileNotFoundError:
            return None

    def write(self, value: Value, path: UPath) -> None:
        """Writes the value to the path."""
        raise NotImplementedError


class ParquetIOManager(LakeIOManager[Trips | StoredTrips | pd.DataFrame]):
    """Trips as parquet, with their edition and target in the file; frames as they are. Annotations say what to read.

    Features are not stored: they are computed when trips are read that were made ready.

    Args:
        base_path: The lake.
        target: What its trips are to be learned for.
        city: Gives the features; None where trips are read as they were written.
    """

    extension = ".parquet"

    def __init__(self, base_path: UPath, target: TargetName, city: City | None = None) -> None:
        super().__init__(base_path, target)
        self._city = city

    def write(self, value: Trips | StoredTrips | pd.DataFrame, path: UPath) -> None:
        """Writes the trips, marked, or the frame."""
        with path.open("wb") as file:
            if isinstance(value, StoredTrips):
                value.copy_to(file)
                return
            frame = self._marked(value) if isinstance(value, Trips) else value
            frame.to_parquet(file, index=False, write_page_checksum=True)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Trips | StoredTrips | pd.DataFrame:
        """Returns the trips, in memory or in their file, or the frame: as the input is annotated."""
        kind = context.dagster_type.typing_type
        if kind is pd.DataFrame:
            return self._frame(path)
        return self._open(path) if kind is StoredTrips else self._trips(path)

    def month(self, asset: str, partition: str) -> Trips | StoredTrips | None:
        """Returns what the lake holds of an asset's partition, in its file where it is large; None for nothing."""
        found = self.opened(asset, partition)
        return found.in_memory() if found is not None and found.fits_in_memory else found

    def opened(self, asset: str, partition: str) -> StoredTrips | None:
        """Returns what the lake holds of an asset's partition, in its file; None for nothing."""
        return self.if_there(self._open, f"{asset}/{partition}")

    def stored(self, asset: str, partition: str) -> Trips | None:
        """Returns the trips that the lake holds of an asset's partition; None where it holds nothing."""
        return self.if_there(self._trips, f"{asset}/{partition}")

    def stored_frame(self, asset: str, partition: str) -> pd.DataFrame | None:
        """Returns the frame that the lake holds of an asset's partition; None where it holds nothing."""
        return self.if_there(self._frame, f"{asset}/{partition}")

    def _frame(self, path: UPath) -> pd.DataFrame:
        with path.open("rb") as file, pd.option_context("mode.string_storage", "pyarrow"):
            return pd.read_parquet(file, page_checksum_verification=True)

    def _trips(self, path: UPath) -> Trips:
        """Returns the trips of a file, with features if they were made ready; of a large month, what is drawn of it.

        Raises:
            dg.Failure: As `_open`.
        """
        found = self._open(path)
        if found.target is None or self._city is None:
            return found.in_memory()
        if not found.fits_in_memory:
            return drawn(found, self._city, judged_features(self._city))
        trips = found.in_memory()
        return replace(trips, frame=with_features(trips.frame, self._city))

    def _open(self, path: UPath) -> StoredTrips:
        """Returns the trips of a file.

        Raises:
            dg.Failure: They were made for another target, or do not say which edition they are.
        """
        try:
            trips = StoredTrips(path.open("rb"))
        except TripTableError as error:
            raise dg.Failure(f"{path}: {error}: materialize them again", allow_retries=False) from error
        if trips.target is not None:
            self.ensure_ours(trips.target, path)
        return trips

    def _marked(self, trips: Trips) -> pd.DataFrame:
        """Returns the trips without features, and what they are in `attrs`, which pandas writes into parquet files."""
        frame = trips.frame[[name for name in trips.frame if name in STORED]]
        for name, value in marks_of(trips.edition, trips.target).items():
            frame.attrs[name] = value
        return frame


class BaseTripsIOManager(LakeIOManager[BaseTrips]):
    """The base years as a file that is opened, not read: they may be more than memory holds."""

    extension = ".parquet"

    def write(self, value: BaseTrips, path: UPath) -> None:
        """Writes the file of the trips."""
        with path.open("wb") as file:
            value.copy_to(file)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> BaseTrips:
        """Returns the trips; of a file in a bucket, the parts are fetched each time they are asked for."""
        del context
        return self._open(path)

    def stored(self) -> BaseTrips | None:
        """Returns what the lake holds of the base years; None where it holds nothing."""
        return self.if_there(self._open, "base_trips")

    def _open(self, path: UPath) -> BaseTrips:
        trips = BaseTrips(path.open("rb"))
        self.ensure_ours(trips.target, path)
        return trips


class JsonIOManager(LakeIOManager[BaseModel]):
    """Pydantic models as JSON; an input's type annotation says which model to read."""

    extension = ".json"

    def write(self, value: BaseModel, path: UPath) -> None:
        """Writes the model."""
        path.write_text(value.model_dump_json(indent=2))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Returns the model of the input's annotated type."""
        model: type[BaseModel] = context.dagster_type.typing_type
        return model.model_validate_json(path.read_text())

    def stored(self, asset: str, partition: str, model: type[Model]) -> Model | None:
        """Returns what the lake holds of an asset's partition, read as the model; None where it holds nothing."""
        return self.if_there(lambda path: model.model_validate_json(path.read_text()), f"{asset}/{partition}")
