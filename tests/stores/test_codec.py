"""Records as bytes: what comes back is what was written, and everything else is refused in one way."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.entry import Entry, Mark, Record, Variants
from resilient.stores import codec
from resilient.stores.codec import check_value, decode, encode, recover

texts = st.text(max_size=20)
times = st.floats(-1e12, 1e12, allow_nan=False)
parts = st.binary(max_size=20).map(lambda part: part.replace(b"\n", b" "))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    vary = tuple(draw(st.lists(texts, max_size=3)))
    return Entry(
        status=draw(st.integers(0, 999)),
        fields=tuple(draw(st.lists(st.tuples(parts, parts), max_size=5))),
        body=draw(st.binary(max_size=200)),
        value=draw(values),
        vary=vary,
        selected=tuple(draw(st.none() | texts) for _ in vary),
        groups=tuple(draw(st.lists(texts, max_size=3))),
        generation=draw(texts),
        etag=draw(st.none() | texts),
        last_modified=draw(st.none() | texts),
        size=draw(st.integers(0, 2**40)),
        **{name: draw(times) for name in ("requested_at", "received_at", "initial_age", "lifetime", "took", "date")},
        **{name: draw(times) for name in ("stale_while_revalidate", "stale_if_error")},
        **{name: draw(st.booleans()) for name in ("needs_validation", "strict", "open")},
    )


variants = st.builds(
    Variants, st.lists(st.lists(texts, max_size=3).map(tuple), max_size=4).map(tuple), st.lists(texts, max_size=5).map(tuple)
)
records = st.one_of(entries(), variants, st.builds(Mark, texts))
secrets = st.sampled_from([b"", b"s" * 16, b"t" * 64])


def sealed(kind: bytes, head: bytes, fields: bytes = b"", body: bytes = b"", *, lengths: bytes | None = None) -> bytes:
    """Bytes with a good seal, as anybody can make them who knows this file."""
    start = b"rsc" + kind + bytes([codec.VERSION])
    rest = (lengths or len(head).to_bytes(4, "big") + len(fields).to_bytes(4, "big")) + head + fields + body
    return start + codec._seal(start, rest, "", b"") + rest


@settings(deadline=None)
@given(records, texts, secrets)
def test_what_comes_back_is_what_was_written(record: Record, key: str, secret: bytes) -> None:
    back = decode(encode(record, key=key, secret=secret), key=key, secret=secret)
    assert back == record
    assert repr(getattr(back, "value", None)) == repr(getattr(record, "value", None)), "True is not 1"


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        decode(data)
    assert recover(data) == (None, False) or data.startswith(b"rscM")


@settings(deadline=None)
@given(records, st.data())
def test_a_changed_record_is_the_same_or_refused(record: Record, data: st.DataObject) -> None:
    good = encode(record, key="k")
    change = data.draw(st.sampled_from(["cut", "grown", "flipped", "overwritten", "cut inside"]))
    at = data.draw(st.integers(0, len(good) - 1))
    match change:
        case "cut":
            bad = good[:at]
        case "cut inside":
            bad = good[:at] + good[data.draw(st.integers(at, len(good))) :]
        case "grown":
            bad = good + data.draw(st.binary(min_size=1, max_size=20))
        case "flipped":
            bad = good[:at] + bytes([good[at] ^ (1 << data.draw(st.integers(0, 7)))]) + good[at + 1 :]
        case _:
            piece = data.draw(st.binary(min_size=1, max_size=20))
            bad = good[:at] + piece + good[at + len(piece) :]
    with suppress(ValueError):
        assert decode(bad, key="k") == record


@settings(deadline=None)
@given(records)
def test_under_another_key_or_secret_it_is_refused(record: Record) -> None:
    good = encode(record, key="k", secret=b"s" * 16)
    for key, secret in [("l", b"s" * 16), ("k", b"t" * 16), ("k", b""), ("", b"s" * 16)]:
        with pytest.raises(ValueError, match="seal"):
            decode(good, key=key, secret=secret)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    data = bytearray(encode(Mark("a")))
    data[4] = version
    with pytest.raises(ValueError, match=f"version {version}"):
        decode(bytes(data))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=22) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=40,
)


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.sampled_from([b"E", b"V", b"M", b"X"]),
    junk | st.lists(junk, min_size=20, max_size=20),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_what_somebody_else_sealed_is_a_record_or_refused(kind: bytes, head: Any, fields: bytes, body: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(decode(sealed(kind, json.dumps(head).encode(), fields, body)), Entry | Variants | Mark)


@settings(deadline=None)
@given(st.data())
def test_an_entry_with_one_thing_of_another_kind(data: st.DataObject) -> None:
    head = json.loads(json.dumps(codec._entry_head(Entry(vary=("a",), selected=("b",)))))
    place = data.draw(st.integers(0, len(head) - 2))
    head[place] = data.draw(junk)
    try:
        read = decode(sealed(b"E", json.dumps(head).encode()))
    except ValueError:
        return
    assert encode(read) == encode(decode(encode(read))), "whatever was accepted is an entry in every respect"


@pytest.mark.parametrize(
    "data",
    [
        sealed(b"M", b"[" * 100_000),
        sealed(b"M", b"[\xff]"),
        sealed(b"M", b'["a"]', b"f"),
        sealed(b"M", b'["a"]', lengths=b"\xff" * 8),
        sealed(b"M", b'["a"]', lengths=(6).to_bytes(4, "big") + (0).to_bytes(4, "big")),
        sealed(b"M", b"[" + b"1" * 5000 + b"]"),
        sealed(b"V", b'["ab", ["c"]]'),
        sealed(b"V", b'{"ab": 1, "cd": 2}'),
        sealed(b"E", b"{}"),
        sealed(b"E", json.dumps(codec._entry_head(Entry())).encode(), b"name\nvalue"),
        sealed(b"E", json.dumps(codec._entry_head(Entry())).encode(), b"name\n"),
        b"rsc" + b"E" * 100_000_000,
    ],
    ids=range(12),
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        decode(data)


def test_what_is_too_large_or_cannot_be_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BODY", 1000)
    assert decode(encode(Entry(body=b"x" * 1000))) == Entry(body=b"x" * 1000)
    for entry in (
        Entry(body=b"x" * 1001),
        Entry(etag="x" * 2**20),
        Entry(fields=((b"a", b"x" * 2**20),)),
        Entry(fields=((b"a\nb", b""),)),
        Entry(lifetime=float("inf")),
    ):
        with pytest.raises(ValueError, match="."):
            encode(entry)


def test_a_corrupt_mark_stays_a_mark_that_nobody_knows() -> None:
    good = encode(Mark("a"), key="k")
    bad = good[:-1] + b"!"
    (read, whole), (again, _) = recover(bad, key="k"), recover(bad, key="k")
    assert isinstance(read, Mark) and not whole
    assert read == again != Mark("a")
    assert recover(b"garbage", mark=True)[0] == Mark("corrupt-" + blake2b(b"garbage", digest_size=16).hexdigest())
    assert isinstance(recover(None, mark=True)[0], Mark)
    assert recover(encode(Entry())[:-1]) == (None, False)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1,), "value: of type builtins.tuple"),
        ([{"a": {1}}], r"value\[0\]\['a'\]: of type builtins.set"),
        ({1: 2}, "value: a key of type int"),
        (float("inf"), "value: inf"),
        (1 << 5000, "an int of more than"),
        (Mark("a"), "of type resilient.core.entry.Mark"),
        (type("Text", (str,), {})("a"), "of type tests"),
    ],
)
def test_a_value_that_json_cannot_say(value: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        check_value(value)
    with pytest.raises(TypeError, match=said):
        encode(Entry(value=value))


def test_a_value_within_itself() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match="nested more than"):
        check_value(value)
