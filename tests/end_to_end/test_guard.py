"""The guard before a real Dagster webserver: the forged requests that the webserver alone executes are sent away."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests.support.servers import free_port, server_process

pytestmark = pytest.mark.end_to_end

LOGIN = ("ops", "a pass:word")
MUTATION = "mutation { setNuxSeen }"
QUERY = "{ version }"


@pytest.fixture(scope="module")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Dagster's webserver on an empty workspace, as the guard finds it: no login at all."""
    folder, port = tmp_path_factory.mktemp("webserver"), free_port()
    (folder / "workspace.yaml").write_text("load_from: []\n")
    command = [sys.executable, "-m", "dagster_webserver", "--empty-workspace", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "DAGSTER_HOME": str(folder)}
    with server_process(command, f"{url}/server_info", folder / "webserver.log", environment):
        yield url


@pytest.fixture(scope="module")
def guard(webserver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The guard, started as `make guard` starts it."""
    if shutil.which("nginx") is None and shutil.which("nginx", path="/usr/sbin") is None:
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("guard"), free_port()
    # Started by root, nginx reads the login as nobody, who has to get through pytest's folders.
    for part in (folder, *folder.parents):
        if not part.stat().st_mode & 0o001:
            part.chmod(part.stat().st_mode | 0o001)
    url = f"http://127.0.0.1:{port}"
    settings = {
        "TAXIFARE_HOME": str(folder / "state"),
        "DAGSTER_URL": url,
        "GUARD_LISTEN": f"127.0.0.1:{port}",
        "GUARD_UPSTREAM": webserver.removeprefix("http://"),
        "GUARD_USER": LOGIN[0],
        "GUARD_PASSWORD": LOGIN[1],
    }
    known = url.replace("//", f"//{LOGIN[0]}:{quote(LOGIN[1])}@")
    command = [sys.executable, "-m", "taxifare_dagster.guard"]
    with server_process(command, known, folder / "guard.log", {**os.environ, **settings}):
        yield url


def test_the_webserver_alone_executes_what_any_page_sends(webserver: str) -> None:
    """Why there is a guard: a mutation by GET, with a foreign origin and a foreign host."""
    forged = {"Origin": "http://evil.example", "Host": "evil.example", "Accept": "image/*"}
    answer = requests.get(f"{webserver}/graphql", params={"query": MUTATION}, headers=forged, timeout=10)
    assert answer.status_code == 200
    assert answer.json()["data"]["setNuxSeen"]


def test_who_logs_in_gets_the_pages_and_their_queries(guard: str) -> None:
    page = requests.get(f"{guard}/", auth=LOGIN, timeout=10)
    assert page.status_code == 200
    assert page.text.startswith("<!DOCTYPE html>")
    asked = requests.post(f"{guard}/graphql", auth=LOGIN, json={"query": QUERY}, headers={"Origin": guard}, timeout=10)
    assert asked.status_code == 200
    assert asked.json()["data"]["version"]


@pytest.mark.parametrize("login", [None, ("ops", "wrong"), ("nobody", LOGIN[1])])
def test_without_the_login_there_is_nothing(guard: str, login: tuple[str, str] | None) -> None:
    for path in ("/", "/server_info", "/report_asset_materialization/production_model"):
        assert requests.get(f"{guard}{path}", auth=login, timeout=10).status_code == 401
    assert requests.post(f"{guard}/graphql", json={"query": QUERY}, auth=login, timeout=10).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        pytest.param("GET", f"/graphql?query={MUTATION}", {}, 405, id="a mutation by GET, as an image would"),
        pytest.param("POST", "/graphql", {"data": {"query": MUTATION}}, 405, id="a mutation by form"),
        pytest.param(
            "POST", "/graphql", {"data": '{"query":"{version}"}', "headers": {"Content-Type": "text/plain"}}, 405,
            id="JSON disguised as text",
        ),
        pytest.param(
            "POST", "/graphql", {"json": {"query": QUERY}, "headers": {"Origin": "http://evil.example"}}, 403,
            id="JSON from another page",
        ),
        pytest.param(
            "POST", "/graphql", {"json": {"query": QUERY}, "headers": {"Origin": "null"}}, 403,
            id="JSON from a sandboxed frame",
        ),
        pytest.param("GET", "/", {"headers": {"Host": "evil.example"}}, 421, id="another host: DNS rebinding"),
        pytest.param("POST", "/report_asset_materialization/production_model", {"json": {}}, 405, id="a made-up asset"),
        pytest.param(
            "GET", "/graphql",
            {"headers": {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://evil.example"}}, 403,
            id="a websocket from another page",
        ),
        pytest.param(
            "GET", "/graphql", {"headers": {"Upgrade": "websocket", "Connection": "Upgrade"}}, 403,
            id="a websocket from nowhere",
        ),
    ],
)  # fmt: skip
def test_forged_requests_are_sent_away_even_with_the_login_a_browser_adds(
    guard: str, method: str, path: str, sent: dict[str, object], status: int
) -> None:
    answer = requests.request(method, f"{guard}{path}", auth=LOGIN, timeout=10, **sent)  # type: ignore[arg-type]
    assert answer.status_code == status


def test_the_page_s_own_websocket_passes(guard: str) -> None:
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Origin": guard,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "graphql-ws",
    }
    answer = requests.get(f"{guard}/graphql", auth=LOGIN, headers=handshake, timeout=10, stream=True)
    assert answer.status_code == 101
    answer.close()


def test_the_password_is_kept_as_a_hash_for_the_owner_only(
    guard: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    users = next(tmp_path_factory.getbasetemp().glob("guard*/state/guard/users"))
    assert LOGIN[1] not in users.read_text()
    assert users.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("missing", ["GUARD_USER", "GUARD_PASSWORD"])
def test_without_a_login_to_ask_for_the_guard_does_not_start(tmp_path: Path, missing: str) -> None:
    settings = {
        "TAXIFARE_HOME": str(tmp_path),
        "GUARD_USER": "ops",
        "GUARD_PASSWORD": "x",
        "PATH": "/usr/sbin:/usr/bin",
    }
    del settings[missing]
    command = [sys.executable, "-m", "taxifare_dagster.guard"]
    started = subprocess.run(
        command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert started.returncode == 1
    assert "GUARD_USER" in started.stderr
