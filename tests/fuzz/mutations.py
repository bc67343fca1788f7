"""Damaged variants of valid files. The variant is a function of the random generator and the seeds alone."""

import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

NASTY_NUMBERS = (
    b"nan", b"NaN", b"inf", b"-Infinity", b"1e308", b"-1e308", b"1e-320", b"1e400", b"-0", b"-0.0", b"0", b"-1", b"0.5", b"1e5",
    b"100000", b"2147483648", b"4294967295", b"9223372036854775808", b"1" + b"0" * 40, b"9" * 5000, b"0x10", b"1_000", b"1,5",
    b"+7", b"1e", b".", b"true", b"null", b'"7"', b"1" * 11,
)  # fmt: skip

NASTY_TEXT = (
    b"\0", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n", b"\n\n", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1c",
    b"#", b":", b",", b"..", b"/", b"\\", b"../../x", b"/etc/x", b"\xd9\xa1\xd9\xa2", b"{", b"}", b"[", b"]", b'"', b"'", b"%s",
    b"[" * 3000, b'{"a":' * 3000, b"(" * 300, b" " * 300, b"\t", b"A" * 2000, b"\\ud800",
)  # fmt: skip

NASTY_JSON: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 10**40, 2**31, 2**63, "", "7", "a\nb",
    "\ud800", "..", "x" * 3000, [], {}, [1], {"a": 1}, [[]], [None], {"": {}}, [0] * 12,
)  # fmt: skip

NASTY_WORDS = (0, 1, 2, 3, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 100_000, 60_000, 20_000)


def variant(rng: random.Random, seeds: Sequence[bytes], repair: Callable[[random.Random, bytes], bytes]) -> bytes:
    """Random bytes in one of 25 cases, an unchanged seed in one of 50, otherwise a seed with a few changes.

    Args:
      repair: makes checksums and lengths fit again, so that the change reaches what lies behind them.
    """
    dice = rng.random()
    if dice < 0.04:
        return rng.randbytes(rng.choice((0, 1, 7, 16, 64, 300)))
    data = rng.choice(seeds)
    if dice < 0.06:
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(CHANGES)(rng, data, seeds)
    return repair(rng, data)


def unrepaired(rng: random.Random, data: bytes) -> bytes:
    """For formats without checksums."""
    return data


def _place(rng: random.Random, data: bytes) -> int:
    """The start of a file, where its head is, is as likely as the rest."""
    return rng.randrange(min(len(data), 64) + 1) if rng.random() < 0.5 else rng.randrange(len(data) + 1)


def flip(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One bit changes."""
    if not data:
        return data
    found = bytearray(data)
    found[min(_place(rng, data), len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(found)


def truncate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The end is missing."""
    return data[: _place(rng, data)]


def cut(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A part is missing."""
    start = _place(rng, data)
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 100)) :]


def insert(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Random bytes, or text that is hard to read, come in between."""
    start = _place(rng, data)
    added = rng.choice(NASTY_TEXT) if rng.random() < 0.6 else rng.randbytes(rng.choice((1, 2, 4, 32)))
    return data[:start] + added + data[start:]


def repeat(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A part comes twice."""
    start = _place(rng, data)
    stop = start + rng.choice((1, 4, 16, 200))
    return data[:stop] + data[start:stop] + data[stop:]


def splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The start of one file with the end of another."""
    other = rng.choice(seeds)
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def number(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A number written as text becomes another."""
    found = list(NUMBER.finditer(data[:20_000]))
    if not found:
        return word(rng, data, seeds)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(NASTY_NUMBERS) + data[one.end() :]


def line(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Lines are exchanged, doubled or removed."""
    lines = data.split(b"\n")
    if len(lines) < 2:
        return flip(rng, data, seeds)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one : one + 1] = rng.choice(([], [lines[one]] * 2, [lines[other]]))
    return b"\n".join(lines)


def word(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """An integer of 1, 2, 4 or 8 bytes becomes another."""
    size, order = rng.choice(((1, "<B"), (2, "<H"), (2, ">H"), (4, "<I"), (4, ">I"), (8, "<Q"), (4, "<f")))
    start = _place(rng, data)
    if order == "<f":
        packed = struct.pack(order, rng.choice((float("nan"), float("inf"), -1e30, 1e-40, 3e38, -1.0)))
    else:
        packed = struct.pack(order, rng.choice(NASTY_WORDS) & (256**size - 1))
    return data[:start] + packed + data[start + size :]


def tree(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A value or key of a JSON document becomes another; documents may be lines, or begin after eight bytes."""
    before, text, after = _document(rng, data)
    try:
        value = json.loads(text)
        places = list(_places(value))
    except (ValueError, RecursionError):
        return flip(rng, data, seeds)
    holder, key = rng.choice(places) if places else (None, None)
    new = rng.choice(NASTY_JSON)
    if holder is None:
        value = new
    elif rng.random() < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and rng.random() < 0.2:
        holder[rng.choice(("", "name", "config", "data", "step", "a b", "..", key + "x"))] = holder.pop(key)
    else:
        holder[key] = new
    return before + json.dumps(value).encode() + after


def _document(rng: random.Random, data: bytes) -> tuple[bytes, bytes, bytes]:
    if data[8:9] == b"{":  # safetensors
        length = int.from_bytes(data[:8], "little")
        return data[:8], data[8 : 8 + length], data[8 + length :]
    lines = data.splitlines(keepends=True)
    if len(lines) > 1 and all(text.startswith(b"{") for text in lines):
        place = rng.randrange(len(lines))
        return b"".join(lines[:place]), lines[place], b"\n" + b"".join(lines[place + 1 :])
    return b"", data, b""


def _places(value: Any) -> Any:
    """(container, key or index) of every value below this one."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(inner)


CHANGES = (flip, flip, truncate, cut, insert, insert, repeat, splice, number, number, line, word, word, tree, tree)


def png(rng: random.Random, data: bytes) -> bytes:
    """The checksums of PNG chunks fit again, in half of the cases."""
    if rng.random() < 0.5 or data[:4] != b"\x89PNG":
        return data
    found, place = bytearray(data), 8
    while place + 12 <= len(found):
        length = int.from_bytes(found[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(found):
            break
        found[end : end + 4] = struct.pack(">I", zlib.crc32(found[place + 4 : end]))
        place = end + 4
    return bytes(found)


def safetensors(rng: random.Random, data: bytes) -> bytes:
    """The stated length is that of the JSON document again, in half of the cases."""
    if rng.random() < 0.5 or data[8:9] != b"{":
        return data
    try:
        _, length = json.JSONDecoder().raw_decode(data[8:].decode("latin-1"))
    except (ValueError, RecursionError):
        return data
    return length.to_bytes(8, "little") + data[8:]
