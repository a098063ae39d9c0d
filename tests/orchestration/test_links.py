"""Where messages lead: the same addresses as in the messages that were sent, and they are of what there is."""

from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml
from upath import UPath

from taxifare.approval.records import Decision
from taxifare.gate.evidence import Verdict
from taxifare.settings import Settings
from taxifare_dagster.build import build_definitions
from taxifare_dagster.links import DagsterLinks
from tests.support.approvals import Office
from tests.support.ui import config_of

LINKS = DagsterLinks("http://127.0.0.1:3000/", UPath("/srv/lake"))


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_the_address_of_a_decision_is_that_of_messages_sent_before(office: Office, decision: Decision) -> None:
    request = office.ask("2015-03", "2", "1")
    assert LINKS.decision(request, "0123456789abcdef", decision) == (
        "http://127.0.0.1:3000/locations/taxifare_dagster.definitions/jobs/decision_job/playground/setup?config="
        "%23%20Fill%20in%20decided_by%20and%20reason%2C%20each%20in%20%22quotes%22.%0A"
        "ops%3A%0A%20%20decide%3A%0A%20%20%20%20config%3A%0A"
        f"%20%20%20%20%20%20request%3A%20%22{request.id}%22%0A"
        "%20%20%20%20%20%20token%3A%20%220123456789abcdef%22%0A"
        f"%20%20%20%20%20%20decision%3A%20{decision}%0A"
        "%20%20%20%20%20%20decided_by%3A%0A"
        "%20%20%20%20%20%20reason%3A%0A"
        "%20%20%20%20%20%20override%3A%20false%0A"
    )


def test_a_subject_leads_to_the_check_that_holds_its_comparison() -> None:
    month = "http://127.0.0.1:3000/assets/staging_model?view=checks&checkDetail=staging_beats_production"
    assert LINKS.subject("2015-03") == month
    assert (
        LINKS.subject("base") == "http://127.0.0.1:3000/assets/base_model?view=checks&checkDetail=base_beats_reference"
    )


@pytest.mark.parametrize(
    ("lake", "address"),
    [
        ("/srv/my lake", "file:///srv/my%20lake/reports/2015-03.html"),
        ("gs://wagon/lake", "https://storage.cloud.google.com/wagon/lake/reports/2015-03.html"),
        ("s3://wagon/lake", "s3://wagon/lake/reports/2015-03.html"),
    ],
)
def test_the_page_of_a_month_is_where_a_browser_finds_it(lake: str, address: str) -> None:
    assert DagsterLinks("http://127.0.0.1:3000/", UPath(lake)).report("2015-03") == address


def test_what_the_link_fills_in_is_what_the_job_takes(office: Office, settings: Settings) -> None:
    """All but who and why, which a person writes; the job's own schema is asked, not ours."""
    request = office.ask("2015-03", "2", "1")
    config = yaml.safe_load(
        config_of(LINKS.decision(request, office.approvals.answer_tokens(request)["reject"], "reject"))
    )
    written = {"decided_by": None, "reason": None, "override": False}
    shown = {"request": request.id, "token": office.approvals.answer_tokens(request)["reject"], "decision": "reject"}
    assert config["ops"]["decide"]["config"] == shown | written
    job = build_definitions(settings).resolve_job_def("decision_job")
    with pytest.raises(dg.DagsterInvalidConfigError, match="decided_by must not be None"):
        dg.validate_run_config(job, config)
    signed = {"decided_by": "Ada", "reason": "airports"}
    config["ops"]["decide"]["config"] |= signed
    assert dg.validate_run_config(job, config)["ops"]["decide"]["config"] == shown | written | signed


def test_a_link_that_approves_says_what_going_against_the_verdict_takes(office: Office) -> None:
    held, better = office.ask("2015-03", "2", "1", verdict=Verdict.HOLD), office.ask("2015-02", "3", "1")
    says = "# The verdict is HOLD. To approve all the same, change override to true.\n"
    assert says in config_of(LINKS.decision(held, "t", "approve"))
    assert says not in config_of(LINKS.decision(held, "t", "reject"))
    assert "The verdict" not in config_of(LINKS.decision(better, "t", "approve"))


def test_the_pages_are_those_of_assets_there_are(settings: Settings) -> None:
    assets = {key.to_user_string() for key in build_definitions(settings).resolve_asset_graph().get_all_asset_keys()}
    for subject in ("2015-03", "base"):
        assert urlsplit(LINKS.subject(subject)).path.removeprefix("/assets/") in assets
