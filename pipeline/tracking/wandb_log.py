"""The log files in which W&B keeps what a process told it, read and written record by record.

The format is LevelDB's log with a header of W&B's: blocks of 32 KiB, in them fragments with a
checksum. W&B ships the records' types (``wandb.proto``) and a viewer, but nothing that writes one.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK = 32 * 1024
FRAGMENT = struct.Struct("<IHB")
"""Checksum, length, and which part of a record it is."""
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4

Record = Any  # wandb.proto.wandb_internal_pb2.Record, which has no types


def read_log(path: Path) -> tuple[list[Record], bool]:
    """The whole records of a log, and whether it ends there: a killed process tears the last."""
    from wandb.proto import wandb_internal_pb2

    decode = getattr(wandb_internal_pb2, "Record").FromString  # noqa: B009 (it has no types)

    content = path.read_bytes()
    if content[: len(HEADER)] != HEADER:
        return [], False
    records: list[Record] = []
    started = b""
    end = len(HEADER)
    for part, data, after in _fragments(content):
        started = data if part in (WHOLE, FIRST) else started + data
        if part in (WHOLE, LAST):
            records.append(decode(started))
            end = after
    return records, not content[end:].strip(b"\0")


def write_log(path: Path, records: Iterable[Record]) -> None:
    """Write a log that holds ``records``."""
    content = bytearray(HEADER)
    for record in records:
        data = record.SerializeToString()
        is_first = True
        while is_first or data:
            room = BLOCK - len(content) % BLOCK
            if room < FRAGMENT.size:
                content += bytes(room)
                room = BLOCK
            piece, data = data[: room - FRAGMENT.size], data[room - FRAGMENT.size :]
            part = (WHOLE if is_first else LAST) if not data else FIRST if is_first else MIDDLE
            content += FRAGMENT.pack(_checksum(part, piece), len(piece), part) + piece
            is_first = False
    path.write_bytes(content)


def _fragments(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Part, data and end of every fragment, up to the first that is torn or damaged."""
    at = len(HEADER)
    while True:
        if BLOCK - at % BLOCK < FRAGMENT.size:
            at += BLOCK - at % BLOCK
        if at + FRAGMENT.size > len(content):
            return
        checksum, length, part = FRAGMENT.unpack_from(content, at)
        at += FRAGMENT.size
        data = content[at : at + length]
        if part not in (WHOLE, FIRST, MIDDLE, LAST) or checksum != _checksum(part, data):
            return
        at += length
        yield part, data, at


def _checksum(part: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(bytes([part])))
