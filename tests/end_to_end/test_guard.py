"""The guard before a real Dagster webserver: the forged requests that the webserver alone executes are sent away."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect
from upath import UPath

from taxifare.environment import SettingsError
from taxifare.settings import GuardSettings, Settings
from taxifare_dagster.guard import __main__ as guard_program
from taxifare_dagster.links import DagsterLinks
from tests.support.servers import free_port, server_process

pytestmark = pytest.mark.end_to_end

LOGIN = ("ops", "a pass:word")
BASIC = "Authorization: Basic b3BzOmEgcGFzczp3b3Jk"
QUERY = "{ version }"

DEFINITIONS = """
import dagster as dg

@dg.asset
def fares(context):
    print("said on standard output")
    context.log.info("fares are counted")

@dg.asset_check(asset=fares)
def fares_are_fair():
    return dg.AssetCheckResult(passed=True)

count_job = dg.define_asset_job("count_job", [fares])
defs = dg.Definitions([fares], asset_checks=[fares_are_fair], jobs=[count_job], executor=dg.in_process_executor)
"""


INSTANCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
"""Runs start without a daemon."""


@pytest.fixture(scope="module")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Dagster's webserver as the guard finds it: no login at all."""
    folder, port = tmp_path_factory.mktemp("webserver"), free_port()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "dagster.yaml").write_text(INSTANCE)
    command = [sys.executable, "-m", "dagster_webserver", "-f", "definitions.py", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "DAGSTER_HOME": str(folder)}
    with server_process(command, f"{url}/server_info", folder / "webserver.log", environment):
        yield url


