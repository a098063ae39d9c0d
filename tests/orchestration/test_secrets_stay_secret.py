"""Nothing tells a secret: each has a mark, every connection fails in every way, and marks are looked for everywhere.

Everywhere is: all files under TAXIFARE_HOME – Dagster's runs and events, MLflow, ledger, downloads –, what is printed
and logged, and the errors with what they were raised from.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from taxifare.approval import delivery
from taxifare.approval.approvals import Approvals
from taxifare.approval.versions import registry_of
from taxifare.cli.main import app
from taxifare.settings import Settings
from taxifare.sources import web
from taxifare_dagster.build import build_definitions
from taxifare_dagster.command import surroundings
from tests.support.echo import Echo, echo_server
from tests.support.world import World, world_settings

FAULTS = ("refusing", "echoing 404", pytest.param("echoing 500", marks=pytest.mark.slow), "redirecting")
_numbers = count(7_100_001)


class Marks:
    """Secrets that are told apart."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """A secret of that name, unlike any other text."""
        mark = f"open{next(_numbers)}sesame"
        self.names[mark] = name
        return mark

    def found_in(self, content: bytes) -> set[str]:
        """The names of the secrets in there."""
        return {name for mark, name in self.names.items() if mark.encode() in content}


@contextmanager
def failing(fault: str, closed_port: int) -> Iterator[tuple[str, list[Echo]]]:
    """Host and port where every connection fails so, and the servers behind it."""
    with ExitStack() as stack:
        if fault == "refusing":
            yield f"127.0.0.1:{closed_port}", []
        elif fault == "redirecting":
            elsewhere = stack.enter_context(echo_server(status=403))
            onward = elsewhere.host.replace("127.0.0.1", "localhost")
            first = stack.enter_context(echo_server(status=307, onward=onward))
            yield first.host, [first, elsewhere]
        else:
            server = stack.enter_context(echo_server(status=int(fault.rpartition(" ")[2])))
            yield server.host, [server]


def of_sources(host: str, mark: Marks) -> dict[str, dict[str, object]]:
    """Settings of the sources, whose addresses have a login and are signed."""

    def address(name: str) -> str:
        return f"http://{mark(f'{name} user')}:{mark(f'{name} password')}@{host}/{name}?sig={mark(f'{name} query')}"

    chicago = {"city": "chicago", "chicago_url": address("chicago"), "chicago_app_token": mark("app token")}
    return {
        "chicago": chicago,
        "tlc": {"tlc_url": address("tlc")},
        "lewagon": {"lewagon_url": address("lewagon")},
    }


def of_channels(host: str, mark: Marks) -> dict[str, object]:
    """Settings of every channel."""
    return {
        "chat_base_url": f"http://{mark('chat user')}:{mark('chat password')}@{host}/api?key={mark('chat query')}",
        "chat_channel": "batch",
        "slack_webhook_url": f"http://{host}/services/{mark('webhook path')}?key={mark('webhook query')}",
        "notify_urls": f"json://ada:{mark('service password')}@{host}/{mark('service path')}"
        f" nonsense://{mark('unknown service')}@{host}",
        "approval_secret": mark("approval secret"),
        "guard_user": "ada",
        "guard_password": mark("guard password"),
    }


class Witness:
    """Looks for marks wherever somebody may look."""

    def __init__(self, world: World, mark: Marks, logged: pytest.LogCaptureFixture) -> None:
        self.home, self.instance = world.settings.home, world.instance
        self._mark, self._logged = mark, logged
        self.told = ""

    def run(self, settings: Settings, job: str, **arguments: object) -> dg.ExecuteInProcessResult:
        """Runs a job of the definitions as they are, in the world's instance."""
        definition = build_definitions(settings).resolve_job_def(job)
        return definition.execute_in_process(instance=self.instance, raise_on_error=False, **arguments)  # type: ignore[arg-type]

    def command(self, settings: dict[str, object], *words: str) -> Result:
        """Runs a command under the settings."""
        environment = {name.upper(): str(value) for name, value in settings.items()}
        done = CliRunner().invoke(app, list(words), obj=surroundings(), env=environment)
        if done.exception is not None:
            self.hear(done.exception)
        self.told += done.output
        return done

    def hear(self, error: BaseException) -> None:
        """Keeps an error as Dagster stores it: with what it was raised from."""
        self.told += "".join(traceback.format_exception(error))

    def attempt(self, act: Callable[[], object]) -> None:
        """Does what fails, and hears how."""
        with pytest.raises(Exception, match=r".") as failure:
            act()
        self.hear(failure.value)

    def tell(self, servers: list[Echo]) -> list[str]:
        """Where which secret was found."""
        for login in (login for server in servers for login in server.logins):
            self._mark.names[login] = "a login as HTTP sends it"
        places = {"said": self.told.encode(), "logged": self._logged.text.encode()}
        places |= {
            str(file.relative_to(self.home)): file.read_bytes() for file in self.home.rglob("*") if file.is_file()
        }
        return [f"{name} in {place}" for place, content in places.items() for name in self._mark.found_in(content)]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ATTEMPTS", 1)
    monkeypatch.setattr(delivery, "ATTEMPTS", 1)


