"""The whole of compose.yaml: its commands, run here as compose would run them, and a month of a city's in them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from dotenv import dotenv_values

from tests.end_to_end.conftest import SMALL
from tests.support.composed import DEPLOY, Composition, can_be_composed, composed
from tests.support.servers import Webhook, webhook_server
from tests.support.ui import Ui, eventually
from tests.support.your_city import write_files

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(can_be_composed() is not None, reason=str(can_be_composed())),
]

CHAT_PORT = 8099

VARIABLES = {
    "TAXIFARE_IMAGE": f"registry.example/taxifare@sha256:{'0' * 64}",
    "POSTGRES_HOST": "postgres",
    "LEDGER_OWNER_PASSWORD": "owns-tables",
    "LEDGER_PASSWORD": "adds-entries",
    "DAGSTER_PASSWORD": "keeps-runs",
    "MLFLOW_PASSWORD": "keeps-models",
    "APPROVAL_SECRET": "signs-links-of-messages-and-nothing-else",
    "DAGSTER_URL": "http://127.0.0.1:8080",
    "GUARD_USER": "ops",
    "GUARD_PASSWORD": "lets-in",
    "SERVICE_TOKEN": "asks-for-prices",
    "STREAM_TOKEN": "sends-rides",
    "SLACK_WEBHOOK_URL": f"http://127.0.0.1:{CHAT_PORT}/services/T0/not-to-be-told",
}

SETTINGS = {
    **SMALL,
    "CITY": "/srv/taxifare/files/saint-denis.yaml",
    "TRIP_FOLDER": "/srv/taxifare/files/trips",
    "TRIP_FOLDER_QUIET_S": "0",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/srv/taxifare/files/authority.pem",
    "FIRST_MONTH": "2024-02",
    "LAST_MONTH": "2024-02",
}

RIDE = {
    "pickup_datetime": "2024-03-01T18:05:00",
    "pickup_longitude": 55.5103,
    "pickup_latitude": -20.8871,
    "dropoff_longitude": 55.50,
    "dropoff_latitude": -20.93,
    "passenger_count": 2,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a city's file and its trips: the example of docs/your-city.md."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    subprocess.run([sys.executable, "make_trips.py"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def parts(files: Path) -> Iterator[Composition]:
    """All parts, none of them started."""
    example = dotenv_values(files / ".env")
    variables = VARIABLES | {"FILES_FOLDER": str(files)}
    with composed(variables, {name: value or "" for name, value in example.items()} | SETTINGS) as composition:
        shutil.copy(composition.folder / "certificate.pem", files / "authority.pem")
        yield composition


@pytest.fixture(scope="module")
def chat(parts: Composition) -> Iterator[Webhook]:
    """A chat in the network of the parts, which messages are sent to."""
    with webhook_server(CHAT_PORT) as chat:
        assert chat.url == VARIABLES["SLACK_WEBHOOK_URL"]
        yield chat


@pytest.fixture(scope="module")
def smoke(parts: Composition, chat: Webhook) -> str:
    """What the smoke month of a release says, as the workflow runs it, once all parts are healthy."""
    later = {"backup", "code-2"}
    parts.up(*(name for name in parts.services if name not in later))
    step = ("python", "-m", "taxifare_dagster.release", "--patience", "900", "smoke")
    return parts.run("code", *step, "webserver:3000", "http://service:9696", within_s=2000)


def version_that_prices() -> str:
    """The version that the service prices a ride with."""
    answer = requests.post(
        "http://127.0.0.1:9696/predict",
        json={"ride_id": 1, "ride": RIDE},
        headers={"Authorization": "Bearer asks-for-prices"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model_version"])


def test_a_month_runs_and_what_it_made_prices_rides(parts: Composition, smoke: str, chat: Webhook) -> None:
    # Given what the smoke month of a release has left: a first model, approved, and a month compared with it
    assert re.search("2024-02: (HOLD|PROMOTE); version 1 prices rides", smoke), smoke
    # When a ride's price is asked for, it is told by that model, and by none without the token
    assert version_that_prices() == "1"
    assert requests.post("http://127.0.0.1:9696/predict", json={}, timeout=30).status_code == 401
    # And when a person promotes what the month has trained

    def waiting() -> list[dict[str, str]]:
        listed = parts.run("code", "taxifare", "requests", "--json")
        return list(json.loads(re.split(r"^(?=\[)", listed, maxsplit=1, flags=re.MULTILINE)[-1]))

    (asked,) = eventually(waiting, "the daemon to ask about February", 120)
    eventually(lambda: asked["request"] in json.dumps(chat.posts), "the question to reach the chat", 60)
    against = ("--approve", "--override", "--by", "a person", "--reason", "tested")
    parts.run("code", "taxifare", "decide", asked["request"], *against)
    # Then that prices rides, without a restart
    eventually(lambda: version_that_prices() == "2", "the service to follow the promotion", 120)
    # And a second smoke month is refused: this ledger is somebody's by now
    with pytest.raises(AssertionError, match="an empty ledger; received 2 decisions"):
        parts.run("code", "python", "-m", "taxifare_dagster.release", "smoke", "webserver:3000", "http://service:9696")


def test_people_get_in_by_the_guard_alone(parts: Composition, smoke: str) -> None:
    assert requests.get("http://127.0.0.1:8080/", timeout=30).status_code == 401
    page = requests.get("http://127.0.0.1:8080/", auth=("ops", "lets-in"), timeout=30)
    assert page.status_code == 200
    assert "Dagster" in page.text


CHANGES_HISTORY = """
from taxifare.model.quiet import load_tensorflow
from taxifare.settings import settings_in_force

