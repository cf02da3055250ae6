"""Two strict endpoints that exchange numbered messages until somebody closes: see exchange.js, which is the other one.

    python3 exchange.py server COUNT
    python3 exchange.py client COUNT URL CA-FILE
"""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

ROLE, TOTAL = sys.argv[1], int(sys.argv[2])
ALPHABET = b"abcdefghijklmnopqrstuvwxyz" * 8000
PAUSE_SECONDS = 0.001

reports = []
received = 0


def mix(number):
    number &= 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return number ^ (number >> 16)


def message(session, direction, number):
    """What `direction` (0 the client, 1 the server) says as its message `number`: bytes or text, and how."""
    seed = mix(mix(session * 2 + direction + 1) + number)

    def draw(salt):
        return mix(seed + salt)

    size = draw(1) % 20
    length = draw(2) % (200 if size < 14 else 5000 if size < 19 else 200000)
    start = draw(3) % 26
    data = f"{session} {direction} {number} ".encode() + ALPHABET[start : start + length]
    if draw(4) % 2 == 0:
        data = data.decode()
    fragments = 2 + draw(6) % 3 if draw(5) % 3 == 0 else 1
    pause = draw(8) % 8 if draw(7) % 4 == 0 else 0
    return data, fragments, pause, draw(9) % 8 == 0


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
            await socket.ping(f"ping {report['attempted']}")
        await asyncio.sleep(pause * PAUSE_SECONDS)


async def listen(socket, session, direction, report):
    global received
    while True:
        data = await socket.recv()
        if data != message(session, 1 - direction, report["received"])[0]:
            report["errors"].append(f"message {report['received']} is wrong: {data[:40]!r}")
        report["received"] += 1
        received += 1
        if ROLE == "client" and received % 100 == 0:
            print(f"received {received}", flush=True)


async def take(socket, session, direction):
    report = {"session": session, "sent": 0, "attempted": 0, "received": 0, "code": None, "errors": []}
    reports.append(report)
    talking = asyncio.create_task(talk(socket, session, direction, report))
    try:
        await listen(socket, session, direction, report)
    except ConnectionClosed as closed:
        # What the peer said; what we said first would be our complaint.
        report["code"] = closed.rcvd.code if closed.rcvd else 1006
        if closed.sent and closed.sent.code in (1002, 1007, 1009, 1011):
            report["errors"].append(f"we complained: {closed.sent}")
    except Exception as error:  # whatever it is, it belongs into the report
        report["errors"].append(repr(error))
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)


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

    options = {"compression": "deflate", "ping_interval": None, "max_size": None}
    async with serve(session, "127.0.0.1", 0, **options) as server:
        print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
        await done.wait()
        tell()


async def be_client(url, ca):
    secure = ssl.create_default_context(cafile=ca) if url.startswith("wss") else None
    opened = 0

    async def session(number):
        nonlocal opened
        options = {"ping_interval": None, "max_size": None, "proxy": None, "open_timeout": 40}
        compression = "deflate" if number % 2 == 0 else None
        async with connect(f"{url}/{number}", ssl=secure, compression=compression, **options) as socket:
            opened += 1
            if opened == TOTAL:
                print("open", flush=True)
            await take(socket, number, 0)

    await asyncio.gather(*(session(number) for number in range(TOTAL)))
    tell()


asyncio.run(be_server() if ROLE == "server" else be_client(*sys.argv[3:5]))
