"""Reading CSV a block of lines at a time, in the thread that asks for them.

`pyarrow.csv.open_csv` reads ahead in a thread of its own, which nobody can wait for: of a Python file it was still
reading when a process ended on an error, which then hung or was aborted (2 times in 25).
"""

from collections.abc import Iterable, Iterator
from gzip import GzipFile
from typing import IO

import pyarrow as pa
import pyarrow.csv

BLOCK_BYTES = 8 * 2**20
"""Bytes read at once, and of the longest line."""


def open_csv(
    text: IO[bytes] | GzipFile, convert_options: pa.csv.ConvertOptions
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    r"""Returns the columns of a CSV text and its rows, in batches; no value has a line break in it.

    >>> import io
    >>> schema, batches = open_csv(io.BytesIO(b"key,fare\na,7.5\nb,9\n"), pa.csv.ConvertOptions())
    >>> schema.names, [batch.num_rows for batch in batches]
    (['key', 'fare'], [2])

    Args:
        text: The text, in UTF-8, a header first. It is read to its end by whoever takes all batches.
        convert_options: Which columns are wanted and of which types. Without a type a column gets that of its block.

    Raises:
        pa.ArrowInvalid: It is no CSV; here, or when a batch is asked for.
        KeyError: A wanted column is not there.
    """
    blocks = _blocks(text)
    beginning = next(blocks, b"")
    first = _parsed(beginning, convert_options)
    header = next((line for line in beginning.splitlines(keepends=True) if line.strip()), b"")
    return first.schema, _batches(first, (header + block for block in blocks), convert_options)


def _batches(
    first: pa.Table, blocks: Iterable[bytes], convert_options: pa.csv.ConvertOptions
) -> Iterator[pa.RecordBatch]:
    yield from first.to_batches()
    for block in blocks:
        yield from _parsed(block, convert_options).to_batches()


def _parsed(block: bytes, convert_options: pa.csv.ConvertOptions) -> pa.Table:
    """Returns the rows of lines below a header, parsed as a whole in this thread."""
    options = pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1)
    return pa.csv.read_csv(pa.BufferReader(block), options, convert_options=convert_options)


def _blocks(text: IO[bytes] | GzipFile) -> Iterator[bytes]:
    """Yields the text in blocks that end with a line; the last one as the text ends."""
    rest = b""
    while read := text.read(BLOCK_BYTES):
        block = rest + read
        end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if end == 0 and len(block) > BLOCK_BYTES:
            raise pa.ArrowInvalid(f"CSV parse error: a line of more than {BLOCK_BYTES:,} bytes")
        rest = block[end:]
        if end:
            yield block[:end]
    if rest:
        yield rest
