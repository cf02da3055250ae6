// An http and WebSocket server on one port, as people have behind a proxy. Prints `listening on PORT`, then one line
// for each session that closes: `closed CODE REASON`. What it does with a socket depends on the path:
//
//   /                     says hello, then echoes
//   /echo                 echoes, with permessage-deflate if asked
//   /fragments            sends one text message in three fragments
//   /pinging              pings, and says what the pong carried
//   /close/CODE/REASON    closes at once
'use strict';

const http = require('http');
const { WebSocketServer } = require('ws');

const server = http.createServer((request, response) => {
  request.resume();
  request.on('end', () => response.end('Http Message: Hello World'));
});

const sockets = new WebSocketServer({
  server,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
});

sockets.on('connection', (socket, request) => {
  socket.on('error', (error) => console.log(`error ${error.message}`));
  socket.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  const [, name, code, reason] = request.url.split('/');
  switch (name) {
    case '':
      socket.send('Websocket Send: Hello World');
      break;
    case 'fragments':
      socket.send('one ', { fin: false });
      socket.send('two ', { fin: false });
      socket.send('three', { fin: true });
      return;
    case 'pinging':
      socket.on('pong', (data) => socket.send(`ponged ${data}`));
      socket.ping('from the upstream');
      return;
    case 'close':
      socket.close(Number(code), decodeURIComponent(reason));
      return;
  }
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});

server.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
