"""Addresses in Dagster's UI, built from the definitions that they lead to. Messages that were sent remember them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_origin
from urllib.parse import quote

import dagster as dg
from pydantic.fields import FieldInfo
from upath import UPath

from taxifare.approval.decisions import APPROVABLE
from taxifare.approval.records import Decision, Question, Request
from taxifare.operations.month_pages import address_of, page_in
from taxifare.trips.editions import BASE
from taxifare_dagster.assets.models import base_model, staging_model
from taxifare_dagster.assets.production import production_model
from taxifare_dagster.catalog import BEATS_PRODUCTION, CODE_LOCATION
from taxifare_dagster.jobs import (
    AnswerConfig,
    Repetition,
    Return,
    ask_again,
    ask_again_job,
    decide,
    decision_job,
    roll_back,
    rollback_job,
)


@dataclass(frozen=True)
class DagsterLinks:
    """The addresses of one installation, `taxifare.approval.message.Links`.

    Attributes:
        url: Of its webserver, DAGSTER_URL.
        lake: Where the pages of months are.
    """

    url: str
    lake: UPath

    def asset(self, name: str) -> str:
        """Returns the address of an asset's page."""
        return f"{self._root}/assets/{name}"

    def subject(self, subject: str) -> str:
        """Returns the address of the check that holds the comparison: of a month, or of `base`.

        It opens on the latest month that was compared, whose name its first line begins with.
        """
        asset, check = (base_model, "base_beats_reference") if subject == BASE else (staging_model, BEATS_PRODUCTION)
        return f"{self.asset(asset.__name__)}?view=checks&checkDetail={check}"

    def report(self, subject: str) -> str:
        """Returns the address of the page of a month, or of `base`, in the lake."""
        return address_of(page_in(self.lake, subject))

    def decision(self, request: Question, token: str, decision: Decision) -> str:
        """Returns the address of the launchpad with the decision's job filled in, but for who and why.

        Approving against the verdict is left for the person to spell out: a comment there says how.
        """
        known = {"request": request.id, "token": token, "decision": decision}
        against = []
        if decision == "approve" and isinstance(request, Request) and request.verdict not in APPROVABLE:
            against.append(f"The verdict is {request.verdict}. To approve all the same, change override to true.")
        return self._launchpad(decision_job, decide, AnswerConfig, known, against)

    def run(self, run_id: str) -> str:
        """Returns the address of a run's page."""
        return f"{self._root}/runs/{run_id}"

    def production(self) -> str:
        """Returns the address of the asset that follows production."""
        return self.asset(production_model.key.to_user_string())

    def way_back(self, to: str, token: str) -> str:
        """Returns the address of the launchpad with the rollback's job filled in, but for who and why."""
        return self._launchpad(rollback_job, roll_back, Return, {"to": to, "token": token})

    def asking_again(self, request: Request, token: str) -> str:
        """Returns the address of the launchpad with the job filled in that asks again."""
        return self._launchpad(ask_again_job, ask_again, Repetition, {"request": request.id, "token": token})

    def _launchpad(
        self,
        job: dg.JobDefinition,
        op: dg.OpDefinition,
        config: type[dg.Config],
        known: Mapping[str, str],
        remarks: Sequence[str] = (),
    ) -> str:
        """Returns the address of a job's launchpad with its op's config filled in, as far as it is known.

        What a person has to say is left empty, which Dagster refuses to launch: an empty text it would accept.
        """
        fields = [
            f"      {name}: {_yaml(field, known.get(name))}".rstrip() for name, field in config.model_fields.items()
        ]
        asked = [name for name, field in config.model_fields.items() if field.is_required() and name not in known]
        remarks = [*([f'Fill in {" and ".join(asked)}, each in "quotes".'] if asked else []), *remarks]
        written = "\n".join([*(f"# {said}" for said in remarks), "ops:", f"  {op.name}:", "    config:", *fields, ""])
        address = f"{self._root}/locations/{CODE_LOCATION}/jobs/{job.name}"
        return f"{address}/playground/setup?config={quote(written, safe='')}"

    @property
    def _root(self) -> str:
        return self.url.rstrip("/")


def _yaml(field: FieldInfo, value: str | None) -> str:
    """Returns the value of a field as YAML; without one its default, or nothing where a person has to say it."""
    if value is not None and get_origin(field.annotation) is Literal:
        return value
    if value is None and not field.is_required():
        return json.dumps(field.default)
    return "" if value is None else json.dumps(value)
