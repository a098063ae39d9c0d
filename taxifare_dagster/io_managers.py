"""Where the values of assets live: the lake, one parquet or JSON file per asset and month, local or in a bucket."""

from typing import Any, Generic, TypeVar

import dagster as dg
import pandas as pd
from pydantic import BaseModel
from upath import UPath

from taxifare.training.base_trips import BaseTrips
from taxifare.trips.targets import TARGET_MARK, TargetName
from taxifare.whole_files import whole_file

Value = TypeVar("Value")


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

    def write(self, value: Value, path: UPath) -> None:
        """Writes the value to the path."""
        raise NotImplementedError


class ParquetIOManager(LakeIOManager[pd.DataFrame]):
    """Frames as parquet; the edition of trips travels in the file."""

    extension = ".parquet"

    def write(self, value: pd.DataFrame, path: UPath) -> None:
        """Writes the frame with its `attrs`."""
        with path.open("wb") as file:
            value.to_parquet(file, index=False)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame:
        """Returns the frame with its `attrs`."""
        del context
        return self._read(path)

    def stored(self, asset: str, partition: str | None = None) -> pd.DataFrame | None:
        """Returns what the lake holds of an asset, or of one of its partitions; None where it holds nothing."""
        path = self._base_path / (asset if partition is None else f"{asset}/{partition}")
        try:
            return self._read(path.with_suffix(self.extension))
        except FileNotFoundError:
            return None

    def _read(self, path: UPath) -> pd.DataFrame:
        with path.open("rb") as file, pd.option_context("mode.string_storage", "pyarrow"):
            trips = pd.read_parquet(file)
        self.ensure_ours(trips.attrs.get(TARGET_MARK, self._target), path)
        return trips


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
        try:
            return self._open((self._base_path / "base_trips").with_suffix(self.extension))
        except FileNotFoundError:
            return None

    def _open(self, path: UPath) -> BaseTrips:
        trips = BaseTrips(path.open("rb"))
        self.ensure_ours(trips.target.name, path)
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
