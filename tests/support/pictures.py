"""`make pictures`: the pictures of README and docs that show pages, in Chromium on the state that `make demo` leaves.

Beside the pictures it writes, for each, a digest of the code that draws what is on it: a test compares them, so that no
picture is older than what it shows. Comments, docstrings and code that a picture does not show change no digest.
"""

import ast
import hashlib
import inspect
import io
import json
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from PIL import Image
from playwright.sync_api import Locator, Page

from taxifare.model import story
from taxifare.model.runs import PAGES_ADDRESS
from taxifare.reports import figures, month_page
from taxifare.serving import openapi
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings, settings_in_force
from taxifare_dagster import links, metadata
from taxifare_dagster.assets import models
from taxifare_dagster.build import build_definitions
from taxifare_dagster.catalog import CODE_LOCATION
from tests.support.browser import browser
from tests.support.places import REPOSITORY
from tests.support.servers import free_port, server_process

IMAGES = REPOSITORY / "docs" / "images"
DIGESTS = IMAGES / "pictures.json"
MOST_BYTES = 200_000
_GROUPS = ("trips", "models")
_WITHOUT_HOME = """(home) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.nodeValue = texts.currentNode.nodeValue.replaceAll(home, "state");
}"""
"""Where somebody's state is, is nobody else's business."""


@dataclass(frozen=True)
class Places:
    """Where what is to be seen is served.

    Attributes:
        dagster: Dagster's UI.
        service: Prices rides.
        lake: Has the pages of months.
    """

    dagster: str
    service: str
    lake: Path


def asset_graph(page: Page, places: Places) -> Page:
    """The graph of trips and models."""
    chosen = " or ".join(f'group:"{group}"' for group in _GROUPS)
    groups = ",".join(f"global@global:{group}" for group in _GROUPS)
    page.set_viewport_size({"width": 1800, "height": 1800})
    page.goto(f"{places.dagster}/asset-groups~{quote(chosen)}?{urlencode({'expanded': groups})}")
    page.get_by_text("6 partitions", exact=True).first.wait_for()
    return page


def production_eval_mae(page: Page, places: Places) -> Page:
    """The first page to look at."""
    page.goto(f"{places.dagster}/assets/production_eval_mae")
    page.get_by_text("mae_usd", exact=True).wait_for()
    return page


def all_months(page: Page, places: Places) -> Locator:
    """All months in one picture: what its first row shows."""
    production_eval_mae(page, places)
    page.get_by_text("[Show Markdown]").first.click()
    return page.locator("img[alt=plot]")


def staging_beats_production(page: Page, places: Places) -> Page:
    """The verdict, where the message leads."""
    page.set_viewport_size({"width": 1400, "height": 1250})
    page.goto(f"{places.dagster}/assets/staging_model?view=checks&checkDetail=staging_beats_production")
    page.get_by_text("answer", exact=True).wait_for()
    return page


def month_in_plain_words(page: Page, places: Places) -> Page:
    """The page of June."""
    page.set_viewport_size({"width": 1000, "height": 1080})
    page.goto((places.lake / "reports" / "2015-06.html").as_uri())
    return page


def decision_launchpad(page: Page, places: Places) -> Page:
    """Where the message's link `Approve` leads, who and why filled in."""
    approvals = approvals_of(settings_in_force())
    (asked,) = approvals.record.open_requests()
    tokens = approvals.answer_tokens(asked)
    address = links.DagsterLinks(places.dagster, settings_in_force().lake).decision(asked, tokens["approve"], "approve")
    page.set_viewport_size({"width": 1400, "height": 700})
    page.goto(address)
    for field, text in (("decided_by", "Ada Lovelace"), ("reason", "June's lesson is worth it")):
        page.locator(".CodeMirror-line", has_text=f"{field}:").click()
        page.keyboard.press("End")
        page.keyboard.insert_text(f' "{text}"')
        page.keyboard.press("Escape")
    page.locator(".CodeMirror-line", has_text="override: false").click()
    page.keyboard.press("End")
    for _ in "false":
        page.keyboard.press("Backspace")
    page.keyboard.insert_text("true")
    page.keyboard.press("Escape")
    return page


def production_model(page: Page, places: Places) -> Page:
    """Who became production, when, by whose decision and why."""
    page.set_viewport_size({"width": 1700, "height": 1150})
    page.goto(f"{places.dagster}/assets/production_model")
    page.get_by_text("decided_by", exact=True).wait_for()
    return page


def mlflow_version(page: Page, places: Places) -> Page:
    """The version in production, in MLflow's own pages."""
    page.set_viewport_size({"width": 1400, "height": 1150})
    page.goto(f"{PAGES_ADDRESS}/#/models/taxifare/versions/3")
    page.get_by_text("production", exact=False).first.wait_for()
    page.get_by_text("MLflow Assistant").locator("xpath=following::button[3]").click()
    return page


