"""`deploy/compose.yaml` without docker: its commands as processes of this machine, in a network and folders of its own.

Each process has the names, ports, files and variables that compose would give its container. A network namespace of
their own has nothing but loopback, where every part listens on its own port; in its mount namespace a process finds
/etc/hosts, which leads the parts' names there, and under /srv the volumes that are its own. What an image brings is
that of this machine: programs, PostgreSQL's start on an empty folder.
"""

import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.places import REPOSITORY
from tests.support.servers import postgres_programs

DEPLOY = REPOSITORY / "deploy"
COMPOSE = DEPLOY / "compose.yaml"

_NEW_NETWORK = 0x40000000
_VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")
_WORKING_FOLDER = "/srv/taxifare"
"""Of the image, where its workspace.yaml is."""

_libc = ctypes.CDLL(None, use_errno=True)


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services of compose.yaml, with these variables filled in; raises KeyError for one that has to be set."""

    def filled(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        value = variables.get(name, "")
        if not value and kind == "?":
            raise KeyError(name)
        return value or (default if kind == "-" else "")

    def fill(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: fill(value) for key, value in part.items()}
        if isinstance(part, list):
            return [fill(value) for value in part]
        return _VARIABLE.sub(filled, part) if isinstance(part, str) else part

    found: dict[str, Any] = fill(yaml.safe_load(COMPOSE.read_text()))["services"]
    return found


def can_be_composed() -> str | None:
    """Why the parts cannot be started on this machine, None where they can."""
    if os.geteuid() != 0:
        return "network and mount namespaces take root"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        return f"no namespaces here: {tried.stderr.decode().strip()}"
    for program in ("nginx", "prometheus"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return f"{program} is not installed"
    return None if postgres_programs() else "PostgreSQL is not installed (apt-get install postgresql)"


@dataclass
class Composition:
    """The parts, each started after what it needs.

    Attributes:
        folder: Of volumes and logs.
        services: As compose.yaml has them, variables filled in.
        settings: What `settings.env` would hold.
    """

    folder: Path
    services: Mapping[str, Any]
    settings: Mapping[str, str]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _up: set[str] = field(default_factory=set)
    _mounted_on: set[Path] = field(default_factory=set)

    def up(self, *names: str) -> None:
        """Starts these parts, each after those that it depends on, and waits until all are healthy or have done."""
        for name in names:
            self._begin(name)
        for name in names:
            self._wait_for(name)

    def _begin(self, name: str) -> None:
        if name in self._begun:
            return
        self._begun.add(name)
        self.up(*self.services[name].get("depends_on", {}))
        if name == "postgres":
            self._make_databases()
        else:
            service = self.services[name]
            self._running[name] = self.start(name, [*service.get("entrypoint", ()), *service["command"]])

    def _wait_for(self, name: str) -> None:
        if name in self._up:
            return
        if self.services[name].get("restart") == "no":
            assert self._running[name].wait(600) == 0, self.log(name)
        elif name in self._running:
            self.wait_until_healthy(name)
        self._up.add(name)

    def start(self, name: str, command: Sequence[str], log: str | None = None) -> subprocess.Popen[bytes]:
        """A process in the place of a part: with its variables, volumes, network."""
        mounts = "\n".join(self._mounts(self.services[name]))
        script = f"set -e\n{mounts}\ncd {_WORKING_FOLDER} 2>/dev/null || cd /srv\nexec {shlex.join(command)}"
        with (self.folder / f"{log or name}.log").open("ab") as output:
            return subprocess.Popen(
                # Where tests run in the background, they ignore interrupts, and so would a code server told to end.
                ["env", "--default-signal=INT", "unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                env=self._environment(self.services[name]),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def run(self, name: str, *command: str, within_s: float = 300) -> str:
        """What a command in the place of a part says; fails where it does."""
        log = f"{name}-{command[-1].rpartition('/')[2]}"
        (self.folder / f"{log}.log").unlink(missing_ok=True)
        assert self.start(name, command, log).wait(within_s) == 0, self.log(log)
        return self.log(log)

    def log(self, name: str) -> str:
        """What a part has said, its end."""
        return (self.folder / f"{name}.log").read_text()[-6000:]

    def wait_until_healthy(self, name: str, within_s: float = 600) -> None:
        """Waits for the health check that compose.yaml has for the part."""
        check, until = self.services[name]["healthcheck"]["test"][1:], time.monotonic() + within_s
        while self.start(name, check, f"{name}-health").wait(120) != 0:
            code = self._running[name].poll()
            assert code is None, f"{name} ended with {code}:\n{self.log(name)}"
            assert time.monotonic() < until, f"{name} is not healthy:\n{self.log(f'{name}-health')}{self.log(name)}"
            time.sleep(0.5)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """What runs a part."""
        return self._running[name]

    def takes_the_place(self, second: str, first: str) -> None:
        """Ensures that a part which was started beside another one goes by its name."""
        self._running[first] = self._running.pop(second)
        for names in (self._begun, self._up):
            names.remove(second)
            names.add(first)

    def stop(self, name: str, by: signal.Signals = signal.SIGTERM, patience_s: float = 120) -> int:
        """The exit code of a part that was told to end, or killed."""
        process = self._running.pop(name)
        self._begun.remove(name)
        self._up.remove(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, by)
        return process.wait(patience_s)

    def end(self) -> None:
        """Ensures that nothing runs any more."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if (self.folder / "postgres" / "data").exists():
            self._postgres("pg_ctl", "stop", "-D", "data", "--mode", "immediate")
        for target in self._mounted_on:
            target.rmdir()

    def _mounts(self, service: Mapping[str, Any]) -> Iterator[str]:
        yield f"mount --bind {self.folder}/hosts /etc/hosts"
        yield f"mount -t tmpfs srv /srv && mkdir -p {_WORKING_FOLDER}"
        yield f"cp {DEPLOY}/workspace.yaml {_WORKING_FOLDER}/"
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            if source.startswith(("./", "/")):
                place = DEPLOY / source
                made = f"mkdir -p {target}" if place.is_dir() else f"mkdir -p $(dirname {target}) && touch {target}"
                yield f"{made} && mount --bind {place} {target}"
            else:
                (self.folder / source).mkdir(exist_ok=True)
                if not (place := Path(target)).is_relative_to("/srv") and not place.exists():
                    place.mkdir()
                    self._mounted_on.add(place)
                yield f"mkdir -p {target} && mount --bind {self.folder}/{source} {target}"
        for secret in service.get("secrets", ()):
            yield f"mount -t tmpfs run /run && mkdir /run/secrets && cp {self.folder}/{secret} /run/secrets/{secret}"

    def _environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        programs = Path(sys.executable).parent
        image = {
            "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": str(REPOSITORY),
            "TAXIFARE_HOME": "/srv/taxifare/state",
            "DAGSTER_HOME": "/srv/taxifare/state/dagster",
            "HOME": str(self.folder),
        }
        given = self.settings if service.get("env_file") else {}
        return {**image, **given, **service.get("environment", {})}

    def _make_databases(self) -> None:
        """Does what PostgreSQL's image does on an empty folder: makes a server, and runs the script it is given.

        Unlike the image's it takes connections that are encrypted, and no others, as a managed one would.
        """
        place = self.folder / "postgres"
        place.mkdir()
        shutil.chown(place, "postgres")
        self._postgres("initdb", "--pgdata", "data", "--username", "postgres", "--auth", "trust", "--no-sync")
        with (place / "data" / "pg_hba.conf").open("w") as rules:
            rules.write("local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
        for name in ("certificate.pem", "key.pem"):
            shutil.chown(shutil.copy(self.folder / name, place), "postgres")
        encrypted = f"-c ssl=on -c ssl_cert_file={place}/certificate.pem -c ssl_key_file={place}/key.pem"
        options = f"-k {place} -c listen_addresses=127.0.0.1 -c fsync=off {encrypted}"
        self._postgres("pg_ctl", "start", "--wait", "-D", "data", "-l", "log", "-o", options)
        environment = {**self._environment(self.services["postgres"]), "PGHOST": str(place)}
        script = DEPLOY / "postgres" / "databases.sh"
        subprocess.run([script], env=environment, cwd=place, user="postgres", check=True, stdout=subprocess.DEVNULL)

    def _postgres(self, program: str, *arguments: str) -> None:
        programs = postgres_programs()
        assert programs is not None
        subprocess.run(
            [programs / program, *arguments],
            user="postgres",
            cwd=self.folder / "postgres",
            check=True,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def composed(variables: Mapping[str, str], settings: Mapping[str, str]) -> Iterator[Composition]:
    """The parts of compose.yaml, none of them started; whoever is in the block is in their network, on loopback."""
    # PostgreSQL refuses to run as root, and pytest's own folders are closed to everybody else.
    folder = Path(tempfile.mkdtemp(prefix="taxifare-composed-"))
    folder.chmod(0o755)
    found = services(variables)
    # A second container of it is beside the first while one image takes over from another; both listen on its port.
    found["code-2"] = found["code"]
    names = " ".join(found)
    (folder / "hosts").write_text(f"127.0.0.1 localhost {names}\n")
    (folder / "service-token").write_text(variables["SERVICE_TOKEN"])
    _make_certificate("postgres", folder)
    with _network_of_its_own():
        composition = Composition(folder, found, settings)
        try:
            yield composition
        finally:
            composition.end()
    shutil.rmtree(folder)


def _make_certificate(host: str, folder: Path) -> None:
    """Writes a host's key and certificate, which is its own authority, into a folder."""
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={host} -keyout key.pem -out certificate.pem"
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)


@contextmanager
def _network_of_its_own() -> Iterator[None]:
    """Puts this thread, and the processes it starts, into a network that has nothing but loopback."""
    with Path("/proc/thread-self/ns/net").open() as before:
        if _libc.unshare(_NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if _libc.setns(before.fileno(), _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "setns")
