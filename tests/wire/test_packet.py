"""Framing: any split of the byte stream gives the same packets."""

import pytest

from pyvirtd.wire.packet import (
    FDS_MAX,
    HEADER,
    MESSAGE_MAX,
    FrameError,
    Framer,
    Packet,
    PacketType,
    Status,
    fd_count,
    frame,
)

PLAIN = frame(0x20008086, 1, 5, PacketType.CALL, 3, Status.OK, b"payload!")
WITH_FDS = frame(0x20008086, 1, 6, PacketType.CALL_WITH_FDS, 4, Status.OK, fd_count(2) + b"rest") + b"\0\0"
EMPTY = frame(0x20008086, 1, 7, PacketType.CALL, 5, Status.OK, b"")
WANTED = [
    Packet(0x20008086, 1, 5, 0, 3, 0, b"payload!"),
    Packet(0x20008086, 1, 6, 4, 4, 0, b"rest", 2),
    Packet(0x20008086, 1, 7, 0, 5, 0, b""),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 28, 29, 1000])
def test_packets_come_out_whatever_the_pieces(step: int) -> None:
    stream = PLAIN + WITH_FDS + EMPTY
    framer = Framer()
    found = [packet for at in range(0, len(stream), step) for packet in framer.feed(stream[at : at + step])]
    assert found == WANTED
    assert framer.buffered == 0


def test_a_packet_with_descriptors_waits_for_their_bytes() -> None:
    framer = Framer()
    assert framer.feed(WITH_FDS[:-1]) == []
    assert framer.feed(WITH_FDS[-1:]) == [WANTED[1]]


@pytest.mark.parametrize("length", [0, HEADER.size - 1, MESSAGE_MAX + 5, 2**32 - 1])
def test_lengths_out_of_bounds_break_the_frame(length: int) -> None:
    with pytest.raises(FrameError):
        Framer().feed(length.to_bytes(4, "big"))


def test_too_many_descriptors_break_the_frame() -> None:
    with pytest.raises(FrameError):
        Framer().feed(frame(1, 1, 1, PacketType.CALL_WITH_FDS, 1, 0, fd_count(FDS_MAX + 1)))


def test_a_missing_descriptor_count_breaks_the_frame() -> None:
    with pytest.raises(FrameError):
        Framer().feed(frame(1, 1, 1, PacketType.CALL_WITH_FDS, 1, 0, b""))
