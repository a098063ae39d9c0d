"""TensorFlow, imported after what has to be there before it, and without what it says to nobody.

That is lines about the processor, and about cards that are not there.
"""

import gc
import logging
import os
import re
import sys
import tempfile
from contextlib import suppress

_TO_NOBODY = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog")
"""How lines begin that native code writes at the level of information, and before it reads what level is asked for."""


def load_tensorflow() -> None:
    """Ensures that TensorFlow is imported; its warnings and errors, and what others say meanwhile, are printed.

    It brings a TLS library of its own. Where it was loaded before PostgreSQL's driver, the first connection over TLS
    ended the process ("free(): invalid pointer"); after the driver, both work.

    It is a million objects that stay: garbage is not looked for among them, neither while they come, nor again and
    again, nor for three seconds when the process ends.
    """
    if "tensorflow" in sys.modules:
        return
    with suppress(ModuleNotFoundError):  # whoever has no ledger may have no driver
        import psycopg  # noqa: F401
    stderr, is_collecting = os.dup(2), gc.isenabled()
    gc.disable()
    with tempfile.TemporaryFile() as said:
        try:
            os.dup2(said.fileno(), 2)
            import keras  # noqa: F401
        finally:
            if is_collecting:
                gc.enable()
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not _TO_NOBODY.match(line)))
    gc.freeze()
    # It takes each newly loaded model for the same one compiled again, and warns of that.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