def service_docs(page: Page, places: Places) -> Page:
    """What the service answers to."""
    page.set_viewport_size({"width": 1200, "height": 620})
    page.goto(f"{places.service}/docs")
    return page


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        shows: Brings it before the browser's eyes; returns the page, or the part of it that is taken.
        drawn_by: The functions and modules that draw what is on it.
        tells: Returns what else is on it.
    """

    shows: Callable[[Page, Places], Page | Locator]
    drawn_by: Sequence[Any] = ()
    tells: Callable[[], str] = str


def _graph() -> str:
    """The assets of the graph, what they are made from, and their checks."""
    graph = build_definitions(Settings(_env_file=None)).resolve_asset_graph()
    nodes = (graph.get(key) for key in sorted(graph.get_all_asset_keys()) if graph.get(key).group_name in _GROUPS)
    checks = sorted(str(node.key) for node in graph.asset_check_nodes)
    return str([(node.key, sorted(node.parent_keys), sorted(node.kinds)) for node in nodes]) + str(checks)


PICTURES: Mapping[str, Picture] = {
    "asset-graph": Picture(asset_graph, tells=_graph),
    "production-eval-mae": Picture(
        production_eval_mae, (metadata.appraisal,), lambda: str(models.production_eval_mae.__doc__)
    ),
    "all-months": Picture(all_months, (figures.drawn_over_time,)),
    "staging-beats-production": Picture(
        staging_beats_production, (metadata.comparison, metadata.answer, metadata.slices)
    ),
    "month-in-plain-words": Picture(
        month_in_plain_words,
        (month_page,),
        lambda: Path(month_page.__file__).with_name("templates").joinpath("month.html").read_text(),
    ),
    "decision-launchpad": Picture(decision_launchpad, (links.DagsterLinks.decision,)),
    "production-model": Picture(production_model, (metadata.promotion, metadata.served)),
    "mlflow-version": Picture(mlflow_version, (story,)),
    "service-docs": Picture(service_docs, (openapi,)),
}


def digests() -> dict[str, str]:
    """What is drawn on each picture now, as digests."""
    return {
        name: hashlib.sha256("".join([*map(_code, picture.drawn_by), picture.tells()]).encode()).hexdigest()[:16]
        for name, picture in PICTURES.items()
    }


def _code(drawn_by: Any) -> str:
    """Code without comments and docstrings, which nobody sees."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(drawn_by)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def take(names: Sequence[str]) -> None:
    """Ensures that the pictures are of the state in force, which `make demo` has left; their digests are on record."""
    settings, drawn = settings_in_force(), digests()
    dagster, service = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    places = Places(f"http://{dagster}", f"http://{service}", Path(str(settings.lake)))
    environment = {**os.environ, "TAXIFARE_HOME": str(settings.home), "SERVICE_LISTEN": service}
    log = settings.home / "pictures.log"
    with ExitStack() as running:

        def serve(url: str, *words: str) -> None:
            running.enter_context(server_process([sys.executable, "-m", *words], url, log, environment))

        # The webserver without the daemon, whose sensors would change what there is to see.
        home = {"DAGSTER_HOME": str(settings.home / "dagster")}
        environment |= home
        host, port = dagster.split(":")
        webserver = ("dagster_webserver", "-m", CODE_LOCATION, "-h", host, "-p", port)
        serve(f"{places.dagster}/server_info", *webserver)
        serve(f"{places.service}/health/ready", "taxifare.serving")
        pages = ("mlflow", "server", "--backend-store-uri", settings.tracking_uri, "--workers", "1")
        serve(f"{PAGES_ADDRESS}/health", *pages)
        chromium = running.enter_context(browser())
        if chromium is None:
            raise SystemExit("the pictures are taken in Chromium: apt-get install chromium")
        for name in names:
            page = chromium.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(120_000)
            shown = PICTURES[name].shows(page, places)
            page.wait_for_timeout(4_000)
            page.mouse.move(0, 0)
            page.evaluate(_WITHOUT_HOME, str(settings.home.absolute()))
            (IMAGES / f"{name}.png").write_bytes(_small(shown.screenshot()))
            page.close()
            print(name, flush=True)
    known = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    taken = {name: drawn[name] if name in names else known.get(name) for name in PICTURES}
    DIGESTS.write_text(json.dumps(taken, indent=2) + "\n")


def _small(png: bytes) -> bytes:
    """The picture in as many colors as a page has."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    take(sys.argv[1:] or list(PICTURES))
