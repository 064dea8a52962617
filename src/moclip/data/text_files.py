"""Decode text files that people have written: UTF-8, or UTF-16 and UTF-32 with a byte-order mark."""

from __future__ import annotations

import codecs
from pathlib import Path

from moclip.errors import DatasetError

ENCODING_FIX = "save it as UTF-8 (in Notepad: Save as, Encoding; elsewhere: iconv -f OLD -t UTF-8)"

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # must come before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text_file(path: Path) -> str:
    """Return the text of a file. Raises DatasetError if it cannot be read or is in another encoding."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DatasetError(f"cannot be read: {problem.strerror or problem}", where=path) from None
    text = decode_text(content)
    if text is None:
        what = "not text in UTF-8, nor in UTF-16 with a byte-order mark"
        raise DatasetError(what, where=path, fix=ENCODING_FIX)
    return text


def decode_text(content: bytes) -> str | None:
    """Return the text of a file; None where it is in another encoding, such as UTF-16 without a mark."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def undecodable_line(content: bytes) -> int | None:
    """Return the number of the first line, from 1, that is not UTF-8; None where UTF-8 is not what is wrong."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as problem:
        return content.count(b"\n", 0, problem.start) + 1
    return None
