"""The images, built from their recipe on a base of Debian's packages, and run: no docker, no registry of images."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import SMALL
from tests.support.lambda_events import event
from tests.support.places import REPOSITORY
from tests.support.services import RIDE, Installation

PROGRAMS = ("buildah", "mmdebstrap", "podman", "runc")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.geteuid() != 0, reason="building and running images takes root here"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed (apt-get install): {' '.join(MISSING)}"),
]

BASE = "localhost/taxifare-test-base"
MACHINE = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
"""How this machine reaches its registries: lent to the build, and no part of the image."""


def run(*command: str | Path, **options: Any) -> str:
    """What a command says; fails with it where the command does."""
    told = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert told.returncode == 0, f"{command}\n{told.stdout[-3000:]}{told.stderr[-3000:]}"
    return str(told.stdout)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base with the Python of the lock, from Debian's packages."""
    content = tmp_path_factory.mktemp("base") / "base.tar"
    packages = "--include=python3.11,python3.11-venv,ca-certificates"
    run("mmdebstrap", "--variant=minbase", packages, "bookworm", content)
    container = run("buildah", "from", "scratch").strip()
    run("buildah", "add", "--quiet", container, content, "/")
    run("buildah", "commit", "--quiet", container, BASE)
    run("buildah", "rm", container)
    yield BASE
    run("podman", "rmi", "--force", BASE)


@contextmanager
def built(base: str, target: str) -> Iterator[str]:
    """An image of the recipe, gone afterwards."""
    image = f"localhost/taxifare-test-{target}"
    lent = [f"--volume={path}:{path}:ro" for path in MACHINE if Path(path).exists()]
    arguments = (f"--build-arg=BASE_IMAGE={base}", "--build-arg=COMMIT=1bf2389c0ffee")
    chosen = ("--isolation=chroot", "--network=host", *arguments, f"--target={target}")
    run("buildah", "bud", *chosen, *lent, "--file=deploy/Dockerfile", f"--tag={image}", ".", cwd=REPOSITORY)
    yield image
    run("podman", "rmi", "--force", image)


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """That of all parts."""
    with built(base, "taxifare") as image:
        yield image


def in_container(image: str, *command: str, volume: str, **variables: str) -> list[str]:
    """The command that runs one in a container with no more rights than compose.yaml gives; its network is ours."""
    return [
        *("podman", "--runtime", "runc", "run", "--rm", "--network", "host", "--read-only", "--tmpfs", "/tmp"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--volume", volume),
        *(f"--env={name}={value}" for name, value in variables.items()),
        *(image, *command),
    ]


@pytest.fixture
def state() -> Iterator[str]:
    """A volume of its own, gone afterwards."""
    yield "taxifare-test-state:/srv/taxifare/state"
    run("podman", "volume", "rm", "--force", "taxifare-test-state")


def test_the_image_runs_a_month_as_nobody(image: str, state: str) -> None:
    def said(*command: str, **variables: str) -> str:
        return run(*in_container(image, *command, volume=state, **variables))

    assert said("id", "--user").strip() == "10001"
    assert said("python", "--version").startswith("Python 3.11.")
    assert said("ls", "/usr/sbin/nginx")
    assert said("taxifare", "--version") == "taxifare 0.1.0 (1bf2389c0ffe)\n"
    month = said("python", "-m", "taxifare_dagster.demo", **{**SMALL, "LAST_MONTH": "2015-01"})
    assert "2015-01" in month
    assert "approved" in month


def test_the_image_holds_no_secret_no_state_and_no_test(image: str, state: str) -> None:
    find = ("find", "/srv", "/opt/taxifare/bin", "-type", "f", "-printf", "%f\n")
    files = run(*in_container(image, *find, volume=state)).split()
    assert {"taxifare", "dagster", "workspace.yaml"} <= set(files)
    assert not {".env", "pytest", "ruff", "mypy"} & set(files)
    history = run("podman", "history", "--no-trunc", image)
    assert "PASSWORD" not in history
    assert "TOKEN" not in history


class Runtime(ThreadingHTTPServer):
    """AWS's side of a function, as its runtime API is published: hands out one event, and takes the answer."""

    daemon_threads = True

    def __init__(self, asked: Any) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeHandler)
        self.asked: list[bytes] = [json.dumps(asked).encode()]
        self.answer: Any = None
        self.answered = threading.Event()


class _RuntimeHandler(BaseHTTPRequestHandler):
    server: Runtime

    def do_GET(self) -> None:
        if not self.server.asked:
            self.server.answered.wait(600)
            self.close_connection = True
            return
        body = self.server.asked.pop()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
        self.send_header("Lambda-Runtime-Deadline-Ms", "9999999999999")
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-2:123456789012:function:x")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answer = self.path, json.loads(body)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *_: object) -> None:
        """Silence."""


def test_the_function_answers_a_request_of_the_gateway(base: str, tmp_path: Path) -> None:
    # Given a lake with a model in force, which a stranger to this machine may write to
    installation = Installation(tmp_path, 0)
    installation.promote("1")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o777)
    # When AWS's own client, in the image, is handed a request
    runtime = Runtime(event("POST", "/predict", {"ride_id": "a7", "ride": RIDE}))
    threading.Thread(target=runtime.serve_forever, daemon=True).start()
    aws = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "taxifare",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "_HANDLER": "taxifare.serving.aws.handler",
        "STORAGE_URI": "/lake",
    }
    with built(base, "lambda") as image:
        command = in_container(image, volume=f"{tmp_path}/lake:/lake", **aws)
        function = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        runtime.answered.wait(300)
        said, _ = function.communicate(timeout=60)
    runtime.shutdown()
    # Then it is priced by that model
    assert runtime.answer is not None, said
    path, answer = runtime.answer
    assert path.endswith("/response"), answer
    assert answer["statusCode"] == 200, answer
    assert json.loads(answer["body"])["model_version"] == "1"
    # And the answer is in the lake
    assert len(list((tmp_path / "lake" / "quotes").glob("*.jsonl"))) == 1
