"""HTTP against a real server: what is tried again and how often, what is resumed, what is never read, never told."""

import hashlib
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from taxifare.sources.base import SourceError
from taxifare.sources.web import ATTEMPTS, PassingWebError, Web, WebError
from tests.support.publisher import Publisher, publisher_server

CONTENT = os.urandom(3_000_000)
OTHER = os.urandom(3_000_000)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publisher_server({"trips.csv": CONTENT, "rows.json": b'[{"fare": 7.5}]'}) as running:
        yield running


@pytest.fixture
def web(tmp_path: Path) -> Web:
    return Web(tmp_path / "downloads", first_pause_s=0.01, believed_s=0)


@pytest.fixture
def address(publisher: Publisher) -> str:
    return f"{publisher.url}/trips.csv"


def anything(file: Path) -> None:
    """A check that every file passes."""


def files(web: Web) -> list[Path]:
    """What lies in the cache."""
    return [path for path in web.cache.rglob("*") if path.is_file() and path.name != "lock"]


# What passes


@pytest.mark.parametrize(
    "fault", ["403", "429", "429:0", "500", "502", "503", "504", "drop", "slow", "cut", "stall", "page"]
)
def test_a_passing_fault_is_tried_again(publisher: Publisher, address: str, web: Web, fault: str) -> None:
    publisher.faults = ["", fault]
    if fault in {"slow", "stall"}:
        web, publisher.slow_s = replace(web, timeout_s=1.0), 2.0
    assert web.download(address, anything).path.read_bytes() == CONTENT
    assert publisher.methods() == ["HEAD", "GET", "HEAD", "GET"]


def test_json_is_asked_for_again_too(publisher: Publisher, web: Web) -> None:
    publisher.faults = ["503", "cut", "drop"]
    assert web.json(f"{publisher.url}/rows.json", {"$limit": 5}) == [{"fare": 7.5}]
    assert [path for _, path, _ in publisher.asked] == ["/rows.json?%24limit=5"] * 4


def test_there_is_a_last_attempt(publisher: Publisher, address: str, web: Web) -> None:
    publisher.faults = ["503"] * 20
    with pytest.raises(PassingWebError) as given_up:
        web.download(address, anything)
    told = f"{address}: expected data, received 503 Service Unavailable; given up after {ATTEMPTS} attempts: "
    assert str(given_up.value) == f"{told}try again later"
    assert len(publisher.asked) == ATTEMPTS
    assert given_up.value.status == 503


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with publisher_server() as gone:
        address = f"{gone.url}/trips.csv"
    with pytest.raises(PassingWebError, match=r"trips\.csv: no connection.*refused.*given up after 5 attempts"):
        Web(tmp_path, first_pause_s=0.01).look(address)


