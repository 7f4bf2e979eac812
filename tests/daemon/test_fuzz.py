"""Random calls of every procedure, right and broken, made from the declarations: always an answer, never a panic.

PYVIRTD_FUZZ_SECONDS makes it longer, PYVIRTD_FUZZ_SEED another.
"""

import asyncio
import logging
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.rpc import Procedure
from pyvirtd.api.types import DomainRef
from pyvirtd.wire.packet import PacketType, Status
from pyvirtd.wire.xdr import Cases, Chars, Fixed, Fmt, List, Opaque, Optional_, Struct, Text, Type, describe
from tests.daemon.harness import TEST, RawClient, every_call, serving

SECONDS = float(os.environ.get("PYVIRTD_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("PYVIRTD_FUZZ_SEED", "20261123"))
BATCH = 50  # calls on their way at a time

NUMBERS = {
    "i": (0, 1, 2, 5, -1, 100, 2**31 - 1, -(2**31)),
    "I": (0, 0, 0, 1, 2, 3, 4, 8, 2**31, 2**32 - 1),
    "q": (0, 1, -1, 4096, 2**63 - 1, -(2**63)),
    "Q": (0, 1, 4096, 2**64 - 1),
    "d": (0.0, 1.5, -1.0, 1e308, float("inf"), float("nan")),
}
XML = (
    "<domain type='test'><name>{name}</name><memory unit='KiB'>{number}</memory><vcpu>{small}</vcpu>"
    "<os><type>hvm</type></os>{rest}</domain>"
)
TEXTS = (
    *("", "test", "other", "vda", "/dev/null", "qemu:///system", "test:///default", "a" * 300, "Ünïcode", "<", "]]>"),
    *("http://example.org/ns", "tag", "<x xmlns='http://example.org/ns'/>", "<domain/>", "..", "name/with/slash", "\n"),
)


class Maker:
    """Random values of wire types."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        pick = self.random
        if pick.random() < 0.3:
            return XML.format(
                name=pick.choice(TEXTS[1:4]),
                number=pick.choice((0, 1, 8192, 2**63)),
                small=pick.choice((0, 1, 5, -1)),
                rest=pick.choice(
                    ("", "<title>t</title>", "<uuid>x</uuid>", "<metadata><a:b xmlns:a='u:v'/></metadata>")
                ),
            )
        return pick.choice(TEXTS)

    def value(self, kind: Type) -> Any:
        pick = self.random
        match kind:
            case Fmt(code):
                return pick.choice(NUMBERS[code])
            case Text(limit):
                return self.text()[:limit]
            case Opaque(limit) | Chars(limit):
                return pick.randbytes(min(limit, pick.choice((0, 1, 3, 4, 100))))
            case Fixed(size):
                return pick.randbytes(size)
            case Optional_(item):
                return None if pick.random() < 0.4 else self.value(item)
            case List(item, limit):
                return [self.value(item) for _ in range(min(limit, pick.choice((0, 1, 2, 7))))]
            case Cases(arms):
                number, arm = pick.choice(arms)
                return number, self.value(describe(arm))
            case Struct(cls, _) if cls is DomainRef and pick.random() < 0.8:
                return TEST
            case Struct(cls, fields):
                return cls(*(self.value(item) for _, item in fields))

    def payload(self, declared: Procedure) -> bytes:
        """Arguments of a call, broken once in a while."""
        values = [self.value(kind) for _, kind in declared.args.fields]
        if declared.flags_index >= 0 and self.random.random() < 0.5:
            values[next(i for i, (name, _) in enumerate(declared.args.fields) if name == "flags")] = 0
        data = declared.args.encode(*values)
        return self.random.choice(MUTATIONS)(self.random, data) if self.random.random() < 0.4 else data


def flip(pick: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(pick.randint(1, 4)):
        if changed:
            changed[pick.randrange(len(changed))] = pick.randrange(256)
    return bytes(changed)


def count_word(pick: random.Random, data: bytes) -> bytes:
    """Put a number that is no good length where one may stand."""
    if len(data) < 4:
        return data
    at = pick.randrange(len(data) // 4) * 4
    word = struct.pack(">I", pick.choice((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 16385, 4194305, len(data))))
    return data[:at] + word + data[at + 4 :]


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    flip,
    count_word,
    lambda pick, data: data[: pick.randrange(len(data) + 1)],
    lambda pick, data: data + pick.randbytes(pick.choice((1, 4, 32))),
    lambda pick, data: data[: pick.randrange(len(data) + 1) & ~3] + data,
    lambda pick, data: pick.randbytes(len(data)),
)


async def answered(client: RawClient, declared: Procedure, serial: int) -> None:
    packet = await client.reply(serial)
    assert packet is not None, f"{declared.name} closed the connection"
    assert packet.type == PacketType.REPLY
    if packet.status == Status.OK:
        declared.reply.decode(packet.payload)  # what came is what is declared


def test_random_calls_get_answers_and_never_panic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Maker(SEED)
    calls = [declared for declared in every_call() if declared.name not in ("connect_close", "connect_open")]

    async def round_of_calls() -> None:
        async with serving(tmp_path) as server:
            other, client = await server.connect(), await server.connect()
            made.random.shuffle(calls)
            for start in range(0, len(calls), BATCH):
                sent = []
                for declared in calls[start : start + BATCH]:
                    number, program = declared.number, declared.program.number
                    sent.append((declared, client.send_call(number, made.payload(declared), program=program)))
                for declared, serial in sent:
                    await answered(client, declared, serial)
                client.packets.clear()  # events
            assert await other.call("connect_get_hostname") == "localhost"

    async def main() -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            await round_of_calls()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    panics = [record.getMessage() for record in caplog.records if record.exc_info]
    assert not panics, f"seed {SEED}: {panics[:5]}"


def test_random_bytes_close_one_connection_at_most(tmp_path: Path) -> None:
    pick = random.Random(SEED)

    async def main() -> None:
        async with serving(tmp_path) as server:
            other = await server.connect()
            for _ in range(100):
                client = await server.connect(opened=False)
                for _ in range(pick.randint(1, 5)):
                    size = pick.choice((0, 3, 27, 28, 100, 70000))
                    head = struct.pack(">I", pick.choice((28, 32, size + 4, 60))) if pick.random() < 0.7 else b""
                    client.send(head + pick.randbytes(size))
                await asyncio.sleep(0)
                await client.close()
            assert await other.call("connect_get_hostname") == "localhost"

    asyncio.run(main())