@pytest.fixture
def mark() -> Marks:
    return Marks()


@pytest.mark.parametrize("fault", FAULTS)
def test_sources_that_fail_tell_no_secret(
    empty: World, mark: Marks, closed_port: int, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness(empty, mark, caplog)
    with failing(fault, closed_port) as (host, servers):
        for source, its_own in of_sources(host, mark).items():
            given = {"trip_source": source, "taxifare_home": empty.settings.home, **its_own}
            settings = world_settings(**{"home": empty.settings.home, **its_own, "trip_source": source})
            month = witness.run(
                settings, "monthly_job", partition_key="2015-01-01", asset_selection=[dg.AssetKey("raw_new_data")]
            )
            assert not month.success
            for command in ("months", "doctor"):
                witness.command(given, command)
            assert source in witness.told
        if fault == "redirecting":
            assert servers[1].received
            assert not [h for h in servers[1].received if {"authorization", "x-app-token", "cookie"} & set(h)]
        assert witness.tell(servers) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_channels_that_fail_tell_no_secret(
    trained: World, mark: Marks, closed_port: int, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    witness, home = Witness(trained, mark, caplog), trained.settings.home
    with failing(fault, closed_port) as (host, servers):
        channels = of_channels(host, mark)
        settings = world_settings(home, **channels)
        ops = {"send_approval_message": {"config": {"subject": "base"}}}
        assert not witness.run(settings, "approval_job", run_config={"ops": ops}).success
        approvals = Approvals.from_settings(settings, registry_of(settings))
        (request,) = approvals.record.open_requests()
        answer = {
            "request": request.id,
            "token": "not the one",
            "decision": "approve",
            "decided_by": "Ada",
            "reason": "the first",
        }
        for token in ("not the one", approvals.answer_tokens(request)["approve"]):
            config = {"ops": {"decide": {"config": answer | {"token": token}}}}
            witness.run(settings, "decision_job", run_config=config)
        given = {"taxifare_home": home, **channels}
        for words in (["doctor"], ["requests", "--all"], ["history"]):
            witness.command(given, *words)
        if fault == "redirecting":
            assert not servers[1].received
        assert witness.tell(servers) == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", ["in the address", "beside it"])
def test_an_mlflow_server_that_fails_tells_no_login(
    empty: World, mark: Marks, closed_port: int, fault: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    witness, home = Witness(empty, mark, caplog), empty.settings.home
    with failing(fault, closed_port) as (host, servers):
        user, password = mark("user"), mark("password")
        login = f"{user}:{password}@" if way == "in the address" else ""
        store: dict[str, object] = {"mlflow_tracking_uri": f"http://{login}{host}"}
        if not login:
            mark.names.pop(user)
            store |= {"mlflow_tracking_username": user, "mlflow_tracking_password": password}
        settings = world_settings(home, **store)
        assert not witness.run(settings, "monthly_job", partition_key="2015-01-01").success
        for words in (["doctor"], ["rollback", "--by", "Ada", "--reason", "a test"], ["tuned"]):
            witness.command({"taxifare_home": home, **store}, *words)
        witness.attempt(registry_of(settings).prepare)
        if servers:
            assert servers[0].logins
        if fault == "redirecting":
            assert not servers[1].logins
        assert witness.tell(servers) == []


def test_a_database_that_fails_tells_no_password(
    empty: World, mark: Marks, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    witness, home = Witness(empty, mark, caplog), empty.settings.home
    at = f"127.0.0.1:{closed_port}"
    for url in (
        f"postgresql://ada:{mark('password')}@{at}/taxi",
        f"postgresql://{at}/taxi?user=ada&password={mark('password in the query')}",
        f"postgresql://ada:{mark('password with a slash')}/{mark('the rest of it')}@{at}/taxi",
        f"postgresql://ada:{mark('password with an at')}@{mark('after the at')}:{mark('after a colon')}@{at}/taxi",
        f"ada:{mark('no address')}@{at}/taxi",
    ):
        given = {"taxifare_home": home, "database_url": url}
        for words in (["doctor"], ["requests"], ["decide", "r", "--by", "Ada", "--reason", "a test", "--approve"]):
            assert witness.command(given, *words).exit_code != 0
        settings = world_settings(home, database_url=url)
        witness.attempt(lambda settings=settings: witness.run(settings, "reminder_job") and 1 / 0)
    assert witness.tell([]) == []


@pytest.mark.parametrize(
    "name", ["guard_password", "approval_secret", "slack_webhook_url", "notify_urls", "database_url", "chicago_url"]
)
def test_a_secret_that_is_no_text_is_refused_unseen(
    tmp_path: Path, mark: Marks, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name.upper(), f"{mark(name)}\udce9")
    done = CliRunner().invoke(app, ["requests"], obj=surroundings(), env={"TAXIFARE_HOME": str(tmp_path / "state")})
    assert done.exit_code == 2
    assert f"{name.upper()}: expected" in done.output
    assert not mark.found_in(done.output.encode("utf-8", "replace"))