def test_the_server_says_when_to_come_back(
    publisher: Publisher, address: str, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.faults = ["429:1"]
    with caplog.at_level(logging.WARNING):
        web.look(address)
    assert "asking again in 1.0 s" in caplog.text
    assert "429 Too Many Requests" in caplog.text


def test_nobody_waits_an_hour(publisher: Publisher, address: str, web: Web) -> None:
    publisher.faults = ["503:3600"]
    with pytest.raises(PassingWebError, match="503 Service Unavailable"):
        web.look(address)
    assert len(publisher.asked) == 1


# What does not pass


@pytest.mark.parametrize("status", [400, 401, 404, 410, 418])
def test_a_permanent_fault_fails_at_once_and_says_what_to_do(
    publisher: Publisher, address: str, web: Web, status: int
) -> None:
    publisher.faults = ["", str(status)]
    with pytest.raises(WebError) as refused:
        web.download(address, anything)
    assert not isinstance(refused.value, PassingWebError)
    assert str(refused.value).startswith(f"{address}: expected data, received {status} ")
    assert refused.value.status == status
    assert refused.value.is_absence == (status in {404, 410})
    assert len(publisher.asked) == 2
    assert files(web) == []


def test_a_page_is_not_a_file(publisher: Publisher, address: str, web: Web) -> None:
    told = f"received a web page with status 200.*given up after {ATTEMPTS} attempts"
    for ask in (lambda: web.look(address), lambda: web.download(address, anything)):
        publisher.faults = ["page"] * ATTEMPTS
        with pytest.raises(PassingWebError, match=told):
            ask()
    publisher.faults = ["page"] * ATTEMPTS
    with pytest.raises(PassingWebError, match=told):
        web.json(f"{publisher.url}/rows.json")
    publisher.files["trips.csv"] = b"<html>a page that calls itself a file</html>"
    with pytest.raises(PassingWebError, match=told):
        web.download(address, anything)
    assert files(web) == []


def test_a_refusal_may_pass_and_is_neither_absence_nor_believed(publisher: Publisher, address: str, web: Web) -> None:
    web = replace(web, believed_s=300.0)
    publisher.faults = ["403"] * (ATTEMPTS + 1)
    with pytest.raises(WebError, match=r"received 403 Forbidden") as refused:
        web.look(address, insist=False)
    assert (refused.value.is_refusal, refused.value.is_absence) == (True, False)
    with pytest.raises(WebError, match=f"received 403 Forbidden.*given up after {ATTEMPTS} attempts"):
        web.look(address)
    assert len(publisher.asked) == ATTEMPTS + 1
    assert web.look(address).size_bytes == len(CONTENT), "whoever insists is not answered from memory"


def test_the_servers_own_words_are_told(publisher: Publisher, web: Web) -> None:
    publisher.faults = ["400"]
    with pytest.raises(
        WebError, match=r'400 Bad Request \{"message": "no, whoever you are"\}: the query is not understood'
    ):
        web.json(f"{publisher.url}/rows.json")


@pytest.mark.parametrize("address", ["trips.csv?token=sesame", "ftp://127.0.0.1/trips.csv", "http://"])
def test_what_is_no_address_is_refused_at_once(web: Web, address: str) -> None:
    with pytest.raises(WebError, match="check the address in the settings") as refused:
        web.look(address)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("fault", ["401", "503", "drop", "slow", "page"])
def test_no_message_and_no_trace_shows_a_secret(
    publisher: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    secrets = {place: f"sesame-{place}" for place in ("header", "login", "query", "parameter")}
    web = Web(tmp_path, {"X-App-Token": SecretStr(secrets["header"])}, first_pause_s=0.001, timeout_s=0.2)
    publisher.faults = [fault] * 9
    host = publisher.url.removeprefix("http://")
    address = f"http://ada:{secrets['login']}@{host}/rows.json?token={secrets['query']}"
    with pytest.raises(WebError) as refused, caplog.at_level(logging.INFO):
        web.json(address, {"secret": secrets["parameter"]})
    assert publisher.asked[0][2]["x-app-token"] == "sesame-header"
    assert "sesame-query" in publisher.asked[0][1]
    told = caplog.text + "".join(traceback.format_exception(refused.value)) + repr(web)
    assert f"http://{host}/rows.json: " in told
    assert "sesame" not in told


# What arrives


def test_what_has_arrived_is_not_sent_again(publisher: Publisher, address: str, web: Web) -> None:
    publisher.faults = ["", "cut", "", "cut"]
    assert web.download(address, anything).path.read_bytes() == CONTENT
    asked = [headers.get("range") for method, _, headers in publisher.asked if method == "GET"]
    arrived = [0 if start is None else int(start[6:-1]) for start in asked]
    assert arrived == pytest.approx([0, 1_500_000, 2_250_000], abs=2 * 65_536)


def test_a_download_that_failed_is_resumed_by_the_next_call(publisher: Publisher, address: str, tmp_path: Path) -> None:
    publisher.faults = ["", "cut"] + ["503"] * 20
    first, second = (Web(tmp_path, first_pause_s=0.001) for _ in range(2))
    with pytest.raises(PassingWebError):
        first.download(address, anything)
    assert [file.suffix for file in files(first)] == [".part"]
    publisher.faults.clear()
    publisher.asked.clear()
    assert second.download(address, anything).path.read_bytes() == CONTENT
    assert publisher.asked[-1][2]["range"] > "bytes=14"


def test_a_file_that_was_replaced_meanwhile_is_begun_anew(publisher: Publisher, address: str, tmp_path: Path) -> None:
    publisher.faults = ["", "cut"] + ["503"] * 20
    web = Web(tmp_path, first_pause_s=0.001)
    with pytest.raises(PassingWebError):
        web.download(address, anything)
    publisher.faults.clear()
    publisher.files["trips.csv"] = OTHER
    assert web.download(address, anything).path.read_bytes() == OTHER
    assert len(files(web)) == 1, "nothing of the old one is left"


def test_a_file_replaced_between_the_look_and_the_download_is_begun_anew(
    publisher: Publisher, address: str, web: Web
) -> None:
    """The rest is asked for on condition that the file is still the same; the server then sends the whole new one."""
    publisher.faults = ["", "cut", ""]
    checked: list[bytes] = []

    class Replacing(dict[str, bytes]):
        """The new file is there from the fourth request on, which is the one for the rest."""

        def get(self, *_: object) -> bytes:  # type: ignore[override]
            return OTHER if len(publisher.asked) >= 4 else CONTENT

    publisher.files = Replacing()
    received = web.download(address, lambda file: checked.append(file.read_bytes()))
    assert received.path.read_bytes() == OTHER
    assert checked == [OTHER]
    assert received.revision == hashlib.md5(OTHER).hexdigest()


@pytest.mark.parametrize("tells", ["weak etag", "time", "nothing"])
def test_without_a_strong_etag_nothing_is_resumed(publisher: Publisher, address: str, web: Web, tells: str) -> None:
    publisher.tells = tells  # type: ignore[assignment]
    publisher.faults = ["", "cut"]
    assert web.download(address, anything).path.read_bytes() == CONTENT
    assert all("range" not in headers for _, _, headers in publisher.asked)


def test_a_server_without_ranges_sends_the_whole_again(publisher: Publisher, address: str, web: Web) -> None:
    publisher.ranges = False
    publisher.faults = ["", "cut"]
    assert web.download(address, anything).path.read_bytes() == CONTENT


def test_who_shows_it_is_told_what_arrives(publisher: Publisher, web: Web) -> None:
    told: list[tuple[str, int, int | None]] = []
    received: list[int] = []

    @contextmanager
    def watch(address: str, arrived_bytes: int, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
        told.append((address, arrived_bytes, total_bytes))
        received.append(0)

        def advance(received_bytes: int) -> None:
            received[-1] += received_bytes

        yield advance

    publisher.faults = ["", "cut"]
    host = publisher.url.removeprefix("http://")
    replace(web, on_download=watch).download(f"http://ada:sesame@{host}/trips.csv?token=sesame", anything)
    address = f"{publisher.url}/trips.csv"
    assert told == [(address, 0, len(CONTENT)), (address, received[0], len(CONTENT))]
    assert sum(received) == len(CONTENT)


def test_without_anybody_to_show_it_what_has_arrived_is_logged(
    address: str, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        web.download(address, anything)
    assert f"{address}: 3.0 of 3.0 MB, received" in caplog.text


def test_less_than_the_rest_is_not_the_whole_file(publisher: Publisher, address: str, web: Web) -> None:
    """A server may answer with a smaller range than was asked for, and says so; nothing of the transfer is at fault."""
    publisher.faults = ["", "cut", "", "short"]
    assert web.download(address, anything).path.read_bytes() == CONTENT
    assert publisher.methods() == ["HEAD", "GET"] * 3


def test_a_part_that_is_already_whole_is_not_asked_for(publisher: Publisher, address: str, web: Web) -> None:
    """The process was killed between the last byte and the check."""
    web.download(address, anything)
    (file,) = files(web)
    etag = publisher.validators(CONTENT)["ETag"]
    file.rename(file.with_name(f"{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part"))
    publisher.asked.clear()
    assert web.download(address, anything).path.read_bytes() == CONTENT
    assert publisher.methods() == ["HEAD"]


def test_what_does_not_pass_its_check_replaces_nothing(publisher: Publisher, address: str, web: Web) -> None:
    good = web.download(address, anything)
    publisher.files["trips.csv"] = b"not trips"

    def refuse(file: Path) -> None:
        assert file.read_bytes() == b"not trips"
        raise SourceError("expected trips")

    for _ in range(2):
        with pytest.raises(SourceError, match="expected trips"):
            web.download(address, refuse)
        assert files(web) == [good.path]
    assert good.path.read_bytes() == CONTENT


def test_a_file_that_has_not_changed_is_not_downloaded_again(publisher: Publisher, address: str, web: Web) -> None:
    first = web.download(address, anything)
    publisher.asked.clear()
    assert web.download(address, anything) == first
    assert publisher.methods() == ["HEAD"]


def test_two_at_once_download_one_file(publisher: Publisher, address: str, tmp_path: Path) -> None:
    found: list[bytes] = []

    def fetch() -> None:
        found.append(Web(tmp_path).download(address, anything).path.read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert publisher.methods().count("GET") == 1


# What identifies a file


@pytest.mark.parametrize("tells", ["etag", "weak etag", "time", "nothing"])
@pytest.mark.parametrize("heads", [True, False])
def test_a_revision_changes_when_the_content_does(
    publisher: Publisher, address: str, web: Web, tells: str, heads: bool
) -> None:
    publisher.tells, publisher.heads = tells, heads  # type: ignore[assignment]
    revision = web.revision(address, anything)
    assert web.revision(address, anything) == revision == web.download(address, anything).revision
    publisher.files["trips.csv"] = OTHER
    publisher.changed_at += 1
    assert web.revision(address, anything) == web.download(address, anything).revision != revision


@pytest.mark.parametrize(
    ("tells", "asked"), [("etag", ["HEAD"]), ("time", ["HEAD"]), ("nothing", ["HEAD", "HEAD", "GET"])]
)
def test_a_revision_costs_a_download_only_where_the_server_tells_nothing(
    publisher: Publisher, address: str, web: Web, tells: str, asked: list[str]
) -> None:
    publisher.tells = tells  # type: ignore[assignment]
    web.revision(address, anything)
    assert publisher.methods() == asked


def test_who_asks_every_second_is_answered_from_memory(publisher: Publisher, address: str, tmp_path: Path) -> None:
    web = Web(tmp_path)
    for _ in range(3):
        web.look(address)
        with pytest.raises(WebError):
            web.look(f"{publisher.url}/gone.csv")
    assert len(publisher.asked) == 2
    publisher.files["trips.csv"] = OTHER
    assert web.download(address, anything).revision == web.look(address).revision, "a download has seen the new one"


def test_a_fault_is_not_remembered(publisher: Publisher, address: str, tmp_path: Path) -> None:
    web = Web(tmp_path, first_pause_s=0.001)
    publisher.faults = ["503"] * ATTEMPTS
    with pytest.raises(PassingWebError):
        web.look(address)
    assert web.look(address).size_bytes == len(CONTENT)
