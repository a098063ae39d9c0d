"""TensorFlow, imported without what it says to nobody: lines about the processor and cards that are not there."""

import logging
import os
import re
import sys
import tempfile

_TO_NOBODY = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog")
"""How lines begin that native code writes at the level of information, and before it reads what level is asked for."""


def load_tensorflow() -> None:
    """Ensures that TensorFlow is imported; its warnings and errors, and what others say meanwhile, are printed."""
    if "tensorflow" in sys.modules:
        return
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        try:
            os.dup2(said.fileno(), 2)
            import keras  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not _TO_NOBODY.match(line)))
    # It takes each newly loaded model for the same one compiled again, and warns of that.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
