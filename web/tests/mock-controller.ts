/**
 * A stand-in for the controller that can do at a word what a real one does rarely: refuse a token, forget its history,
 * go away. It serves the built page and the four kinds that the page reads, and nothing else.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import type { EndpointSlice, Node, NodeState, Service } from '../src/lib/api/types';

type Kind = 'nodes' | 'nodestates' | 'services' | 'endpointslices';
type Any = Node | NodeState | Service | EndpointSlice;
type EventType = 'ADDED' | 'MODIFIED' | 'DELETED';

const DIST = join(import.meta.dirname, '../dist');
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
};

export class MockController {
  readonly token = 'let-me-in';
  revision = 1;
  /** Lists that were asked for, by kind: a page that lists again and again is wrong. */
  readonly listed: Record<Kind, number> = { nodes: 0, nodestates: 0, services: 0, endpointslices: 0 };

  #objects: Record<Kind, Map<string, Any>> = {
    nodes: new Map(),
    nodestates: new Map(),
    services: new Map(),
    endpointslices: new Map(),
  };
  #log: { kind: Kind; revision: number; line: string }[] = [];
  #compacted = 0;
  #watchers = new Set<{ kind: Kind; response: ServerResponse }>();
  #server: Server | undefined;
  #port = 0;

  get url(): string {
    return `http://127.0.0.1:${this.#port}/`;
  }

  async start(): Promise<void> {
    const server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
    // The same port after a stop: the page knows no other.
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** Drops every connection, as a crash would. */
  async stop(): Promise<void> {
    this.#watchers.clear();
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve));
  }

  put(kind: Kind, object: Any): void {
    const key = `${object.metadata.namespace ?? ''}/${object.metadata.name}`;
    this.#emit(kind, this.#objects[kind].has(key) ? 'MODIFIED' : 'ADDED', object);
    this.#objects[kind].set(key, object);
  }

  delete(kind: Kind, object: Any): void {
    this.#objects[kind].delete(`${object.metadata.namespace ?? ''}/${object.metadata.name}`);
    this.#emit(kind, 'DELETED', object);
  }

  /** Ends all watches and forgets the history, so that the next watch gets 410. */
  compact(): void {
    this.revision++;
    this.#compacted = this.revision;
    this.#log = [];
    for (const { response } of this.#watchers) response.destroy();
    this.#watchers.clear();
  }

  #emit(kind: Kind, type: EventType, object: Any): void {
    const revision = ++this.revision;
    object.metadata.resourceVersion = String(revision);
    const line = `${JSON.stringify({ type, object })}\n`;
    this.#log.push({ kind, revision, line });
    for (const w of this.#watchers) w.response.write(w.kind === kind ? line : bookmark(revision));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const kind = /^\/apis?\/.*\/(nodes|nodestates|services|endpointslices)$/.exec(url.pathname)?.[1] as
      Kind | undefined;
    if (!kind) return this.#file(url.pathname, response);
    if (request.headers.authorization !== `Bearer ${this.token}`) return fail(response, 401, 'Unauthorized');
    if (url.searchParams.get('watch') !== 'true') return this.#list(kind, url, response);
    const from = Number(url.searchParams.get('resourceVersion'));
    if (from < this.#compacted) return fail(response, 410, `too old resource version: ${from}`);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    for (const event of this.#log) {
      if (event.kind === kind && event.revision > from) response.write(event.line);
    }
    response.write(bookmark(this.revision));
    const watcher = { kind, response };
    this.#watchers.add(watcher);
    response.on('close', () => this.#watchers.delete(watcher));
  }

  #list(kind: Kind, url: URL, response: ServerResponse): void {
    const offset = Number(url.searchParams.get('continue') ?? 0);
    const limit = Number(url.searchParams.get('limit') ?? 500);
    const all = [...this.#objects[kind].values()];
    if (offset === 0) this.listed[kind]++;
    const more = offset + limit < all.length ? String(offset + limit) : undefined;
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify({
        metadata: { resourceVersion: String(this.revision), continue: more },
        items: all.slice(offset, offset + limit),
      }),
    );
  }

  async #file(path: string, response: ServerResponse): Promise<void> {
    const name = normalize(path === '/' ? '/index.html' : path);
    try {
      const content = await readFile(join(DIST, name));
      response.writeHead(200, {
        'content-type': TYPES[extname(name)] ?? 'application/octet-stream',
        // No looser than the controller's.
        'content-security-policy':
          "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      });
      response.end(content);
    } catch {
      fail(response, 404, `no ${name}`);
    }
  }
}

function bookmark(revision: number): string {
  return `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(revision) } } })}\n`;
}

function fail(response: ServerResponse, code: number, message: string): void {
  response.writeHead(code, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ kind: 'Status', status: 'Failure', code, message }));
}
