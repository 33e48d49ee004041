# SPDX-License-Identifier: Apache-2.0
"""The section table of a Residua file (docs/format.md), read such that a damaged file is described too."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Any

from residua import _core
from residua._io.vector_file import file_size
from residua.errors import CorruptFileError

__all__ = ["Container", "Section", "is_container", "read_container"]

_SIGNATURE = b"\x89RSD\r\n\x1a\n"
_HEADER = struct.Struct("<8sHHIQQ24xQ")
_ENTRY = struct.Struct("<40sQQQ")
SMALL = 64 * 2**10  # sections up to this size are always verified


@dataclass(frozen=True)
class Section:
    """One section. `state`: `ok`, `damaged`, `truncated`, or `not verified`."""

    name: str
    bytes: int
    state: str


@dataclass
class Container:
    """What a file says about itself. `problems` is empty where nothing wrong was found."""

    version: tuple[int, int]
    bytes: int
    sections: list[Section] = field(default_factory=list)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return str(self.meta.get("", {}).get("kind", "unknown"))


def is_container(path: str) -> bool:
    """Whether a file begins with the signature."""
    try:
        with open(path, "rb") as file:
            return file.read(8) == _SIGNATURE
    except OSError:
        return False


def read_container(path: str, *, verify: bool) -> Container:
    """Describe a file: every section that the table lists, with its checksum compared where asked.

    Small sections are always verified. Raises CorruptFileError only where the header itself is not readable.
    """
    size = file_size(path)
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise CorruptFileError(f"{path}: truncated: {size} bytes, the header alone takes {_HEADER.size}")
        signature, major, minor, count, length, table_sum, head_sum = _HEADER.unpack(head)
        if signature != _SIGNATURE:
            raise CorruptFileError(f"{path}: is not a Residua file")
        if _core.store.xxh64(head[:56]) != head_sum:
            raise CorruptFileError(f"{path}: the header is damaged (checksum)")
        found = Container((major, minor), size)
        if length != size:
            found.problems.append(f"the header says {length} bytes, the file has {size}")
        table = file.read(_ENTRY.size * min(count, 4096))
        if len(table) < _ENTRY.size * count or _core.store.xxh64(table) != table_sum:
            found.problems.append("the section table is damaged")
            return found
        for name, at, section_bytes, checksum in _ENTRY.iter_unpack(table):
            text = name.rstrip(b"\0").decode("ascii", "replace")
            state = _state(file, at, section_bytes, checksum, verify)
            found.sections.append(Section(text, section_bytes, state))
            if state in ("damaged", "truncated"):
                found.problems.append(f"section {text} is {state}")
            elif text == "meta" or text.endswith(".meta"):
                file.seek(at)
                found.meta[text[:-4].rstrip(".")] = _parse_meta(file.read(section_bytes))
    return found


def _state(file: Any, at: int, size: int, checksum: int, verify: bool) -> str:
    end = file.seek(0, os.SEEK_END)
    if at + size > end:
        return "truncated"
    if not verify and size > SMALL:
        return "not verified"
    file.seek(at)
    return "ok" if _core.store.xxh64(file.read(size)) == checksum else "damaged"


def _parse_meta(data: bytes) -> dict[str, Any]:
    """Read the typed values of a meta section; what cannot be read is left out."""
    values: dict[str, Any] = {}
    if len(data) < 8:
        return values
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        if at + 8 > len(data):
            break
        kind, _zero, key_size, value_size = struct.unpack_from("<BBHI", data, at)
        at += 8
        key = data[at : at + key_size].decode("utf-8", "replace")
        raw = data[at + key_size : at + key_size + value_size]
        at += key_size + value_size
        if kind == 0 and len(raw) == 8:
            values[key] = struct.unpack("<q", raw)[0]
        elif kind == 1 and len(raw) == 8:
            values[key] = struct.unpack("<d", raw)[0]
        elif kind == 2:
            values[key] = raw.decode("utf-8", "replace")
        else:
            values[key] = f"{len(raw)} bytes"
    return values
