// Two strict endpoints that exchange numbered messages until somebody closes; this is either of them, `exchange.py` the other.
//
//   node exchange.js server COUNT [PAUSE]                    prints `listening on PORT`
//   node exchange.js client COUNT URL CA-FILE FIRST [PAUSE]  prints `open` once all sessions are, then `received N` at
//                                                            times
//
// PAUSE has a session wait so many milliseconds on average between two messages; without it they go as fast as they can.
// At the end each prints a line of JSON for every one of the COUNT sessions, and leaves. What message N of a session's
// direction is follows from the numbers, so each side knows what it must receive. The sessions are numbered from FIRST.
'use strict';

const fs = require('fs');
const { WebSocket, WebSocketServer } = require('ws');

const [role, count, ...more] = process.argv.slice(2);
const [url, ca, first] = more;
const slowness = Number((role === 'server' ? more[0] : more[3]) || 0);
const total = Number(count);
const reports = [];
let received = 0;

function mix(number) {
  number = Math.imul(number ^ (number >>> 16), 0x45d9f3b);
  number = Math.imul(number ^ (number >>> 16), 0x45d9f3b);
  return (number ^ (number >>> 16)) >>> 0;
}

// Letters that no compression makes small.
const LETTERS = String.fromCharCode(...Array.from({ length: 8000 }, (_, at) => 97 + (mix(at) % 26))).repeat(26);

// What `direction` (0 the client, 1 the server) of a session says as its message `number`.
function message(session, direction, number) {
  const seed = mix(mix(session * 2 + direction + 1) + number);
  const draw = (salt) => mix(seed + salt);
  const size = draw(1) % 20;
  const length = draw(2) % (size < 14 ? 200 : size < 19 ? 5000 : 200000);
  const start = draw(3) % 8000;
  const text = size === 0 ? '' : `${session} ${direction} ${number} ` + LETTERS.slice(start, start + length);
  return {
    data: Buffer.from(text),
    binary: draw(4) % 2 === 1,
    fragments: draw(5) % 3 === 0 ? 2 + (draw(6) % 3) : 1,
    pause: draw(7) % 4 === 0 ? draw(8) % 8 : 0,
    pings: draw(9) % 8 === 0,
  };
}

async function talk(socket, session, direction, report) {
  while (socket.readyState === WebSocket.OPEN) {
    const { data, binary, fragments, pause, pings } = message(session, direction, report.attempted);
    report.attempted += 1;
    const part = Math.ceil(data.length / fragments);
    let sent;
    for (let at = 0; at < fragments; at += 1) {
      const fin = at === fragments - 1;
      const piece = data.subarray(at * part, fin ? data.length : (at + 1) * part);
      sent = new Promise((resolve) => socket.send(piece, { binary, fin }, resolve));
    }
    report.sent += 1;
    if (pings) {
      report.pings.push(`ping ${report.attempted}`);
      socket.ping(`ping ${report.attempted}`);
    }
    await sent;
    await new Promise((resolve) => setTimeout(resolve, pause + Math.random() * 2 * slowness));
  }
}

function take(socket, session, direction, ended) {
  const report = { session, sent: 0, attempted: 0, received: 0, pinged: 0, code: null, errors: [], pings: [], due: [] };
  reports.push(report);
  socket.on('error', (error) => report.errors.push(String(error)));
  socket.on('message', (data, binary) => {
    const wanted = message(session, 1 - direction, report.received);
    if (binary !== wanted.binary || !wanted.data.equals(data)) {
      report.errors.push(`message ${report.received} is wrong: ${data.subarray(0, 40)}`);
    }
    report.received += 1;
    received += 1;
    if (wanted.pings) report.due.push(`ping ${report.received}`);
    if (role === 'client' && received % 100 === 0) console.log(`received ${received}`);
  });
  // A peer's Ping is `ping N` behind its message, the proxy's has 12 bytes; a Pong must answer the next Ping of ours.
  socket.on('ping', (data) => {
    if (!String(data).startsWith('ping ') && data.length === 12) report.pinged += 1;
    else if (String(data) !== report.due.shift()) report.errors.push(`a strange Ping: ${data}`);
  });
  socket.on('pong', (data) => {
    if (String(data) !== report.pings.shift()) report.errors.push(`a Pong to no Ping: ${data.toString('hex')}`);
  });
  socket.on('close', (code) => {
    report.code = code;
    // The Close may have come before the Ping behind the last message.
    const missing = report.due.filter((ping) => ping !== `ping ${report.received}`);
    if (missing.length > 0) report.errors.push(`Pings that did not come: ${missing}`);
    ended();
  });
  talk(socket, session, direction, report);
}

let open = total;
function ended() {
  open -= 1;
  if (open > 0) return;
  const lines = reports.map(({ pings, due, ...report }) => `${JSON.stringify(report)}\n`);
  // Leaving right away would lose what the pipe does not take at once.
  process.stdout.write(lines.join(''), () => process.exit(0));
}

if (role === 'server') {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: { threshold: 0 } });
  server.on('listening', () => console.log(`listening on ${server.address().port}`));
  server.on('connection', (socket, request) => take(socket, Number(request.url.slice(1)), 1, ended));
} else {
  let opened = 0;
  for (let session = Number(first); session < Number(first) + total; session += 1) {
    const perMessageDeflate = session % 2 === 0 ? { threshold: 0 } : false;
    const socket = new WebSocket(`${url}/${session}`, { ca: fs.readFileSync(ca), perMessageDeflate });
    socket.on('open', () => {
      take(socket, session, 0, ended);
      opened += 1;
      if (opened === total) console.log('open');
    });
  }
}
