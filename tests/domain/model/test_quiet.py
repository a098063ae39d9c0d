"""TensorFlow is imported without lines for nobody, and nothing else is lost."""

import subprocess
import sys

from tests.support.places import REPOSITORY

PROGRAM = """
import os, sys, threading, warnings
from taxifare.model.quiet import load_tensorflow
class Speaker:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            os.write(2, b"W0000 00:00:1 7 a.cc:1] a warning of native code\\nan error of somebody else\\n")
sys.meta_path.insert(0, Speaker())
load_tensorflow()
loaded = list(sys.modules)
assert loaded.index("psycopg") < loaded.index("tensorflow"), "or a connection over TLS ends the process"
print("afterwards", file=sys.stderr)
"""


def test_only_what_is_for_nobody_is_left_out() -> None:
    """Two lines about oneDNN and two about CUDA greeted whoever opened the terminal of a run."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=True
    )
    assert ended.stderr.splitlines() == [
        "W0000 00:00:1 7 a.cc:1] a warning of native code",
        "an error of somebody else",
        "afterwards",
    ]
