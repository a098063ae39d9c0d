"""Which code is at work: what git says of the folder that this package lies in, or its version, in an image.

An image has no git; deploy/Dockerfile puts the commit behind the version, 0.1.0+COMMIT.
"""

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

COMMIT_TAG = "taxifare.commit"

TREE_TAG = "taxifare.tree"
"""Whether the files that git knows are as the commit has them: `clean`, `changed` or `unknown`."""

_UNKNOWN = "unknown"

_TIMEOUT_S = 10

_PROJECT = Path(__file__).resolve().parents[2]


@cache
def code_tags() -> Mapping[str, str]:
    """Returns the tags that say which code is at work; asked once a process, which keeps the code it has loaded."""
    built_from = version("taxifare").partition("+")[2]
    return {COMMIT_TAG: built_from, TREE_TAG: _UNKNOWN} if built_from else tags_of(_PROJECT)


def version_in_words() -> str:
    """Returns the version, with the commit where it is known and a word where files were changed since."""
    number, commit, tree = version("taxifare").partition("+")[0], code_tags()[COMMIT_TAG], code_tags()[TREE_TAG]
    if commit == _UNKNOWN:
        return number
    return f"{number} ({commit[:12]}{', changed since' if tree == 'changed' else ''})"


def tags_of(project: Path) -> Mapping[str, str]:
    """Returns the commit that a project's folder is at and whether it was changed since.

    Both are unknown where there is no git, and where the folder is not the top of its repository: installed into an
    environment within somebody else's, the package would be taken for theirs.
    """
    answer = _git(project, "rev-parse", "--show-toplevel", "HEAD")
    status = _git(project, "status", "--porcelain", "--untracked-files=no")
    top, _, commit = (answer or "").strip().partition("\n")
    if status is None or not commit or Path(top).resolve() != project.resolve():
        return {COMMIT_TAG: _UNKNOWN, TREE_TAG: _UNKNOWN}
    return {COMMIT_TAG: commit, TREE_TAG: "changed" if status else "clean"}


def _git(folder: Path, *command: str) -> str | None:
    """Returns what git prints, None where it cannot tell."""
    # A hook of another repository that runs this would point git there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - no part of the command comes from outside
            ["git", "--no-optional-locks", "-C", str(folder), *command],  # noqa: S607 - the git of whoever runs this
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
