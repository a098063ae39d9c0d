"""What clients of `mlflow models serve` send to `/invocations`: the same rides in four formats, read into one.

MLflow's forms: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from taxifare.serving.problems import ProblemError
from taxifare.serving.rides import Fault, shown

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


@dataclass(frozen=True)
class Call:
    """What was asked.

    Attributes:
        rows: The rides, by column; whether they are valid is not checked.
        corrected: Whether predictions are to be corrected for their bias, as our models' parameter `corrected` says.
    """

    rows: Sequence[Any]
    corrected: bool


def read(body: Any) -> Call:
    """Returns what was asked, in whichever format.

    Raises:
        ProblemError: It is in none of them.

    >>> read({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}).rows
    [{'a': 1, 'b': 2}]
    >>> read({"inputs": {"a": [1, 3], "b": [2, 4]}}).rows
    [{'a': 1, 'b': 2}, {'a': 3, 'b': 4}]
    """
    if not isinstance(body, dict):
        raise _unfit("body", f"an object with one of {', '.join(_FORMS)}", body)
    forms = [name for name in body if name in _FORMS]
    unknown = [name for name in body if name not in {*_FORMS, "params"}]
    if len(forms) != 1 or unknown:
        raise _unfit("body", f"one of {', '.join(_FORMS)}, and params", ", ".join(map(str, body)) or "nothing")
    return Call(_rows(forms[0], body[forms[0]]), _is_corrected(body.get("params")))


def _rows(form: str, found: Any) -> Sequence[Any]:
    if form == "dataframe_split":
        return _of_split(found)
    if form == "dataframe_records" or isinstance(found, list):
        if not isinstance(found, list):
            raise _unfit(form, "a list of objects, one a ride", found)
        return found
    if not isinstance(found, dict):
        raise _unfit(form, "a list of objects, one a ride, or an object of columns", found)
    return _of_columns(form, found)


def _of_split(found: Any) -> Sequence[Any]:
    if not isinstance(found, dict) or not {"columns", "data"} <= set(found) <= {"columns", "data", "index"}:
        raise _unfit("dataframe_split", "an object with columns and data", found)
    columns, rows = found["columns"], found["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _unfit("dataframe_split.columns", "a list of names", columns)
    if not isinstance(rows, list):
        raise _unfit("dataframe_split.data", "a list of rows", rows)
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise _unfit(f"dataframe_split.data[{number}]", f"a list of {len(columns)} values", row)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _of_columns(form: str, found: Mapping[str, Any]) -> Sequence[Any]:
    columns = {name: values if isinstance(values, list) else [values] for name, values in found.items()}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise _unfit(form, "columns of one length", ", ".join(f"{name}: {len(columns[name])}" for name in columns))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_corrected(params: Any) -> bool:
    if params is None:
        return False
    if not isinstance(params, dict) or set(params) - {"corrected"}:
        raise _unfit("params", "an object with nothing but corrected", params)
    corrected = params.get("corrected", False)
    if not isinstance(corrected, bool):
        raise _unfit("params.corrected", "true or false", corrected)
    return corrected


def _unfit(field: str, expected: str, received: object) -> ProblemError:
    fault = Fault(field, expected, shown(received))
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: expected {expected}", (fault,))
