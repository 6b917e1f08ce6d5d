"""Records as bytes, for stores that outlive the process: versioned, bounded, sealed, and never pickle.

    magic (3) | kind (1) | version (1) | seal (16) | lengths of head and fields (4, 4) | head: JSON | fields | body

Fields and body are raw; a line feed, which no field may have in it (RFC 9110 section 5.5), ends each name and value.

The seal is a BLAKE2b of everything else (RFC 7693) and of the key that the record is kept under, keyed with a secret if
there is one: bytes that were cut, changed, written by somebody else or moved to another key are refused. What is read is
checked all the same, field by field, since without a secret anybody can seal.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from hashlib import blake2b
from math import isfinite
from typing import Any

from ..core.entry import Entry, Mark, Record, Variants

__all__ = ["check_value", "decode", "encode", "recover"]

VERSION = 1
MAX_BODY = 64 * 2**20
MAX_HEAD = 2**20
MAX_DEPTH = 64
# Python refuses to read or write a longer one in decimal.
MAX_INT_BITS = 4096

_MAGIC = b"rsc"
_KINDS: dict[type, bytes] = {Entry: b"E", Variants: b"V", Mark: b"M"}
_SEAL = 16
_START = len(_MAGIC) + 2
_LENGTHS = struct.Struct(">II")
_LEAST = _START + _SEAL + _LENGTHS.size
_say = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_parse = json.JSONDecoder().decode


def encode(record: Record, *, key: str = "", secret: bytes = b"") -> bytes:
    """A record as bytes.

    Args:
        record: what is to be kept.
        key: where; `decode` must be told the same.
        secret: at most 64 bytes, likewise.

    Raises:
        TypeError: an entry's value cannot be said in JSON so that it comes back the same.
        ValueError: the record is too large, or has a number or a field in it that cannot be.
    """
    fields = body = b""
    match record:
        case Entry():
            head = _entry_head(record)
            fields = b"".join([part + b"\n" for field in record.fields for part in field])
            if fields.count(b"\n") != 2 * len(record.fields):
                raise ValueError("a field with a line feed in it")
            body = record.body
        case Variants():
            head = [record.specs, record.keys]
        case Mark():
            head = [record.token]
    text = _say(head).encode()
    if len(text) > MAX_HEAD or len(fields) > MAX_HEAD or len(body) > MAX_BODY:
        raise ValueError(f"a record of {len(text)} + {len(fields)} + {len(body)} bytes is too large to be stored")
    start = _MAGIC + _KINDS[type(record)] + bytes([VERSION])
    rest = b"".join([_LENGTHS.pack(len(text), len(fields)), text, fields, body])
    return b"".join([start, _seal(start, rest, key, secret), rest])


def decode(data: bytes, *, key: str = "", secret: bytes = b"") -> Record:
    """The record that `encode` made these bytes of. An entry is not yet placed in time (`Entry.place`).

    Raises:
        ValueError: they are corrupt, cut, of another version, or not ours at all.
    """
    if not _LEAST <= len(data) <= _LEAST + 2 * MAX_HEAD + MAX_BODY or data[:3] != _MAGIC:
        raise ValueError("not a record")
    if data[4] != VERSION:
        raise ValueError(f"a record of version {data[4]}, not {VERSION}")
    rest = data[_START + _SEAL :]
    if data[_START : _START + _SEAL] != _seal(data[:_START], rest, key, secret):
        raise ValueError("a record with a broken seal")
    head_length, fields_length = _LENGTHS.unpack_from(rest)
    fields_at = _LENGTHS.size + head_length
    body_at = fields_at + fields_length
    if head_length > MAX_HEAD or fields_length > MAX_HEAD or body_at > len(rest):
        raise ValueError("a record that is cut")
    try:
        read = _READERS[data[3:4]]
        return read(_parse(str(rest[_LENGTHS.size : fields_at], "utf-8")), rest[fields_at:body_at], rest[body_at:])
    except (LookupError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"a record that makes no sense: {error!r}") from error


def recover(data: object, *, key: str = "", secret: bytes = b"", mark: bool = False) -> tuple[Record | None, bool]:
    """What can be made of bytes that may be corrupt, and whether they are whole.

    A corrupt entry is none. A corrupt mark (known from its first bytes, or because the store says so) is still a mark, of
    which nobody knows the token: what was stored under any other one must not be believed. It is made of the bytes, so that
    everybody reads the same.
    """
    raw = data if isinstance(data, bytes) else repr(data).encode()
    try:
        return decode(raw, key=key, secret=secret), True
    except ValueError:
        mark = mark or raw[:4] == _MAGIC + _KINDS[Mark]
        return Mark("corrupt-" + blake2b(raw, digest_size=16).hexdigest()) if mark else None, False


def _seal(start: bytes, rest: bytes, key: str, secret: bytes) -> bytes:
    name = key.encode("utf-8", "surrogatepass")
    seal = blake2b(start, digest_size=_SEAL, key=secret)
    seal.update(len(name).to_bytes(4, "big") + name)
    seal.update(rest)
    return seal.digest()


def check_value(value: object, path: str = "value", depth: int = 0) -> None:
    """Require a value that JSON brings back the same: None, booleans, finite numbers, strings, lists, dicts of strings.

    A tuple would come back as a list, and a dict's number as a string: the second caller would get another value than the
    first one.

    Raises:
        TypeError: it is of another type; the message names it and where it is.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return
    if depth > MAX_DEPTH:
        raise TypeError(f"{path}: nested more than {MAX_DEPTH} deep, or within itself; a shared store keeps plain JSON")
    if kind is list:
        for index, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
            check_value(item, f"{path}[{index}]" if depth < 8 else path, depth + 1)
    elif kind is dict:
        for name, item in value.items():  # type: ignore[attr-defined]
            if type(name) is not str:
                raise TypeError(f"{path}: a key of type {type(name).__qualname__}, where a shared store keeps dicts of strings only")
            check_value(item, f"{path}[{name!r}]" if depth < 8 else path, depth + 1)
    elif kind is int:
        if value.bit_length() > MAX_INT_BITS:  # type: ignore[attr-defined]
            raise TypeError(f"{path}: an int of more than {MAX_INT_BITS} bits; a shared store keeps plain JSON")
    elif kind is not float or not isfinite(value):  # type: ignore[arg-type]
        said = repr(value) if kind is float else f"of type {kind.__module__}.{kind.__qualname__}"
        raise TypeError(
            f"{path}: {said} cannot be kept in a shared store, which keeps plain JSON (None, bool, int, float, str, list, dict of strings);"
            " convert it, or use MemoryStore"
        )


