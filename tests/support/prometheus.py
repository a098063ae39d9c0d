"""A real Prometheus on loopback that scrapes a server and evaluates the alerts of `deploy/prometheus` at once."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.places import REPOSITORY
from tests.support.servers import free_port, server_process

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
        found = self._asked("targets", "activeTargets")
        return bool(found) and all(target["health"] == "up" for target in found)

    def firing(self) -> dict[str, str]:
        """The alerts that fire, with their summaries."""
        firing = (alert for alert in self._asked("alerts", "alerts") if alert["state"] == "firing")
        return {alert["labels"]["alertname"]: alert["annotations"]["summary"] for alert in firing}

    def _asked(self, address: str, name: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/{address}", timeout=5)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"][name]
        return found


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
    url = f"http://127.0.0.1:{port}"
    arguments = [started, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    arguments.append(f"--web.listen-address=127.0.0.1:{port}")
    # Until it has read its own log of samples, it answers 503 without JSON.
    with server_process(arguments, f"{url}/-/ready", folder / "prometheus.log", os.environ):
        yield Prometheus(url)
