"""README as a newcomer has it: a clone to type in, and the commands that README names, in the order one reads them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.places import REPOSITORY
from tests.support.servers import server_process

README = (REPOSITORY / "README.md").read_text()
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`(make|(?:make|taxifare|\.venv/bin/\S+) [^`]+)`")
_NOT_CLONED = {"state", ".env", ".git", ".venv"}

_PATIENCE_S = 900
"""For a command: beside two other tests on two cores the whole demo takes more than five minutes."""


def fences(language: str) -> list[str]:
    """The blocks of README in a language; `""` is what is printed."""
    return [block for found, block in _FENCE.findall(README) if found == language]


def commands() -> list[str]:
    """Every command of README once: the lines of its `sh` blocks, and those that text and tables name."""

    def found() -> Iterator[str]:
        for block in re.split(r"^(```sh\n.*?^```$)", README, flags=re.MULTILINE | re.DOTALL):
            if block.startswith("```sh"):
                yield from (line.partition(" #")[0].strip() for line in block.splitlines()[1:-1])
            else:
                yield from _NAMED.findall(_FENCE.sub("", block))

    return list(dict.fromkeys(re.sub("^taxifare ", ".venv/bin/taxifare ", command) for command in found()))


@dataclass(frozen=True)
class Clone:
    """A folder that looks like a fresh clone: README's commands are typed in it as they stand there.

    Attributes:
        folder: Where it is; its state is its own.
        settings: The environment that commands run in, besides this process's own.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in REPOSITORY.iterdir():
            if entry.name not in _NOT_CLONED:
                (self.folder / entry.name).symlink_to(entry)
        (self.folder / ".venv").symlink_to(sys.prefix)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that commands run in; what they write for the shell stays in the clone."""
        # A make that runs the tests would have the commands' own make say where it enters and leaves.
        own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
        return {**own, "HOME": str(self.folder), "SHELL": "/bin/bash", **self.settings}

    def types(self, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """What a command that ends by itself has said."""
        return subprocess.run(
            ["bash", "-c", f"{_without_installing(command)}; exit $?"],
            env=self.environment | settings,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )

    def printed(self, command: str, **settings: str) -> str:
        """What a command that must succeed prints."""
        ended = self.types(command, **settings)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
        return ended.stdout

    @contextmanager
    def server(self, command: str, url: str, **settings: str) -> Iterator[Path]:
        """A command that serves until it is told to end, ready at its URL; yields the file with what it says."""
        log = self.folder / "server.log"
        log.unlink(missing_ok=True)
        arguments = ["bash", "-c", f"exec {_without_installing(command)}"]
        with server_process(arguments, url, log, self.environment | settings):
            yield log


def _without_installing(command: str) -> str:
    """The environment is there; a lock file that is younger than it is no reason to make it anew."""
    return re.sub("^make", "make -o .venv/installed", command)