# -- the head of each kind: whatever is read is what it should be, or a ValueError or TypeError says that it is not -------


def _entry_head(entry: Entry) -> list[Any]:
    if entry.value is not None:
        check_value(entry.value)
    return [
        entry.status,
        float(entry.requested_at),
        float(entry.received_at),
        float(entry.initial_age),
        float(entry.lifetime),
        float(entry.took),
        float(entry.stale_while_revalidate),
        float(entry.stale_if_error),
        float(entry.date),
        entry.needs_validation,
        entry.strict,
        entry.open,
        entry.etag,
        entry.last_modified,
        entry.vary,
        entry.selected,
        entry.groups,
        entry.generation,
        entry.size,
        entry.value,
    ]


_KINDS_OF_FIELDS = [int, *[float] * 8, *[bool] * 3, str, int, list]


def _entry(head: Any, fields: bytes, body: bytes) -> Entry:
    (status, requested, received, age, lifetime, took, revalidate, error, date) = head[:9]
    (validated, strict, public, etag, modified, vary, selected, groups, generation, size, value) = head[9:]
    if [*map(type, head[:12]), type(generation), type(size), type(selected)] != _KINDS_OF_FIELDS:
        raise ValueError("a field of another type")
    if not all(map(isfinite, head[1:9])) or not {type(etag), type(modified), *map(type, selected)} <= {str, type(None)}:
        raise ValueError("a field of another type")
    if not (0 <= status <= 999 and 0 <= size <= 2**53 and len(vary) == len(selected)):
        raise ValueError("a field out of bounds")
    parts = fields.split(b"\n")
    if parts.pop() or len(parts) % 2:
        raise ValueError("fields that are cut")
    return Entry(
        status=status,
        fields=tuple(zip(parts[::2], parts[1::2], strict=True)),
        body=body,
        value=value,
        requested_at=requested,
        received_at=received,
        initial_age=age,
        lifetime=lifetime,
        took=took,
        stale_while_revalidate=revalidate,
        stale_if_error=error,
        needs_validation=validated,
        strict=strict,
        open=public,
        etag=etag,
        last_modified=modified,
        date=date,
        vary=_texts(vary),
        selected=tuple(selected),
        groups=_texts(groups),
        generation=generation,
        size=size,
    )


def _variants(head: Any, fields: bytes, body: bytes) -> Variants:
    specs, keys = head
    if fields or body or type(specs) is not list:
        raise ValueError("variants have no body")
    return Variants(tuple(map(_texts, specs)), _texts(keys))


def _mark(head: Any, fields: bytes, body: bytes) -> Mark:
    (token,) = head
    if fields or body or type(token) is not str:
        raise ValueError("a mark has a token, and no body")
    return Mark(token)


def _texts(values: Any) -> tuple[str, ...]:
    if type(values) is not list or not {*map(type, values)} <= {str}:
        raise ValueError("expected strings")
    return tuple(values)


_READERS: dict[bytes, Callable[[Any, bytes, bytes], Record]] = {b"E": _entry, b"V": _variants, b"M": _mark}
