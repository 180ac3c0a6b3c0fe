"""A TCP proxy between any two processes of a cluster: a process of its own, told what to spoil.

``python -m tests.chaos.proxy`` reads orders (see ``wire``) and answers each. Everybody dials the
proxy's doors, one for each target; who dialled is found by the socket: the process that owns its
other end (``/proc``), or its address if it comes from another network namespace. So one door
serves all, and yet each pair of processes has rules of its own.

Both directions of a connection are carried apart::

    source ──► take ──► queue of (arrival, bytes) ──► hold, delay, rate, cut ──► give ──► target

Bytes are never dropped, doubled or changed amid a connection: TCP itself would not do that. Lost
packets are made by network namespaces, doubled messages by clients that send them again.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from tenure.protocol import loop
from tests.chaos.wire import Drop, Know, Make, Open, Order, Reset, Rule

_CHUNK_BYTES = 64 * 1024
#: What may wait in each direction of a connection; then its sender feels the jam.
_CHUNKS_MAX = 32
#: A slow line carries small pieces, so that they come evenly.
_PIECE_BYTES = 2_048
#: A process may dial before its pid was told, so who is not known is looked for again; not sooner.
_LOOK_AGAIN_S = 0.2
#: Nor for ever: there are dialers that nobody names.
_STRANGER_S = 2.0
_STRANGER = "stranger"


class _Broken(Exception):
    """A rule ends the connection, or one of its ends is gone."""


class People:
    """Who owns the sockets at the other ends.

    The kernel's tables are read for all connections at once, and not more often than needed.
    """

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._owners: dict[tuple[str, int], str] = {}
        self._read_at = -_LOOK_AGAIN_S
        self._reading = asyncio.Lock()

    def know(self, order: Know) -> None:
        """A process is there; one of the same name is no more."""
        if order.pid:
            self._pids[order.name] = order.pid
        if order.address:
            self._addresses[order.address] = order.name

    async def look(self, peer: tuple[str, int], accepted_at: float) -> None:
        """Has the tables read at a time after a connection was there; beside the loop.

        A read takes tens of milliseconds where there are many sockets. Of connections that come in
        a storm, all that are there when it begins share one.
        """
        async with self._reading:
            if peer[0] not in self._addresses and self._read_at <= accepted_at:
                self._read_at = asyncio.get_running_loop().time()
                self._owners = await asyncio.to_thread(self._read, dict(self._pids))

    def owner(self, peer: tuple[str, int], accepted_at: float) -> str:
        """The name of the process at the other end of a connection; empty: not known (yet)."""
        if peer[0] in self._addresses:
            return self._addresses[peer[0]]
        now = asyncio.get_running_loop().time()
        # What was read before the connection was there may name its port's former owner.
        if self._read_at <= accepted_at or now - self._read_at >= _LOOK_AGAIN_S:
            self._read_at = now
            self._owners = self._read(self._pids)
        found = self._owners.get(peer, "")
        return _STRANGER if not found and now - accepted_at > _STRANGER_S else found

    @staticmethod
    def _read(pids: Mapping[str, int]) -> dict[tuple[str, int], str]:
        """By its address, who owns each socket of the processes that are known."""
        names = {link: name for name, pid in pids.items() for link in _open_files(pid)}
        owners = {}
        # gRPC dials by sockets of IPv6: their addresses end in the one of IPv4.
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                name = names.get(f"socket:[{fields[9]}]")
                if name is not None:
                    host, _, port = fields[1].partition(":")
                    address = socket.inet_ntoa(struct.pack("<I", int(host[-8:], 16)))
                    owners[address, int(port, 16)] = name
        return owners


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield str(Path(entry.path).readlink())


class Rules:
    """The rules that stand, and an event for those who wait for them to change."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._changed = asyncio.Event()

    def make(self, rule: Rule) -> None:
        """It holds from now on."""
        self._rules[rule.name] = rule
        self._wake()

    def drop(self, name: str) -> None:
        """It holds no more."""
        self._rules.pop(name, None)
        self._wake()

    @property
    def any(self) -> bool:
        """Whether there is a rule at all: if not, who dialled need not even be known."""
        return bool(self._rules)

    def about(self, connection: Connection, way: str) -> list[Rule]:
        """Those that bear on one direction of a connection."""
        if not self._rules:
            return []
        source, target = connection.source, connection.target
        return [
            rule
            for rule in self._rules.values()
            if rule.way in (way, "both") and rule.is_for(source, target)
        ]

    async def changed(self) -> None:
        """Returns when a rule has come or gone."""
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(eq=False)
class Connection:
    """One that was dialled, with the one behind it.

    Attributes:
        people: Who owns the other end.
        peer: Its address.
        target: Who was dialled.
        writers: To those ends that have not been broken.
        accepted_at: When (the loop's time).
    """

    people: People
    peer: tuple[str, int]
    target: str
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    accepted_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _source: str = ""

    @property
    def source(self) -> str:
        """Who dialled; empty as long as nobody knows."""
        if not self._source:
            self._source = self.people.owner(self.peer, self.accepted_at)
        return self._source

    def end(self, *, reset: bool) -> None:
        """Break it at both ends; for each of them the first call decides how."""
        while self.writers:
            writer = self.writers.pop()
            found = writer.get_extra_info("socket")
            if reset and found is not None:
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Flow:
    """One direction of a connection, under the rules of the moment."""

    def __init__(
        self,
        connection: Connection,
        way: Literal["up", "down"],
        rules: Rules,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._connection = connection
        self._way = way
        self._rules = rules
        self._reader = reader
        self._writer = writer
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)
        self._passed: dict[Rule, int] = {}

    async def take(self) -> None:
        """Reads until its sender has ended."""
        clock = asyncio.get_running_loop().time
        while True:
            data = await self._reader.read(_CHUNK_BYTES)
            await self._queue.put((clock(), data))
            if not data:
                return

    async def give(self) -> None:
        """Writes what has been read, as the rules let it."""
        while True:
            came_at, data = await self._queue.get()
            if not data:
                if not self._writer.is_closing():
                    with suppress(OSError):
                        self._writer.write_eof()
                return
            await self._wait(came_at)
            await self._pass(data)

    def _about(self) -> list[Rule]:
        return self._rules.about(self._connection, self._way)

    async def _wait(self, came_at: float) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            rules = self._about()
            if any(rule.hold for rule in rules):
                await self._rules.changed()
                continue
            late_s = came_at + max((r.delay_ms for r in rules), default=0) / 1000 - clock()
            if late_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(late_s):
                    await self._rules.changed()

    async def _pass(self, data: bytes) -> None:
        while data:
            rules = self._about()
            rate = min((r.bytes_per_s for r in rules if r.bytes_per_s), default=0)
            piece = data[:_PIECE_BYTES] if rate else data
            data = data[len(piece) :]
            for rule in rules:
                if rule.cut_after is not None:
                    await self._count(rule, rule.cut_after, piece)
            if self._writer.is_closing():
                # It was reset: uvloop takes a write then for a mistake of ours.
                raise _Broken
            self._writer.write(piece)
            await self._writer.drain()
            if rate:
                await asyncio.sleep(len(piece) / rate)
            if data:
                await self._wait(0.0)

    async def _count(self, rule: Rule, cut_after: int, piece: bytes) -> None:
        before = self._passed.get(rule, 0)
        self._passed[rule] = before + len(piece)
        if before + len(piece) < cut_after:
            return
        # The others of this rule must not be cut too: it has happened.
        self._rules.drop(rule.name)
        self._writer.write(piece[: cut_after - before])
        await self._writer.drain()
        say("cut", rule=rule.name, source=self._connection.source, target=self._connection.target)
        self._connection.end(reset=rule.reset)
        raise _Broken