@pytest.fixture(scope="module")
def guard(webserver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The guard before Dagster, started as `make guard` starts it."""
    with guarding(webserver, tmp_path_factory.mktemp("guard")) as url:
        yield url


@contextmanager
def guarding(upstream: str, folder: Path, **more: str) -> Iterator[str]:
    """A guard, started as `make guard` starts it; yields its URL."""
    if shutil.which("nginx") is None and shutil.which("nginx", path="/usr/sbin") is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "TAXIFARE_HOME": str(folder / "state"),
        "DAGSTER_URL": url,
        "GUARD_LISTEN": f"127.0.0.1:{port}",
        "GUARD_UPSTREAM": upstream.removeprefix("http://"),
        "GUARD_USER": LOGIN[0],
        "GUARD_PASSWORD": LOGIN[1],
        **more,
    }
    known = url.replace("//", f"//{LOGIN[0]}:{quote(LOGIN[1])}@")
    command = [sys.executable, "-m", "taxifare_dagster.guard"]
    with server_process(command, known, folder / "guard.log", {**os.environ, **settings}):
        yield url


def mutation(name: str) -> str:
    """A mutation that leaves its name behind where it is executed."""
    return f'mutation {{ setConcurrencyLimit(concurrencyKey: "{name}", limit: 1) }}'


def executed(webserver: str) -> set[str]:
    """The names of the mutations that Dagster has executed."""
    asked = {"query": "{ instance { concurrencyLimits { concurrencyKey } } }"}
    answer = requests.post(f"{webserver}/graphql", json=asked, timeout=10).json()
    return {limit["concurrencyKey"] for limit in answer["data"]["instance"]["concurrencyLimits"]}


def raw(url: str, request: bytes) -> bytes:
    """What comes back for these bytes, sent over a connection of their own."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while (part := connection.recv(65536)) and not answer.startswith(b"HTTP/1.1 101"):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def status(answer: bytes) -> int:
    """The status of an answer, 0 where there is none."""
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


def request_of(method: str, target: str, headers: Sequence[str], body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """The bytes of a request, each header as it is given."""
    lines = [f"{method} {target} {version}", *headers, "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass
class Recorder:
    """A webserver that accepts everything, and remembers what reached it."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def reached(self, guard: str, request: bytes) -> list[tuple[str, str]]:
        """Method and path of what reaches it when this is sent to the guard."""
        before = len(self.requests)
        raw(guard, request)
        return [(method, path) for method, path, _, _ in self.requests[before:]]


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """Stands in for Dagster where thousands of requests are tried: it says what the guard let through."""
    found = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.requests.append((self.command, self.path, dict(self.headers), body))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.close_connection = True
            return False

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture(scope="module")
def front(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The guard before the recorder."""
    with guarding(recorder.url, tmp_path_factory.mktemp("front")) as url:
        yield url


@pytest.fixture(scope="module")
def cookie(front: str) -> str:
    """What a browser that has logged in at the front carries: its requests are not counted as guesses."""
    answer = requests.get(front, auth=LOGIN, timeout=10)
    return f"Cookie: taxifare_guard={answer.cookies['taxifare_guard']}"


METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "post", "get"]

PAGES = [
    "/",
    "/?x=1",
    "/overview",
    "/runs/",
    "/assets/production_model?view=checks",
    "/locations/a.b/jobs/c/playground",
]
"""What the UI's pages are at: Dagster is asked for its one page, whatever the address."""

FILES = [
    "/_next/static/chunks/main-1.js",
    "/_next/static/media/tool-w&b-color.dd51f747.svg",
    "/favicon.svg",
    "/manifest.json",
    "/logs/5f1c/compute_logs/abc/out",
    "/download_debug/0d7e8e8c-37dd-4f0b-9a5c-0f6b0d9a1b11",
]

CONTROLS = [f"%{code:02X}" for code in (*range(0x20), 0x7F)]

MISSPELT = [
    *(f"/graphql{control}" for control in CONTROLS),
    *(f"/graphql{control.replace('%', '%25')}" for control in CONTROLS),
    *(f"/graphql{control.replace('%', '%2525')}" for control in ("%0A", "%0D", "%00")),
    *(f"/{control}graphql" for control in ("%0A", "%0D%0A", "%00", "%09", "%7F", "%C2%85", "%E2%80%A8", "%C0%8A")),
    *(f"/overview{control}" for control in ("%0A", "%00", "%7F", "%250A", "%C2%85")),
    *("//graphql", "/./graphql", "/a/../graphql"),
    *("/%2e/graphql", "/overview/%2e%2e/graphql", "/%2fgraphql", "/%5cgraphql"),
    *("/graphql/", "/graphql//", "/graphql/.", "/graphql;x"),
    *("/graphql%3Bx", "/graphql%3Fquery=1", "/graphql%23", "/graphql%20"),
    *("/GRAPHQL", "/Graphql", "/graphql.json", "/graphql\\"),
    *("/graphql%2F", "/graphql/x", "/graphq", "\\graphql", "graphql"),
    *("/overview/../graphql", "/overview/%2E./graphql", "/overview%2f..%2fgraphql", "/_next/static/../../graphql"),
    *("/_next/static/%2e%2e/graphql", "/logs/../graphql", "/logs/a/b/../../../out", "/logs/a/%2e%2e/b/out", "*", ""),
    *("/report_asset_materialization/production_model"),
    *("/report_asset_check/staging_model", "/report_asset_observation/x"),
    *("/server_info", "/dagit_info", "/notebook?path=x"),
    *("/dagit/notebook", "/vendor/graphiql/react.js", "/csp-header.txt"),
    *("/graphql?query=%00", "/graphql?query=%2500"),
    *("/graphql?query=%0D", "/overview?x=%0D%0AX: y", "/overview?x=%7F"),
    *("/overview?x=%C2%80", "/overview?x=%25C2%2580", "/overview?x=%1b[31m"),
    *("/overview?x=%", "/overview?x=%G0", "/%"),
    *("http://127.0.0.1/graphql", "http://evil.example/", "//evil.example/overview", "https://evil.example/graphql"),
]  # fmt: skip
"""Addresses of nothing: other spellings of those that exist, and what exists in Dagster but is of no use to the UI."""


def test_of_all_methods_and_addresses_only_the_ui_s_reach_dagster(front: str, recorder: Recorder, cookie: str) -> None:
    """The login is right, the host is right, the page is the right one: only method and address differ."""
    good = [f"Host: {urlsplit(front).netloc}", BASIC, cookie, "Content-Type: application/json"]
    passed = {("GET", page): ("GET", "/") for page in PAGES}
    passed |= {("GET", path): ("GET", path) for path in FILES}
    passed |= {("POST", path): ("POST", "/graphql") for path in ("/graphql", "/graphql?op=Runs", "/%67raphql")}
    targets = [*PAGES, *FILES, *MISSPELT, "/graphql", "/graphql?op=Runs", "/%67raphql", "/graphql?query=mutation{x}"]
    passed[("POST", "/graphql?query=mutation{x}")] = ("POST", "/graphql")
    tried = list(itertools.product(METHODS, targets))
    assert len(tried) > 1500
    wrong = {}
    for method, target in tried:
        reached = recorder.reached(front, request_of(method, target, good, b"{}" if method == "POST" else b""))
        expected = [passed[(method, target)]] if (method, target) in passed else []
        if reached != expected:
            wrong[(method, target)] = reached
    assert not wrong


def test_of_all_origins_hosts_and_types_only_the_page_s_reach_graphql(
    front: str, recorder: Recorder, cookie: str
) -> None:
    """The address is GraphQL's: method, host, origin, where the browser says it comes from, type and upgrade differ."""
    here = urlsplit(front).netloc
    hosts = [here, "evil.example", f"127.0.0.1:{free_port()}", "127.0.0.1", f"localhost:{urlsplit(front).port}"]
    origins = [None, front, "null", "http://evil.example", f"http://127.0.0.1:{free_port()}", f"{front}.evil.example"]
    sites = [None, "same-origin", "none", "same-site", "cross-site", "x"]
    types = {
        None: False,
        "application/json": True,
        "application/json; charset=utf-8": True,
        "Application/JSON;charset=UTF-8": True,
        "application/json; x=y": False,
        "text/plain; application/json": False,
        "text/plain": False,
        "application/x-www-form-urlencoded": False,
        "multipart/form-data; boundary=application/json": False,
        "application/graphql": False,
    }
    tried = list(itertools.product(["POST", "GET"], hosts, origins, sites, types, [None, "websocket"]))
    assert len(tried) > 3000
    wrong = []
    for method, host, origin, site, kind, upgrade in tried:
        headers = {"Origin": origin, "Sec-Fetch-Site": site, "Content-Type": kind, "Upgrade": upgrade}
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        at_home = host == here and origin in {None, front} and site in {None, "same-origin", "none"}
        is_question = method == "POST" and types[kind] and upgrade is None
        is_subscription = method == "GET" and kind is None and upgrade is not None and origin == front
        expected = [(method, "/graphql")] if at_home and (is_question or is_subscription) else []
        body = b"{}" if method == "POST" else b""
        target = "/graphql?query=mutation{x}"
        if (
            recorder.reached(front, request_of(method, target, [f"Host: {host}", BASIC, cookie, *lines], body))
            != expected
        ):
            wrong.append((method, host, origin, site, kind, upgrade))
    assert not wrong


def test_pages_may_be_linked_to_and_nothing_else(front: str, recorder: Recorder, cookie: str) -> None:
    """A link in a message opens a page; an image, a frame, a script or a download from elsewhere opens nothing."""
    good = [f"Host: {urlsplit(front).netloc}", BASIC, cookie]
    sites, modes = ["same-site", "cross-site"], ["navigate", "no-cors", "cors", "websocket", "same-origin"]
    targets = ["document", "iframe", "image", "script", "empty", "object", "embed"]
    for site, mode, target, path in itertools.product(sites, modes, targets, ["/overview", *FILES, "/graphql"]):
        fetched = [f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {target}"]
        is_link = path == "/overview" and mode == "navigate" and target == "document"
        reached = recorder.reached(front, request_of("GET", path, [*good, *fetched]))
        assert reached == [("GET", "/")] * is_link, (site, mode, target, path)


SMUGGLED = b"POST /report_asset_check/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(["Content-Type: text/plain", "Content-Type: application/json"], id="two types, the first another"),
        pytest.param(["Content-Type: application/json", "Host: evil.example"], id="two hosts"),
        pytest.param(
            ["Content-Type: application/json", "Origin: http://evil.example", "Origin: {front}"], id="two origins"
        ),
        pytest.param(["Content-Type: text/plain", " application/json"], id="a folded header"),
        pytest.param(["Content-Type : application/json"], id="a space before the colon"),
        pytest.param(["Content-Type: text/plain", "X-HTTP-Method-Override: POST"], id="a method override"),
        pytest.param(["Content-Type: application/json", "Content-Length: 2"], id="two lengths"),
        pytest.param(["Content-Type: application/json", "Transfer-Encoding: chunked"], id="length and chunks"),
        pytest.param(["Content-Type: application/json", "Transfer-Encoding: x, chunked"], id="an unknown encoding"),
        pytest.param(["Content-Type: application/json", "Transfer-Encoding:\x0bchunked"], id="a disguised encoding"),
        pytest.param(["Content-Type: application/json\x00"], id="a control character in a header"),
    ],
)  # fmt: skip
def test_requests_that_two_servers_read_differently_reach_nothing(
    front: str, recorder: Recorder, cookie: str, headers: list[str]
) -> None:
    good = [f"Host: {urlsplit(front).netloc}", BASIC, cookie, *(line.replace("{front}", front) for line in headers)]
    assert recorder.reached(front, request_of("POST", "/graphql", good, b"0\r\n\r\n" + SMUGGLED)) == []


def test_old_protocols_and_several_requests_at_once_reach_nothing_more(
    front: str, recorder: Recorder, cookie: str
) -> None:
    good = [f"Host: {urlsplit(front).netloc}", BASIC, cookie, "Content-Type: application/json"]
    for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 x"):
        assert recorder.reached(front, request_of("POST", "/graphql", good, b"{}", version)) == []
    assert recorder.reached(front, b"GET /\r\n\r\n") == []
    chunks = request_of("POST", "/graphql", [*good, "Transfer-Encoding: chunked"]) + b"2\r\n{}\r\n0\r\n\r\n" + SMUGGLED
    assert recorder.reached(front, chunks) == [("POST", "/graphql")]
    assert recorder.requests[-1][3] == b"{}"


def test_what_reaches_dagster_is_made_anew(front: str, recorder: Recorder, cookie: str) -> None:
    """No header of the sender's gets through: neither login nor cookie, nor what a later release may listen to."""
    sent = [
        "X-HTTP-Method-Override: DELETE",
        "X-Forwarded-Host: evil.example",
        "Referer: http://evil.example",
        "X-A: b",
    ]
    good = [f"Host: {urlsplit(front).netloc}", BASIC, cookie, "Content-Type: application/json", *sent]
    recorder.reached(front, request_of("POST", "/graphql?op=x", good, b'{"query": "{ version }"}'))
    _, path, headers, body = recorder.requests[-1]
    assert path == "/graphql"
    assert set(headers) == {"Host", "Content-Type", "Content-Length"}
    assert json.loads(body) == {"query": QUERY}


def test_the_launchpad_s_link_passes(front: str, recorder: Recorder, cookie: str) -> None:
    """Its query is YAML with line breaks, which only the page in the browser reads."""
    page = DagsterLinks(front, UPath("lake")).asset("x")
    link = f"{page}?config={quote('ops:' + chr(10) + '  decide: 100%', safe='')}"
    good = [f"Host: {urlsplit(front).netloc}", BASIC, cookie]
    assert recorder.reached(front, request_of("GET", link.removeprefix(front), good)) == [("GET", "/")]


def test_whoever_guesses_is_slowed_down_and_who_is_in_is_not(
    recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with guarding(recorder.url, tmp_path_factory.mktemp("guessed")) as url, requests.Session() as browser:
        browser.auth = LOGIN
        assert browser.get(url, timeout=10).ok
        guesses = [requests.get(url, auth=("ops", f"guess {number}"), timeout=10).status_code for number in range(60)]
        assert guesses[0] == 401
        assert guesses.count(429) >= 20
        # The right password among the guesses is none the wiser.
        assert requests.get(url, auth=LOGIN, timeout=10).status_code == 429
        # A browser that is in works on, and its dozens of requests at once are not guesses.
        assert {browser.get(f"{url}/favicon.svg", timeout=10).status_code for _ in range(100)} == {200}
        # What says so is no login.
        cookies = {"taxifare_guard": browser.cookies["taxifare_guard"]}
        assert requests.get(url, cookies=cookies, timeout=10).status_code == 401
        assert requests.get(url, cookies=cookies, auth=("ops", "wrong"), timeout=10).status_code == 401


def test_the_webserver_alone_executes_what_any_page_sends(webserver: str) -> None:
    """Why there is a guard: a mutation by GET, with a foreign origin and a foreign host, at an address misspelt."""
    forged = {"Origin": "http://evil.example", "Host": "evil.example", "Accept": "image/*"}
    for name, path in (("plain", "/graphql"), ("control", "/graphql%0A")):
        address = f"{webserver}{path}?query={quote(mutation(name))}"
        assert requests.get(address, headers=forged, timeout=10).status_code == 200
        assert name in executed(webserver)


def test_dagster_behind_the_guard_executes_none_of_them(webserver: str, guard: str) -> None:
    """The representative part, against Dagster itself: what was executed, not what was answered, decides."""
    page = requests.get(guard, auth=LOGIN, timeout=10)
    cookie = f"Cookie: taxifare_guard={page.cookies['taxifare_guard']}"
    good = [f"Host: {urlsplit(guard).netloc}", BASIC, cookie]
    before, numbers = executed(webserver), itertools.count()
    kinds = ["application/json", "text/plain", "application/x-www-form-urlencoded", "application/graphql"]
    for target, method in itertools.product([*MISSPELT, "/graphql"], ["GET", "POST", "HEAD"]):
        asked = quote(mutation(f"raw {next(numbers)}"))
        raw(guard, request_of(method, f"{target}{'&' if '?' in target else '?'}query={asked}", good))
    for kind, origin in itertools.product(kinds, ["null", "http://evil.example", f"http://127.0.0.1:{free_port()}"]):
        body = json.dumps({"query": mutation(f"raw {next(numbers)}")}).encode()
        raw(guard, request_of("POST", "/graphql", [*good, f"Content-Type: {kind}", f"Origin: {origin}"], body))
    for kind in kinds[1:]:
        asked = mutation(f"raw {next(numbers)}")
        raw(
            guard,
            request_of("POST", f"/graphql?query={quote(asked)}", [*good, f"Content-Type: {kind}"], asked.encode()),
        )
    assert executed(webserver) == before
    asked = {"query": mutation("by the page")}
    assert requests.post(f"{guard}/graphql", auth=LOGIN, json=asked, headers={"Origin": guard}, timeout=10).ok
    assert executed(webserver) == before | {"by the page"}


@pytest.mark.parametrize("login", [None, ("ops", "wrong"), ("nobody", LOGIN[1])])
def test_without_the_login_there_is_nothing(guard: str, login: tuple[str, str] | None) -> None:
    for path in ("/", "/server_info", "/report_asset_materialization/production_model", "/favicon.svg"):
        assert requests.get(f"{guard}{path}", auth=login, timeout=10).status_code == 401
    assert requests.post(f"{guard}/graphql", json={"query": QUERY}, auth=login, timeout=10).status_code == 401


@pytest.fixture(scope="module")
def browser(chromium: Browser | None) -> BrowserContext:
    """Chromium, which asks no one for a login but gives it where the guard asks."""
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    return chromium.new_context(http_credentials=login, viewport={"width": 1500, "height": 1100})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ui(browser: BrowserContext, guard: str) -> Page:
    """The UI, opened behind the guard by someone who is logged in."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    # Without it a welcome lies over the page.
    welcome = {"query": "mutation { setNuxSeen }"}
    assert requests.post(f"{guard}/graphql", auth=LOGIN, json=welcome, headers={"Origin": guard}, timeout=10).ok
    page.goto(guard)
    return page


def test_the_ui_is_whole_behind_the_guard(ui: Page, guard: str, webserver: str) -> None:
    """Its main pages, a launch, a run that is followed live, its output: nothing that they need is refused."""
    refused: list[str] = []
    sockets: list[str] = []
    ui.on("response", lambda answer: refused.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    ui.on("requestfailed", lambda request: refused.append(f"{request.failure} {request.url}"))
    ui.on("websocket", lambda opened: sockets.append(opened.url))
    code = "/locations/definitions.py"
    for path, shown in (
        ("/overview", "Overview"), ("/runs", "Runs"), ("/jobs", "count_job"), ("/assets/fares", "fares"),
        ("/automation", "Automation"), ("/deployment/locations", "definitions.py"), (f"{code}/jobs/count_job", "fares"),
    ):  # fmt: skip
        ui.goto(f"{guard}{path}")
        expect(ui.get_by_text(shown).first).to_be_visible()
    ui.goto(f"{guard}{code}/jobs/count_job/playground/setup?config={quote('loggers: {}' + chr(10), safe='')}")
    expect(ui.locator(".CodeMirror-code")).to_contain_text("loggers")
    ui.get_by_role("button", name="Launch Run").click()
    expect(ui.get_by_text("fares are counted").first).to_be_visible()
    expect(ui.get_by_text("Success", exact=True).first).to_be_visible()
    assert sockets
    assert set(sockets) == {f"{guard.replace('http', 'ws')}/graphql"}
    assert [line for line in refused if "ERR_ABORTED" not in line] == []
    asked = {"query": "{ runsOrError { ... on Runs { results { id eventConnection { events { ... on LogsCapturedEvent "
             "{ fileKey } } } } } } }"}  # fmt: skip
    run = requests.post(f"{webserver}/graphql", json=asked, timeout=10).json()["data"]["runsOrError"]["results"][0]
    key = next(event["fileKey"] for event in run["eventConnection"]["events"] if event)
    output = requests.get(f"{guard}/logs/{run['id']}/compute_logs/{key}/out", auth=LOGIN, timeout=10)
    assert "said on standard output" in output.text
    assert requests.get(f"{guard}/download_debug/{run['id']}", auth=LOGIN, timeout=10).ok


EVIL = """<!doctype html><title>evil</title><body><script>
const at = TARGET, tried = [];
const run = name => 'mutation { setConcurrencyLimit(concurrencyKey: "evil ' + name + '", limit: 1) }';
const by = (path, name) => at + path + '?query=' + encodeURIComponent(run(name));
const ended = (name, start) => tried.push(new Promise(done => { start(done); setTimeout(done, 2000); }));
const paths = ['/graphql', '/graphql%0A', '/graphql/', '//graphql'];
for (const path of paths) {
  ended(path, done => { const i = new Image(); i.onload = i.onerror = done; i.src = by(path, 'image ' + path); });
  ended(path, done => { const s = document.createElement('script'); s.onload = s.onerror = done;
    s.src = by(path, 'script ' + path); document.body.append(s); });
  ended(path, done => { const f = document.createElement('iframe'); f.onload = done;
    f.src = by(path, 'frame ' + path); document.body.append(f); });
  for (const type of ['text/plain', 'application/json', 'application/x-www-form-urlencoded']) {
    for (const mode of ['no-cors', 'cors']) ended(path, done => fetch(by(path, type + mode + path),
      {method: 'POST', mode, credentials: 'include', headers: {'Content-Type': type},
       body: JSON.stringify({query: run('body ' + type + mode + path)})}).finally(done).catch(() => 0));
  }
  ended(path, done => fetch(by(path, 'fetch ' + path), {mode: 'no-cors', credentials: 'include'})
    .finally(done).catch(() => 0));
}
for (const enctype of ['text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded']) {
  const form = Object.assign(document.createElement('form'),
    {action: by('/graphql', 'form ' + enctype), method: 'POST', enctype, target: enctype});
  document.body.append(Object.assign(document.createElement('iframe'), {name: enctype}));
  form.append(Object.assign(document.createElement('input'), {name: 'query', value: run('field ' + enctype)}));
  document.body.append(form); form.submit();
}
for (const path of ['/graphql', '/graphql%0A']) ended(path, done => {
  const w = new WebSocket(at.replace('http', 'ws') + path, 'graphql-ws');
  w.onclose = w.onerror = done;
  w.onopen = () => { w.send(JSON.stringify({type: 'connection_init'}));
    w.send(JSON.stringify({type: 'start', id: '1', payload: {query: run('socket ' + path)}})); setTimeout(done, 500); };
});
for (const path of ['/report_asset_materialization/forged', '/report_asset_check/forged']) ended(path, done =>
  fetch(at + path, {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'}).finally(done).catch(() => 0));
Promise.all(tried).then(() => setTimeout(() => document.title = 'done', 500));
</script>"""


@contextmanager
def evil_page(target: str) -> Iterator[str]:
    """A page at another port of the same host that tries whatever a page can; its title says when it is through."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(EVIL.replace("TARGET", json.dumps(target)).encode())

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_page_on_another_port_of_the_host_executes_nothing(
    ui: Page, browser: BrowserContext, webserver: str, guard: str
) -> None:
    """In the browser that is logged in; without the guard the same page does as it likes."""
    assert ui.url.startswith(guard)
    before, page = executed(webserver), browser.new_page()
    with evil_page(guard) as evil:
        page.goto(evil)
        page.wait_for_function("document.title == 'done'", timeout=30_000)
    assert executed(webserver) == before
    with evil_page(webserver) as evil:
        page.goto(evil)
        page.wait_for_function("document.title == 'done'", timeout=30_000)
    forged = executed(webserver) - before
    assert {"evil image /graphql", "evil image /graphql%0A", "evil form text/plain"} <= forged
    page.close()


def test_the_password_is_kept_as_a_hash_for_the_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = guard_program.write_configuration(by_anybody(monkeypatch, settings(tmp_path))).parent
    for path in folder.iterdir():
        assert LOGIN[1] not in path.read_text()
        assert path.stat().st_mode & 0o077 == 0


def settings(home: Path, **more: object) -> GuardSettings:
    """The guard's settings, with whatever differs."""
    return Settings(
        **{"taxifare_home": home, "guard_user": LOGIN[0], "guard_password": LOGIN[1], **more}  # type: ignore[arg-type]
    )


def by_anybody(monkeypatch: pytest.MonkeyPatch, settings: GuardSettings) -> GuardSettings:
    """The settings, used by someone who is not root: the files are in the state folder then."""
    monkeypatch.setattr(guard_program.os, "geteuid", lambda: 1000)
    return settings


@pytest.mark.parametrize(
    "name", ["a home", "it's", 'a "quoted" home', "$HOME;{}", "back\\slash", "wörld#1", "two\nlines"]
)
def test_the_home_may_have_any_name(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    port = free_port()
    here = {"guard_listen": f"127.0.0.1:{port}", "dagster_url": f"http://127.0.0.1:{port}"}
    chosen = settings(tmp_path / name, guard_upstream=recorder.url.removeprefix("http://"), **here)
    configuration = guard_program.write_configuration(by_anybody(monkeypatch, chosen))
    command = ["nginx", "-p", str(configuration.parent), "-c", str(configuration)]
    # The tests may be root's, whose nginx would work as nobody and not get into pytest's folders.
    command += ["-g", "user root;"] if os.getuid() == 0 else []
    known = here["dagster_url"].replace("//", f"//{LOGIN[0]}:{quote(LOGIN[1])}@")
    with server_process(command, known, tmp_path / "nginx.log", {**os.environ, "PATH": "/usr/sbin:/usr/bin"}):
        assert requests.get(here["dagster_url"], timeout=10).status_code == 401


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("a $certificate; for {us}")
    chain, key = folder / "chain.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(chain), "-days", "1", "-subj", "/CN=guard"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60)
    return chain, key


def test_with_a_certificate_the_guard_encrypts(
    recorder: Recorder, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "TAXIFARE_HOME": str(tmp_path_factory.mktemp("encrypted")),
        "DAGSTER_URL": url,
        "GUARD_LISTEN": f"127.0.0.1:{port}",
        "GUARD_UPSTREAM": recorder.url.removeprefix("http://"),
        "GUARD_USER": LOGIN[0],
        "GUARD_PASSWORD": LOGIN[1],
        "GUARD_CERTIFICATE": str(certificate[0]),
        "GUARD_KEY": str(certificate[1]),
        "REQUESTS_CA_BUNDLE": str(certificate[0]),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        known = url.replace("//", f"//{LOGIN[0]}:{quote(LOGIN[1])}@")
        command = [sys.executable, "-m", "taxifare_dagster.guard"]
        with server_process(command, known, tmp_path_factory.mktemp("log") / "guard.log", environment):
            asked = {"auth": LOGIN, "json": {"query": QUERY}, "timeout": 10}
            assert requests.post(f"{url}/graphql", headers={"Origin": url}, **asked).ok  # type: ignore[arg-type]
            unencrypted = url.replace("https", "http")
            assert requests.post(f"{url}/graphql", headers={"Origin": unencrypted}, **asked).status_code == 403  # type: ignore[arg-type]
            assert requests.get(unencrypted, auth=LOGIN, timeout=10).status_code == 400
            old = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
            refused = subprocess.run(old, input=b"", capture_output=True, timeout=20, check=False)
            assert refused.returncode != 0
            assert b"alert protocol version" in refused.stderr


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"GUARD_USER": ""}, "GUARD_USER"),
        ({"GUARD_PASSWORD": ""}, "GUARD_PASSWORD"),
        ({"GUARD_USER": "a:b"}, "GUARD_USER"),
        ({"GUARD_USER": "a\nroot"}, "GUARD_USER"),
        ({"GUARD_LISTEN": "8080"}, "GUARD_LISTEN: expected host:port"),
        ({"GUARD_LISTEN": "127.0.0.1:99999"}, "GUARD_LISTEN: expected host:port"),
        ({"GUARD_LISTEN": "127.0.0.1:80; access_log /x"}, "GUARD_LISTEN: expected host:port"),
        ({"GUARD_UPSTREAM": "http://127.0.0.1:3000"}, "GUARD_UPSTREAM: expected host:port"),
        ({"GUARD_UPSTREAM": "127.0.0.1:8080"}, "GUARD_LISTEN and GUARD_UPSTREAM are both"),
        ({"DAGSTER_URL": "taxi.example"}, "DAGSTER_URL: expected"),
        ({"DAGSTER_URL": "http://"}, "no host"),
        ({"DAGSTER_URL": "http://ops:pw@taxi.example.com"}, "DAGSTER_URL: expected"),
        ({"DAGSTER_URL": "http://taxi.example/dagster"}, "DAGSTER_URL: expected"),
        ({"GUARD_CERTIFICATE": "chain.pem"}, "set both or neither"),
        ({"GUARD_CERTIFICATE": "chain.pem", "GUARD_KEY": "key.pem"}, "GUARD_CERTIFICATE: expected a file"),
        ({"PATH": "/nowhere"}, "nginx, which is not installed"),
    ],
)
def test_what_the_guard_cannot_start_with_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], told: str
) -> None:
    good = {"TAXIFARE_HOME": str(tmp_path), "GUARD_USER": "ops", "GUARD_PASSWORD": "x", "PATH": "/usr/sbin:/usr/bin"}
    for name, value in (good | wrong).items():
        monkeypatch.setenv(name, value)
    if "PATH" in wrong:
        monkeypatch.setattr(guard_program.shutil, "which", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        guard_program.main()
    assert told in str(ended.value)


def test_certificates_that_do_not_fit_are_told(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = certificate
    other = tmp_path / "other.pem"
    other.write_text("no key")
    for chosen, told in (
        ({"guard_key": other, "dagster_url": "https://taxi.example"}, "in PEM, without a passphrase"),
        ({"guard_key": key, "dagster_url": "http://taxi.example"}, "begins with https://"),
    ):
        wrong = settings(tmp_path, guard_certificate=chain, **chosen)
        with pytest.raises(SettingsError, match=told):
            guard_program.write_configuration(by_anybody(monkeypatch, wrong))