load_tensorflow()  # whose TLS library comes after the driver's, as in every process that trains
import psycopg

with psycopg.connect(settings_in_force().ledger_url) as connection:
    assert connection.info.pgconn.ssl_in_use
    try:
        connection.execute("DELETE FROM promotions")
    except psycopg.errors.InsufficientPrivilege:
        print("not permitted")
"""


def test_the_application_cannot_change_what_is_recorded(parts: Composition, smoke: str) -> None:
    """In a process of its own: the tests' has loaded TensorFlow before any driver of PostgreSQL, which aborts it."""
    assert "not permitted" in parts.run("code", "python", "-c", CHANGES_HISTORY, "changes-history")


def test_prometheus_finds_every_part_that_it_is_told_of(parts: Composition, smoke: str) -> None:
    def up() -> dict[str, str]:
        answer = requests.get("http://127.0.0.1:9090/api/v1/query", params={"query": "up"}, timeout=30).json()
        return {found["metric"]["job"]: found["value"][1] for found in answer["data"]["result"]}

    jobs = {"taxifare-service", "taxifare-lifecycle", "taxifare-consumer"}
    eventually(lambda: up() == dict.fromkeys(jobs, "1"), "Prometheus to reach all three", 120)


def test_a_backup_is_made_and_fills_an_empty_installation(parts: Composition, smoke: str) -> None:
    # Given a backup of what is at work
    said = parts.run("backup", "taxifare", "backup", "state/backups/monday")
    assert "ledger up to" in said
    # When it is to be restored there, where a ledger is
    with pytest.raises(AssertionError, match="expected an empty ledger"):
        parts.run("backup", "taxifare", "restore", "state/backups/monday")
    # And where there is none, and no MLflow yet, with the same lake
    empty = ("env", "DATABASE_URL=", "MLFLOW_TRACKING_URI=", "TAXIFARE_HOME=state/restored", "STORAGE_URI=state/lake")
    parts.run("backup", *empty, "taxifare", "restore", "state/backups/monday")
    # Then it says what the other says
    of_both = [parts.run("backup", *place, "taxifare", "history", "--json") for place in ((), empty)]
    assert of_both[0] == of_both[1]


def test_another_image_takes_over_and_the_one_before_takes_it_back(
    parts: Composition, smoke: str, tmp_path: Path
) -> None:
    """deploy/switch as it is, with a `docker` that knows its containers as these processes."""
    folder = tmp_path / "deploy"
    folder.mkdir()
    shutil.copy(DEPLOY / "switch", folder)
    before, after = (f"registry.example/taxifare@sha256:{digit * 64}" for digit in "01")
    (folder / ".env").write_text(f"TAXIFARE_IMAGE={before}\n")
    ui = Ui("http://127.0.0.1:3000")
    for image, arguments in ((after, [after]), (before, ["--back"])):
        last, code = ui.ticks("new_month_sensor")[0]["timestamp"], parts.process("code")
        with docker_of(parts, tmp_path) as programs:
            path = f"{programs}:/usr/bin:/bin"
            told = subprocess.run(
                [folder / "switch", *arguments], env={"PATH": path}, capture_output=True, text=True, check=False
            )
        # Then it is at work, by another code server, the page shows what that has, and sensors go on
        assert told.returncode == 0, told.stdout + told.stderr
        assert f"TAXIFARE_IMAGE={image}" in (folder / ".env").read_text()
        assert code.poll() is not None
        assert parts.process("code").poll() is None
        assert "staging_model" in ui.assets()
        eventually(lambda last=last: ui.ticks("new_month_sensor")[0]["timestamp"] > last, "a tick", 240)


def docker(parts: Composition, words: str) -> str:
    """What docker says to a command of deploy/switch that does to these processes what it does to containers.

    Raises AssertionError for any other command.
    """
    match words.removeprefix("compose --file compose.yaml ").split():
        case ["image", "inspect", _]:
            return ""
        case ["ps", "--quiet", "code"]:
            return "code\n"
        case ["stop", "daemon"]:
            parts.stop("daemon")
        case ["run", "--rm", "--no-deps", "--no-TTY", "code", *command]:
            return parts.run("code", *command)
        case ["run", "--rm", "--no-TTY", "migrate"]:
            return parts.run("migrate", *parts.services["migrate"]["command"])
        case ["up", "--detach", "--no-deps", "--no-recreate", "--scale", "code=2", "--wait", "code"]:
            parts.up("code-2")
        case ["rm", "--force", "code"]:
            parts.stop("code", signal.SIGKILL)
            parts.takes_the_place("code-2", "code")
        case ["up", "--detach"]:
            parts.up("daemon")
        case _:
            raise AssertionError(words)
    return ""


@contextmanager
def docker_of(parts: Composition, folder: Path) -> Iterator[Path]:
    """A folder with a program `docker` that does what deploy/switch asks of it."""

    class Asked(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, said = 200, docker(parts, " ".join(words))
            except Exception as error:  # noqa: BLE001 - whatever it is, the command has failed
                status, said = 500, repr(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    # Threads of this one are in the parts' network, as it is.
    threading.Thread(target=server.serve_forever, daemon=True).start()
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "docker").write_text(
        f"#!{sys.executable}\nimport requests, sys\n"
        f"answer = requests.post('http://127.0.0.1:{server.server_port}', json=sys.argv[1:], timeout=1200)\n"
        "sys.stdout.write(answer.text)\nsys.exit(answer.status_code != 200)\n"
    )
    (programs / "docker").chmod(0o755)
    yield programs
    server.shutdown()
