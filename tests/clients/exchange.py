"""Two strict endpoints that exchange numbered messages until somebody closes: see exchange.js, which is the other one.

    python3 exchange.py server COUNT [PAUSE]
    python3 exchange.py client COUNT URL CA-FILE FIRST [PAUSE]
"""

import asyncio
import json
import random
import ssl
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

ROLE, TOTAL = sys.argv[1], int(sys.argv[2])
PAUSE_SECONDS = 0.001
# How many of them a session waits between two messages on average.
SLOWNESS = float((sys.argv[3 if ROLE == "server" else 6 :] or [0])[0])

reports = []
received = 0


def mix(number):
    number &= 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return number ^ (number >> 16)


# Letters that no compression makes small.
LETTERS = bytes(97 + mix(at) % 26 for at in range(8000)) * 26


def message(session, direction, number):
    """What `direction` (0 the client, 1 the server) says as its message `number`: bytes or text, and how."""
    seed = mix(mix(session * 2 + direction + 1) + number)

    def draw(salt):
        return mix(seed + salt)

    size = draw(1) % 20
    length = draw(2) % (200 if size < 14 else 5000 if size < 19 else 200000)
    start = draw(3) % 8000
    data = b"" if size == 0 else f"{session} {direction} {number} ".encode() + LETTERS[start : start + length]
    if draw(4) % 2 == 0:
        data = data.decode()
    fragments = 2 + draw(6) % 3 if draw(5) % 3 == 0 else 1
    pause = draw(8) % 8 if draw(7) % 4 == 0 else 0
    return data, fragments, pause, draw(9) % 8 == 0


class Watched:
    """Notes the Pings and Pongs of which the library says nothing."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.pings_heard, self.pings_sent, self.faults, self.pinged = [], [], [], 0

    def process_event(self, event):
        super().process_event(event)
        if not isinstance(event, Frame):
            return
        data = bytes(event.data)
        # A peer's Ping is `ping N`, the proxy's has 12 bytes; a Pong must answer the next Ping of ours.
        if event.opcode is Opcode.PING and len(data) == 12 and not data.startswith(b"ping "):
            self.pinged += 1
        elif event.opcode is Opcode.PING:
            self.pings_heard.append(data)
        elif event.opcode is Opcode.PONG and (not self.pings_sent or data != self.pings_sent.pop(0)):
            self.faults.append(f"a Pong to no Ping: {data.hex()}")


class WatchedClient(Watched, ClientConnection):
    pass


class WatchedServer(Watched, ServerConnection):
    pass


async def talk(socket, session, direction, report):
    while True:
        data, fragments, pause, pings = message(session, direction, report["attempted"])
        report["attempted"] += 1
        if fragments > 1:
            part = -(-len(data) // fragments)
            data = [data[at * part : (at + 1) * part] for at in range(fragments)]
        await socket.send(data)
        report["sent"] += 1
        if pings:
            # Nobody waits for it: an answer that never comes is found by the one who closes.
            ping = f"ping {report['attempted']}"
            socket.pings_sent.append(ping.encode())
            await socket.ping(ping)
        await asyncio.sleep((pause + random.uniform(0, 2 * SLOWNESS)) * PAUSE_SECONDS)


async def listen(socket, session, direction, report, due):
    global received
    while True:
        data = await socket.recv()
        wanted, _, _, pings = message(session, 1 - direction, report["received"])
        if data != wanted:
            report["errors"].append(f"message {report['received']} is wrong: {data[:40]!r}")
        report["received"] += 1
        received += 1
        if pings:
            due.append(f"ping {report['received']}".encode())
        if ROLE == "client" and received % 100 == 0:
            print(f"received {received}", flush=True)


async def take(socket, session, direction):
    report = {"session": session, "sent": 0, "attempted": 0, "received": 0, "code": None, "errors": []}
    reports.append(report)
    due = []
    talking = asyncio.create_task(talk(socket, session, direction, report))
    try:
        await listen(socket, session, direction, report, due)
    except ConnectionClosed as closed:
        # What the peer said; what we said first would be our complaint.
        report["code"] = closed.rcvd.code if closed.rcvd else 1006
        if closed.sent and closed.sent.code in (1002, 1007, 1009, 1011):
            report["errors"].append(f"we complained: {closed.sent}")
    except Exception as error:  # whatever it is, it belongs into the report
        report["errors"].append(repr(error))
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    report["pinged"] = socket.pinged
    report["errors"] += socket.faults
    # The Close may have come before the Ping behind the last message.
    if due and due != socket.pings_heard and due[-1] == f"ping {report['received']}".encode():
        due.pop()
    if due != socket.pings_heard:
        report["errors"].append(f"Pings {socket.pings_heard} instead of {due}")


def tell():
    for report in reports:
        print(json.dumps(report), flush=True)


async def be_server():
    done = asyncio.Event()
    ended = 0

    async def session(socket):
        nonlocal ended
        await take(socket, int(socket.request.path[1:]), 1)
        ended += 1
        if ended == TOTAL:
            done.set()

    options = {"compression": "deflate", "ping_interval": None, "max_size": None, "backlog": 4096}
    options["create_connection"] = WatchedServer
    async with serve(session, "127.0.0.1", 0, **options) as server:
        print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
        await done.wait()
        tell()


async def be_client(url, ca, first):
    secure = ssl.create_default_context(cafile=ca) if url.startswith("wss") else None
    opened = 0

    async def session(number):
        nonlocal opened
        options = {"ping_interval": None, "max_size": None, "proxy": None, "open_timeout": 40}
        options["create_connection"] = WatchedClient
        compression = "deflate" if number % 2 == 0 else None
        async with connect(f"{url}/{number}", ssl=secure, compression=compression, **options) as socket:
            opened += 1
            if opened == TOTAL:
                print("open", flush=True)
            await take(socket, number, 0)

    await asyncio.gather(*(session(number) for number in range(int(first), int(first) + TOTAL)))
    tell()


asyncio.run(be_server() if ROLE == "server" else be_client(*sys.argv[3:6]))
