// The relay's job on Node and ws: admission by the platform, routing of the same frames.
//
// Started with the relay's environment; says `listening on` when it does. With `--native`, frames
// are unmasked by bufferutil, which ws finds when somebody has installed it besides. With `--cork`,
// all that follows from one read goes to a socket in one system call, which ws does not do by itself.
'use strict';

// Read by ws when it is loaded.
if (!process.argv.includes('--native')) process.env.WS_NO_BUFFER_UTIL = '1';

const http = require('node:http');
const { WebSocketServer, WebSocket } = require('ws');

const HOST = process.env.HOST ?? '127.0.0.1';
const PORT = Number(process.env.PORT ?? 7781);
const VALIDATE_URL = new URL(
  '/api/runtime/internal/relay/validate',
  process.env.SERVER_URL ?? 'http://127.0.0.1:7780',
);
const FRAME_BYTES_MAX = Number(process.env.RELAY_MAX_FRAME_BYTES ?? 1 << 20);
const PENDING_BYTES_MAX = Number(process.env.RELAY_MAX_PENDING_BYTES ?? 4 << 20);
const ANSWER_BYTES_MAX = 64 << 10;
const REFUSED = 4008;
const IS_CORKING = process.argv.includes('--cork');

const agent = new http.Agent({ keepAlive: true });
const scopes = new Map();

/** Asks the platform; one call per upgrade, over a kept connection. */
function validate(body) {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    };
    const request = http.request(VALIDATE_URL, { method: 'POST', agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (piece) => {
        text += piece;
        if (text.length > ANSWER_BYTES_MAX) request.destroy(new Error('the answer is too long'));
      });
      response.on('error', reject);
      response.on('end', () => {
        try {
          resolve(response.statusCode === 200 ? JSON.parse(text) : { ok: false });
        } catch (error) {
          reject(error);
        }
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

/** Whether the platform admits the upgrade: ok, the same workspace, the same target if asked for. */
async function isAdmitted({ role, workspaceId, runtimeTargetId }, token) {
  const question = { relayToken: token, role, workspaceId, runtimeTargetId };
  const answer = await validate(JSON.stringify(question)).catch(() => ({ ok: false }));
  return (
    answer.ok === true &&
    answer.claims?.workspaceId === workspaceId &&
    (runtimeTargetId === undefined || answer.claims.runtimeTargetId === runtimeTargetId)
  );
}

function scopeOf({ workspaceId, runtimeTargetId }) {
  const key = JSON.stringify([workspaceId, runtimeTargetId]);
  let scope = scopes.get(key);
  if (scope === undefined) {
    scope = { daemon: undefined, owners: new Map(), askers: new Map() };
    scopes.set(key, scope);
  }
  return scope;
}

/** Whom a frame is for: undefined for nobody. A daemon's answer makes the asker a session's owner. */
function receiver(scope, role, socket, frame) {
  if (role === 'client') {
    if (frame.type === 'relay_key_exchange_init') {
      scope.askers.set(frame.requestId, socket);
    } else if (scope.owners.get(frame.sessionId) !== socket) {
      return undefined;
    }
    return scope.daemon;
  }
  if (frame.type === 'relay_key_exchange_response') {
    const asker = scope.askers.get(frame.requestId);
    if (asker !== undefined) {
      scope.askers.delete(frame.requestId);
      scope.owners.set(frame.sessionId, asker);
    }
  }
  return scope.owners.get(frame.sessionId);
}

/** Sends a text frame; a receiver for whom too much waits is cut. */
function send(to, data) {
  if (to.bufferedAmount > PENDING_BYTES_MAX) {
    to.terminate();
    return;
  }
  if (IS_CORKING && !to.isCorked) {
    to.isCorked = true;
    to._socket.cork();
    process.nextTick(() => {
      to.isCorked = false;
      to._socket?.uncork();
    });
  }
  to.send(data, { binary: false });
}

function connected(socket, query) {
  const scope = scopeOf(query);
  if (query.role === 'workspace-daemon') {
    if (scope.daemon !== undefined) {
      socket.close(REFUSED);
      return;
    }
    scope.daemon = socket;
  }
  socket.on('message', (data, isBinary) => {
    let frame;
    try {
      frame = JSON.parse(data.toString());
    } catch {
      socket.terminate();
      return;
    }
    if (isBinary || typeof frame?.type !== 'string') {
      socket.terminate();
      return;
    }
    const to = receiver(scope, query.role, socket, frame);
    if (to !== undefined && to.readyState === WebSocket.OPEN) send(to, data);
  });
  socket.on('error', () => {}); // followed by `close`
  socket.on('close', () => {
    if (scope.daemon === socket) {
      scope.daemon = undefined;
      scope.owners.clear();
      scope.askers.clear();
    }
    for (const sockets of [scope.owners, scope.askers]) {
      for (const [id, owner] of sockets) if (owner === socket) sockets.delete(id);
    }
  });
}

/** The query and token of an upgrade; undefined where it lacks what it needs. */
function parse(request) {
  if (!URL.canParse(request.url, 'http://localhost')) return undefined;
  const url = new URL(request.url, 'http://localhost');
  const query = {
    role: url.searchParams.get('role'),
    workspaceId: url.searchParams.get('workspaceId'),
    runtimeTargetId: url.searchParams.get('runtimeTargetId') ?? undefined,
  };
  const token = /^Bearer\s+(.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const isRole = query.role === 'client' || query.role === 'workspace-daemon';
  if (url.pathname !== '/ws' || !isRole || !query.workspaceId || !token) return undefined;
  return { query, token };
}

const websockets = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: FRAME_BYTES_MAX,
});

const server = http.createServer((request, response) => {
  response.writeHead(404).end();
});

server.on('upgrade', async (request, socket, head) => {
  socket.on('error', () => socket.destroy());
  const parsed = parse(request);
  if (parsed === undefined || !(await isAdmitted(parsed.query, parsed.token))) {
    socket.end('HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n');
    return;
  }
  websockets.handleUpgrade(request, socket, head, (opened) => connected(opened, parsed.query));
});

server.listen(PORT, HOST, () => console.log(`listening on ${HOST}:${PORT}`));
