"""CSV by blocks: the same rows wherever a block ends, read by nobody else than who asks."""

import io
import threading
from unittest.mock import patch

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.trips import csv_blocks

AS_TEXT = pa.csv.ConvertOptions(default_column_type=pa.string())
ENDS = st.sampled_from(["\n", "\r\n"])
_PLAIN = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters=',"\ufeff')
VALUES = st.text(_PLAIN, max_size=9)


def read(text: bytes, block_bytes: int) -> list[dict[str, str]]:
    with patch.object(csv_blocks, "BLOCK_BYTES", block_bytes):
        schema, batches = csv_blocks.open_csv(io.BytesIO(text), AS_TEXT)
        return pa.Table.from_batches(batches, schema).to_pylist()


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20), ENDS, st.integers(64, 200), st.booleans())
def test_rows_do_not_depend_on_where_a_block_ends(
    rows: list[tuple[str, str]], end: str, block_bytes: int, is_marked: bool
) -> None:
    lines = ["key,fare", *(f"{key},{fare}" for key, fare in rows)]
    text = (b"\xef\xbb\xbf" if is_marked else b"") + "".join(line + end for line in lines).encode()
    assert read(text, block_bytes) == [{"key": key, "fare": fare} for key, fare in rows]


def test_nobody_reads_ahead() -> None:
    """Arrow's own reader did, in a thread that outlived it: `predict` was aborted at its end, and the doctor hung."""
    readers = set()

    class Text(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            readers.add(threading.get_ident())
            return super().read(size)

    text = Text(b"key,fare\n" + b"a,7.5\n" * 1_000)
    with patch.object(csv_blocks, "BLOCK_BYTES", 64):
        _, batches = csv_blocks.open_csv(text, AS_TEXT)
        next(batches)
        del batches
    assert readers == {threading.get_ident()}
    assert text.tell() <= 128


@pytest.mark.parametrize("text", [b"", b"\n\n", b"key,fare\na,1\nb,2,3\n" + b"c,4\n" * 50, b"key\n" + b"x" * 500])
def test_what_is_no_csv_is_refused(text: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        read(text, 64)
