"""The whole software as its operator has it: `make dev`, an MLflow server and a chat; started once for all tests."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import requests
import yaml
from playwright.sync_api import Browser, Page, expect

from taxifare.approval.ledger import Ledger
from taxifare.approval.records import Delivery, Outcome, Promotion, Refusal, Request
from tests.support.browser import browser
from tests.support.servers import Chat, chat_server, dagster_dev, mlflow_server
from tests.support.ui import Run, Ui, eventually

CHANNEL = "batch 1234"
COURSE_FORMAT = re.compile(r"Evaluation MAE: (none|\d+\.\d\d) - New training MAE: (\d+\.\d\d)\n")
SMALL = {
    "SIMULATOR_TRIPS_PER_MONTH": "1500",
    "SIMULATOR_BASE_TRIPS": "4000",
    "DATASET_SIZE": "3000",
    "BATCH_SIZE": "64",
    "LEARNING_RATE": "0.003",
    "MAX_EPOCHS": "1",
    "REHEARSAL_TRIPS": "1500",
    "CHALLENGERS": "warm",
    "LAST_MONTH": "2015-06",
}
"""Settings under which a month is trained in a second."""

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser | None]:
    """Chromium, without a window; None where it is not installed."""
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def page(chromium: Browser | None) -> Page:
    """A page in Chromium."""
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    page = chromium.new_page(viewport={"width": 1500, "height": 1100})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    return page


@dataclass(frozen=True)
class Question:
    """A message as the chat shows it."""

    text: str

    @property
    def errors(self) -> tuple[str, str]:
        """Production's and staging's error as the first line has them; fails unless it is exactly as in the course."""
        begin = COURSE_FORMAT.match(self.text)
        assert begin, self.text
        return begin[1], begin[2]

    @property
    def subject(self) -> str:
        """The month, or base."""
        return self.text.splitlines()[1].partition(":")[0]

    @property
    def verdict(self) -> str:
        """The verdict."""
        return re.split("[:,]", self.text.splitlines()[1])[1].strip()

    @property
    def request(self) -> str:
        """The request."""
        return self.text.splitlines()[-1].removeprefix("Request ")

    def link(self, name: str) -> str:
        """The address behind `Approve`, `Reject` or `See`."""
        return next(line for line in self.text.splitlines() if line.startswith(f"{name}: ")).removeprefix(f"{name}: ")

    def config(self, answer: Mapping[str, object] | None = None, link: str = "Approve") -> dict[str, Any]:
        """The run config that a person launches: that of the link, with what they fill in."""
        config: dict[str, Any] = yaml.safe_load(parse_qs(urlparse(self.link(link)).query)["config"][0])
        config["ops"]["decide"]["config"] |= answer or {}
        return config


@dataclass(frozen=True)
class Books:
    """What the ledger says at a moment."""

    requests: list[Request]
    outcomes: dict[str, Outcome]
    deliveries: list[Delivery]
    promotions: list[Promotion]
    refusals: list[Refusal]

    def asked(self, subject: str) -> list[Request]:
        """The requests about a subject, oldest first."""
        return [request for request in self.requests if request.subject == subject]


@dataclass
class Company:
    """Everything that runs, and how a test looks into it."""

    ui: Ui
    chat: Chat
    mlflow_url: str
    folder: Path
    _line: AbstractContextManager[Chat] | None = field(default=None, repr=False)

    # The chat

    def hang_up(self) -> None:
        """The chat refuses connections from now on."""
        assert self._line is not None
        self._line.__exit__(None, None, None)
        self._line = None

    def pick_up(self) -> None:
        """The chat is at its address."""
        self._line = chat_server(self.chat)
        self._line.__enter__()

    def all_questions(self) -> list[Question]:
        """The messages that ask, oldest first; others tell of what needs no answer."""
        asks = (text for text in self.chat.contents(CHANNEL) if text.splitlines()[-1].startswith("Request "))
        return [Question(text) for text in asks]

    def questions(self, subject: str, words: str = "") -> list[Question]:
        """The messages about a subject with these words in them, oldest first."""
        return [question for question in self.all_questions() if question.subject == subject and words in question.text]

    def question(self, subject: str, within_s: float = 120) -> Question:
        """The last message about a subject, once there is one."""
        return eventually(lambda: self.questions(subject), f"a message about {subject}", within_s)[-1]

    # Decisions

    def decide(self, config: dict[str, Any]) -> Run:
        """The run of `decision_job` with the config, ended."""
        return self.ui.finished(self.ui.launch_job("decision_job", config))

    # The records

    def books(self) -> Books:
        """What the ledger says now."""
        with Ledger(f"sqlite:///{self.folder / 'state' / 'ledger.db'}", "USD").reading() as entries:
            outcomes = {outcome.request_id: outcome for outcome in entries.outcomes()}
            return Books(entries.requests(), outcomes, entries.deliveries(), entries.promotions(), entries.refusals())

    def production(self) -> str | None:
        """The version that MLflow's alias `production` points at."""
        model = self._mlflow("registered-models/get", name="taxifare")["registered_model"]
        return {entry["alias"]: entry["version"] for entry in model.get("aliases", ())}.get("production")

    def versions(self) -> dict[str, dict[str, str]]:
        """The tags of every version in MLflow, oldest first."""
        found = self._mlflow("model-versions/search", filter="name='taxifare'").get("model_versions", [])
        found.sort(key=lambda version: int(version["version"]))
        return {version["version"]: {tag["key"]: tag["value"] for tag in version["tags"]} for version in found}

    def _mlflow(self, method: str, **params: str) -> dict[str, Any]:
        answer = requests.get(f"{self.mlflow_url}/api/2.0/mlflow/{method}", params=params, timeout=30)
        assert answer.ok, answer.text
        found: dict[str, Any] = json.loads(answer.text)
        return found


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """`make dev` on an empty state folder, an MLflow server and a chat that nobody has written to yet."""
    folder = tmp_path_factory.mktemp("company")
    with ExitStack() as servers:
        mlflow_url = servers.enter_context(mlflow_server(folder))
        with chat_server() as chat:
            pass
        company = Company(Ui(""), chat, mlflow_url, folder)
        company.pick_up()
        servers.callback(lambda: company.hang_up() if company._line else None)
        settings = {
            **SMALL,
            "LAST_MONTH": "2015-04",
            "MLFLOW_TRACKING_URI": mlflow_url,
            "CHAT_BASE_URL": chat.url,
            "CHAT_CHANNEL": CHANNEL,
        }
        company.ui = replace(company.ui, url=servers.enter_context(dagster_dev(folder, settings)))
        yield company