class Proxy:
    """All doors, the connections through them, and the rules."""

    def __init__(self) -> None:
        self._people = People()
        self._rules = Rules()
        self._connections: dict[Connection, None] = {}
        self._servers: list[asyncio.Server] = []

    async def run(self) -> None:
        """Obeys until its stdin ends."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        decoder = msgspec.json.Decoder(Order)
        say("ready")
        try:
            async for line in reader:
                order = decoder.decode(line)
                say("done", id=order.id, **await self._obey(order))
        finally:
            for server in self._servers:
                server.close()
            for connection in list(self._connections):
                connection.end(reset=True)

    async def _obey(self, order: Order) -> dict[str, int]:
        match order:
            case Open():
                return {"port": await self._open(order)}
            case Know():
                self._people.know(order)
            case Make():
                self._rules.make(order.rule)
            case Drop():
                self._rules.drop(order.name)
            case Reset():
                return {"count": self._reset(order)}
        return {}

    async def _open(self, order: Open) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(order, reader, writer)

        # On all addresses: other network namespaces come in by theirs.
        server = await asyncio.start_server(serve, "0.0.0.0", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _reset(self, order: Reset) -> int:
        rule = Rule(name="", source=order.source, target=order.target)
        found = [c for c in self._connections if rule.is_for(c.source, c.target)]
        for connection in found:
            connection.end(reset=True)
        return len(found)

    async def _serve(
        self, door: Open, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer: tuple[str, int] = writer.get_extra_info("peername")[:2]
        connection = Connection(self._people, peer, door.target, [writer])
        self._connections[connection] = None
        try:
            if self._rules.any:
                await self._people.look(peer, connection.accepted_at)
            if any(rule.refuse for rule in self._rules.about(connection, "up")):
                connection.end(reset=True)
                return
            far_reader, far_writer = await asyncio.open_connection(door.host, door.port)
            connection.writers.append(far_writer)
            if writer.is_closing():
                # It was reset meanwhile.
                raise _Broken
            for each in (writer, far_writer):
                # So that what was let through has left before a cut.
                each.transport.set_write_buffer_limits(0)
            up = Flow(connection, "up", self._rules, reader, far_writer)
            down = Flow(connection, "down", self._rules, far_reader, writer)
            async with asyncio.TaskGroup() as tasks:
                for flow in (up, down):
                    tasks.create_task(flow.take())
                    tasks.create_task(flow.give())
        except* (OSError, _Broken):
            # One end is gone, so the other has to hear of it.
            connection.end(reset=True)
        finally:
            del self._connections[connection]
            connection.end(reset=False)


def say(event: str, **fields: int | str) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    loop.run(Proxy().run())
