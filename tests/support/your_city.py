"""Saint-Denis, the city of one's own that docs/your-city.md describes: its files as they stand there."""

import re
from pathlib import Path

from tests.support.places import REPOSITORY


def write_files(folder: Path) -> None:
    """Writes the example's files into a folder: `saint-denis.yaml`, `make_trips.py`, `.env`."""
    text = (REPOSITORY / "docs" / "your-city.md").read_text()
    for name in ("saint-denis.yaml", "make_trips.py", ".env"):
        found = re.search(rf"^```\w+\n# {re.escape(name)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert found is not None, name
        (folder / name).write_text(found[1])
