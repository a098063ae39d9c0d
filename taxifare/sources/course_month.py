"""A month of data that appears, as in the Le Wagon course: fetched from the course's files into TRIP_FOLDER.

The workflow then sees it as it sees any file that somebody puts there. The files carry a mark, by which those that were
fetched, and no others, are taken away again.
"""

from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from taxifare.buckets import is_local
from taxifare.settings import FolderSettings, Settings
from taxifare.sources.base import SourceError
from taxifare.sources.folder import Folder, month_name
from taxifare.sources.lewagon import LeWagon
from taxifare.sources.web import OnDownload, Web, log_download
from taxifare.trips.months import Month
from taxifare.whole_files import whole_file

_MARK = {b"taxifare": b"new-data"}


def fetch(month: Month, settings: Settings, on_download: OnDownload = log_download) -> UPath:
    """Returns the file in TRIP_FOLDER that the month has been fetched into; `on_download` is told how much has arrived.

    Raises:
        SourceError: Trips do not come from a folder, it has the month already, or the course's files do not.
    """
    folder = _folder(settings)
    if is_local(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    if folder.has(month):
        raise SourceError(f"{folder.path}: month {month} is there already; `taxifare delete-new-data` takes it away")
    file = folder.path / _file_name(folder.months_pattern, month)
    course = LeWagon.from_settings(settings, Web(settings.downloads, on_download=on_download))
    table = pa.Table.from_pandas(course.read_month(month).trips, preserve_index=False)
    marked = table.replace_schema_metadata((table.schema.metadata or {}) | _MARK)
    with whole_file(file) as unfinished, unfinished.open("wb") as opened:
        pq.write_table(marked, opened)
    return file


def withdraw(settings: FolderSettings) -> list[UPath]:
    """Returns the files that `fetch` had put into TRIP_FOLDER and that are no longer there.

    Raises:
        SourceError: Trips do not come from a folder.
    """
    folder = _folder(settings)
    named = month_name(folder.months_pattern)
    files = sorted(
        file for file in folder.path.glob("[!.]*.parquet") if named.fullmatch(file.name) and _is_marked(file)
    )
    for file in files:
        file.unlink()
    return files


def _folder(settings: FolderSettings) -> Folder:
    if settings.trip_source != "folder":
        raise SourceError(
            f"new data is put into a folder, and TRIP_SOURCE is {settings.trip_source}, where months appear by "
            "themselves: set TRIP_SOURCE=folder and TRIP_FOLDER"
        )
    return Folder.from_settings(settings)


def _file_name(pattern: str, month: Month) -> str:
    """Returns a parquet file's name that the pattern fits.

    Raises:
        SourceError: It fits no such name.

    >>> from taxifare.trips.months import parse_month
    >>> _file_name("taxi_{month:%Y_%m}.*", parse_month("2015-01"))
    'taxi_2015_01.parquet'
    """
    first_day = datetime(month.year, month.month, 1)
    name = pattern.format(month=first_day).removesuffix("*").removesuffix(".parquet").rstrip(".")
    name = f"{name.replace('*', '').replace('?', '_')}.parquet"
    if not month_name(pattern).fullmatch(name):
        raise SourceError(f"TRIP_FOLDER_MONTHS={pattern} fits no parquet file, which new data is: end it with .*")
    return name


def _is_marked(file: UPath) -> bool:
    with file.open("rb") as opened:
        return (pq.read_schema(opened).metadata or {}).items() >= _MARK.items()
