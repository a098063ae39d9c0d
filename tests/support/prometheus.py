"""A real Prometheus on loopback that scrapes a server and evaluates the alerts of `deploy/prometheus` at once."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest
import requests

from tests.support.places import REPOSITORY
from tests.support.servers import free_port

DEPLOYED = REPOSITORY / "deploy" / "prometheus"


def program(name: str) -> str:
    """Where a program of Prometheus is; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus)")
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def has_scraped(self) -> bool:
        """Whether every target was reached."""
        try:
            found = requests.get(f"{self.url}/api/v1/targets", timeout=5).json()["data"]["activeTargets"]
        except requests.ConnectionError:
            return False
        return bool(found) and all(target["health"] == "up" for target in found)

    def firing(self) -> dict[str, str]:
        """The alerts that fire, with their summaries."""
        try:
            found = requests.get(f"{self.url}/api/v1/alerts", timeout=5).json()["data"]["alerts"]
        except requests.ConnectionError:
            return {}
        firing = (alert for alert in found if alert["state"] == "firing")
        return {alert["labels"]["alertname"]: alert["annotations"]["summary"] for alert in firing}


@contextmanager
def prometheus(folder: Path, **targets: str) -> Iterator[Prometheus]:
    """A Prometheus that scrapes jobs of these names, where underscores are hyphens, every half a second."""
    started, port = program("prometheus"), free_port()
    rules = re.sub(r"for: \w+", "for: 0s", (DEPLOYED / "alerts.yml").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alerts.yml").write_text(re.sub(r"rules:", "interval: 500ms\n    rules:", rules))
    jobs = "".join(
        f"  - job_name: {name.replace('_', '-')}\n    static_configs: [{{ targets: ['{target}'] }}]\n"
        for name, target in targets.items()
    )
    every = "global: { scrape_interval: 500ms, scrape_timeout: 500ms }"
    (folder / "prometheus.yml").write_text(f"{every}\nrule_files: [alerts.yml]\nscrape_configs:\n{jobs}")
    arguments = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with Popen([started, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stdout=DEVNULL, stderr=DEVNULL) as run:
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            run.terminate()
