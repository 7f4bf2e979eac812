"""Codecs against bytes written by hand from RFC 4506."""

from typing import Annotated, Any, NamedTuple

import pytest

from pyvirtd.wire.xdr import (
    Cases,
    Chars,
    Codec,
    Double,
    Fixed,
    Hyper,
    Int,
    Max,
    Opaque,
    Str,
    Text,
    UHyper,
    UInt,
    Uuid,
    XdrError,
    codec,
)


class Pair(NamedTuple):
    name: Str
    number: Int


class Live:
    """An object that stands on the wire as a Pair."""

    wire_type = Pair

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.other = object()


UNION = Annotated[tuple[int, Any], Cases(((1, Int), (7, Str)))]

EXAMPLES = [
    (Int, -1, "ffffffff"),
    (UInt, 2**32 - 1, "ffffffff"),
    (Hyper, -2, "fffffffffffffffe"),
    (UHyper, 2**64 - 1, "ffffffffffffffff"),
    (Double, 1.0, "3ff0000000000000"),
    (Str, "", "00000000"),
    (Str, "abc", "0000000361626300"),
    (Str, "abcd", "0000000461626364"),
    (Str, "\u00e4", "00000002c3a40000"),
    (Str | None, None, "00000000"),
    (Str | None, "a", "000000010000000161000000"),
    (Uuid, bytes(range(16)), "000102030405060708090a0b0c0d0e0f"),
    (Annotated[bytes, Fixed(5)], b"abcde", "6162636465000000"),
    (Annotated[bytes, Opaque(8)], b"\xff", "00000001ff000000"),
    (Annotated[bytes, Chars(4)], b"hi", "000000020000006800000069"),
    (Annotated[bytes, Chars(3, fixed=True)], b"h\0\0", "000000680000000000000000"),
    (Annotated[list[Int], Max(3)], [1, 2], "000000020000000100000002"),
    (Annotated[list[Str], Max(3)], ["a"], "000000010000000161000000"),
    (Pair, Pair("a", 5), "000000016100000000000005"),
    (UNION, (1, 9), "0000000100000009"),
    (UNION, (7, "x"), "000000070000000178000000"),
]


def one(annotation: Any) -> Codec:
    return codec([("value", annotation)])


@pytest.mark.parametrize(("annotation", "value", "hexes"), EXAMPLES)
def test_values_encode_to_the_standards_bytes(annotation: Any, value: Any, hexes: str) -> None:
    assert one(annotation).encode(value).hex() == hexes


@pytest.mark.parametrize(("annotation", "value", "hexes"), EXAMPLES)
def test_bytes_decode_to_the_values(annotation: Any, value: Any, hexes: str) -> None:
    assert one(annotation).decode(bytes.fromhex(hexes)) == (value,)


@pytest.mark.parametrize(("annotation", "value", "hexes"), EXAMPLES)
def test_every_shorter_or_longer_message_is_refused(annotation: Any, value: Any, hexes: str) -> None:
    data = bytes.fromhex(hexes)
    for end in range(len(data)):
        with pytest.raises(XdrError):
            one(annotation).decode(data[:end])
    with pytest.raises(XdrError):
        one(annotation).decode(data + b"\0\0\0\0")


def test_any_word_but_zero_is_true_for_an_option() -> None:
    assert one(Int | None).decode(bytes.fromhex("0100000000000005")) == (5,)


def test_an_object_travels_as_its_wire_type() -> None:
    assert one(Live).encode(Live("a", 5)) == one(Pair).encode(Pair("a", 5))
    assert one(Live).decode(one(Live).encode(Live("a", 5))) == (Pair("a", 5),)


@pytest.mark.parametrize(
    "annotation", [Annotated[str, Text(2)], Annotated[bytes, Opaque(2)], Annotated[list[Int], Max(2)]]
)
def test_limits_hold_both_ways(annotation: Any) -> None:
    value: Any = "abc" if "str" in str(annotation) else b"abc" if "bytes" in str(annotation) else [1, 2, 3]
    with pytest.raises(XdrError, match="above"):
        one(annotation).encode_checked(value)
    with pytest.raises(XdrError, match="above"):
        one(annotation).decode(bytes.fromhex("00000003") + bytes(16))


def test_a_count_larger_than_the_message_is_refused_before_allocation() -> None:
    with pytest.raises(XdrError, match="too short"):
        one(Annotated[list[Int], Max(2**31)]).decode(bytes.fromhex("7fffffff00000000"))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_numbers_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(XdrError):
        one(Int).encode_checked(value)


def test_an_unknown_arm_is_refused_both_ways() -> None:
    with pytest.raises(XdrError, match="arm"):
        one(UNION).decode(bytes.fromhex("0000000300000009"))
    with pytest.raises(XdrError, match="arm"):
        one(UNION).encode((3, 9))


def test_neighbours_of_fixed_size_share_one_run_and_keep_their_order() -> None:
    many = codec([("a", Int), ("b", UHyper), ("c", Uuid), ("d", Str), ("e", Int)])
    values = (1, 2, bytes(16), "x", 3)
    assert many.decode(many.encode(*values)) == values
