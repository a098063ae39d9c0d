"""Where the values of assets live: the lake, one parquet or JSON file per asset and month, local or in a bucket.

How a value is written and read, and nothing else: which runs are refused stands in `run_guards`, what values are in the
domain. Why a bucket is asked each time: docs/decisions.md, under taxifare_dagster.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import dagster as dg
import pandas as pd
from pydantic import BaseModel
from upath import UPath

from taxifare.training.base_trips import BaseTrips
from taxifare.trips.editions import Edition, Trips
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


class ParquetIOManager(LakeIOManager[Trips | pd.DataFrame]):
    """Trips as parquet, with their edition and target in the file; frames as they are. Annotations say what to read."""

    extension = ".parquet"

    def write(self, value: Trips | pd.DataFrame, path: UPath) -> None:
        """Writes the trips, marked, or the frame."""
        frame = _marked(value) if isinstance(value, Trips) else value
        with path.open("wb") as file:
            frame.to_parquet(file, index=False)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Trips | pd.DataFrame:
        """Returns the trips, or the frame where the input is one."""
        return self._frame(path) if context.dagster_type.typing_type is pd.DataFrame else self._trips(path)

    def stored(self, asset: str, partition: str) -> Trips | None:
        """Returns the trips that the lake holds of an asset's partition; None where it holds nothing."""
        return self.if_there(self._trips, f"{asset}/{partition}")

    def stored_frame(self, asset: str, partition: str) -> pd.DataFrame | None:
        """Returns the frame that the lake holds of an asset's partition; None where it holds nothing."""
        return self.if_there(self._frame, f"{asset}/{partition}")

    def _frame(self, path: UPath) -> pd.DataFrame:
        with path.open("rb") as file, pd.option_context("mode.string_storage", "pyarrow"):
            return pd.read_parquet(file)

    def _trips(self, path: UPath) -> Trips:
        """Returns the trips of a file.

        Raises:
            dg.Failure: They were made for another target, or do not say which edition they are.
        """
        frame = self._frame(path)
        marks, frame.attrs = frame.attrs, {}
        if not marks.keys() >= {"subject", "revision"}:
            raise dg.Failure(
                f"{path}: expected trips marked with their subject and revision, received {marks or 'no marks'}: "
                "materialize them again",
                allow_retries=False,
            )
        trips = Trips(Edition(marks["subject"], marks["revision"]), frame, marks.get("target"))
        if trips.target is not None:
            self.ensure_ours(trips.target, path)
        return trips


def _marked(trips: Trips) -> pd.DataFrame:
    """Returns the trips' frame with what they are in its `attrs`, which pandas writes into parquet files."""
    frame = trips.frame.copy(deep=False)
    frame.attrs = {"subject": trips.edition.subject, "revision": trips.edition.revision}
    if trips.target is not None:
        frame.attrs["target"] = trips.target
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
