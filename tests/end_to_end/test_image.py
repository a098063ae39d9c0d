"""The image, built from its recipe on a base of Debian's packages, and a month in it: no docker, no registry."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SMALL
from tests.support.places import REPOSITORY

PROGRAMS = ("buildah", "mmdebstrap", "podman", "runc")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.geteuid() != 0, reason="building and running images takes root here"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed (apt-get install): {' '.join(MISSING)}"),
]

BASE, IMAGE = "localhost/taxifare-test-base", "localhost/taxifare-test"
MACHINE = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
"""How this machine reaches its registries: lent to the build, and no part of the image."""


def run(*command: str | Path, **options: object) -> str:
    """What a command says; fails with it where the command does."""
    told = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert told.returncode == 0, f"{command}\n{told.stdout[-3000:]}{told.stderr[-3000:]}"
    return str(told.stdout)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, gone afterwards."""
    base = tmp_path_factory.mktemp("base") / "base.tar"
    packages = "--include=python3.11,python3.11-venv,ca-certificates"
    run("mmdebstrap", "--variant=minbase", packages, "bookworm", base)
    container = run("buildah", "from", "scratch").strip()
    run("buildah", "add", "--quiet", container, base, "/")
    run("buildah", "commit", "--quiet", container, BASE)
    run("buildah", "rm", container)
    lent = [f"--volume={path}:{path}:ro" for path in MACHINE if Path(path).exists()]
    recipe = ("--isolation=chroot", "--network=host", f"--build-arg=BASE_IMAGE={BASE}", "-f", "deploy/Dockerfile")
    run("buildah", "bud", *recipe, *lent, "--tag", IMAGE, ".", cwd=REPOSITORY)
    yield IMAGE
    run("podman", "rmi", "--force", IMAGE, BASE)


def container(image: str, *command: str, **variables: str) -> str:
    """What a command says in a container that has no more rights than compose.yaml gives."""
    return run(
        *("podman", "--runtime", "runc", "run", "--rm", "--network", "host", "--cgroups", "disabled"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(f"--env={name}={value}" for name, value in variables.items()),
        *("--volume", "taxifare-test-state:/srv/taxifare/state", image, *command),
    )


@pytest.fixture
def state() -> Iterator[None]:
    """A volume of its own, gone afterwards."""
    yield
    run("podman", "volume", "rm", "--force", "taxifare-test-state")


def test_the_image_runs_a_month_as_nobody(image: str, state: None) -> None:
    assert container(image, "id", "--user").strip() == "10001"
    assert container(image, "python", "--version").startswith("Python 3.11.")
    assert "nginx" in container(image, "sh", "-c", "command -v nginx || ls /usr/sbin/nginx")
    said = container(image, "python", "-m", "taxifare_dagster.demo", **{**SMALL, "LAST_MONTH": "2015-01"})
    assert "2015-01" in said
    assert "approved" in said


def test_the_image_holds_no_secret_no_state_and_no_test(image: str, state: None) -> None:
    files = container(image, "find", "/srv", "/opt/taxifare/bin", "-type", "f", "-printf", "%f\n").split()
    assert not {".env", "pytest", "ruff", "mypy"} & set(files)
    history = run("podman", "history", "--no-trunc", image)
    assert "PASSWORD" not in history
    assert "TOKEN" not in history
