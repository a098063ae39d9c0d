"""Addresses in Dagster's UI, built from the definitions that they lead to. Messages that were sent remember them."""

import json
from dataclasses import dataclass
from typing import Literal, get_origin
from urllib.parse import quote

from pydantic.fields import FieldInfo

from taxifare.approval.decisions import Decision
from taxifare.approval.records import Request
from taxifare.trips.editions import BASE
from taxifare.trips.months import parse_month
from taxifare_dagster.assets.models import base_model, staging_model
from taxifare_dagster.catalog import CODE_LOCATION
from taxifare_dagster.jobs import Answer, decide, decision_job
from taxifare_dagster.partitions import partition_key


@dataclass(frozen=True)
class DagsterLinks:
    """The addresses of one installation, `taxifare.approval.message.Links`.

    Attributes:
        url: Of its webserver, DAGSTER_URL.
    """

    url: str

    def asset(self, name: str) -> str:
        """Returns the address of an asset's page."""
        return f"{self._root}/assets/{name}"

    def subject(self, subject: str) -> str:
        """Returns the address of the model that may replace production: of a month, or of `base`."""
        if subject == BASE:
            return self.asset(base_model.__name__)
        month = partition_key(parse_month(subject))
        return f"{self.asset(staging_model.__name__)}?view=partitions&partition={month}"

    def decision(self, request: Request, token: str, decision: Decision) -> str:
        """Returns the address of the launchpad with the decision's job filled in, but for who and why."""
        known = {"request": request.id, "token": token, "decision": decision}
        answer = [f"      {name}: {_yaml(field, known.get(name))}" for name, field in Answer.model_fields.items()]
        config = "\n".join(["ops:", f"  {decide.name}:", "    config:", *answer, ""])
        job = f"{self._root}/locations/{CODE_LOCATION}/jobs/{decision_job.name}"
        return f"{job}/playground/setup?config={quote(config, safe='')}"

    @property
    def _root(self) -> str:
        return self.url.rstrip("/")


def _yaml(field: FieldInfo, value: str | None) -> str:
    """Returns the value of a field as YAML; without one its default, or the empty text that a person replaces."""
    if value is not None and get_origin(field.annotation) is Literal:
        return value
    if value is None and not field.is_required():
        return json.dumps(field.default)
    return json.dumps(value or "")
