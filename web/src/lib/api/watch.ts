/**
 * Follows one kind of object: list, then watch from the list's revision, for as long as asked.
 *
 * The rules are those of every Kubernetes client: a watch goes on from the last revision seen; `410 Gone` means that
 * the server no longer has the history in between, so list again; bookmarks move the revision on without an object.
 * Nothing here knows what the objects are or who draws them, and time and network come in as arguments.
 */

export interface Listed {
  metadata: { name: string; namespace?: string; resourceVersion?: string };
}

export type Change<T> = { type: 'ADDED' | 'MODIFIED' | 'DELETED'; object: T };

export type Phase =
  | { kind: 'listing' }
  | { kind: 'live' }
  /** The connection is gone; it is tried again `delayMs` after this was said. */
  | { kind: 'waiting'; reason: string; delayMs: number }
  /** Trying again cannot help: no or a wrong token (401), or one that may not read this (403). */
  | { kind: 'refused'; status: 401 | 403; reason: string };

export interface Sink<T> {
  /** The whole of it, in place of all that was known. */
  replace(items: T[]): void;
  change(change: Change<T>): void;
  /** Everything up to this revision has been handed on. */
  revision(resourceVersion: string): void;
  phase(phase: Phase): void;
}

export interface Environment {
  fetch(path: string, signal: AbortSignal): Promise<Response>;
  /** Resolves early when the signal aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** 0 to 1: spreads the retries of many pages over time. */
  random(): number;
}

const PAGE = 1000;
/** The server is asked to end each watch after this time; the next one goes on where it ended. */
const WATCH_SECONDS = 240;
/** Silence for longer means that the connection is dead without anyone having said so. */
const SILENCE_MS = (WATCH_SECONDS + 15) * 1000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 10000];

/** An answer that is not a success, with the server's own words where it has some. */
export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

class Gone extends Error {}

/** Reads a failed response's `Status` or problem document. */
export async function httpError(response: Response): Promise<HttpError> {
  const text = await response.text().catch(() => '');
  let message = text.slice(0, 200).trim();
  try {
    const body: unknown = JSON.parse(text);
    if (body && typeof body === 'object') {
      const words = body as { message?: unknown; detail?: unknown; title?: unknown };
      const said = words.message ?? words.detail ?? words.title;
      if (typeof said === 'string' && said) message = said;
    }
  } catch {
    // Not JSON: the text itself will do.
  }
  return new HttpError(response.status, message || `the server answered ${response.status}`);
}

/** Lines of a streamed body, each as soon as it is complete. Ends the stream when `idleMs` pass without a byte. */
export async function* lines(body: ReadableStream<Uint8Array>, idleMs: number): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let pending = '';
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    for (;;) {
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('the connection went silent')), idleMs);
      });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) break;
      const parts = (pending + decoder.decode(value, { stream: true })).split('\n');
      pending = parts.pop() ?? '';
      for (const line of parts) if (line.trim()) yield line;
    }
    // What is left without a line break was cut off; the next watch brings it whole.
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function get(env: Environment, path: string, query: Record<string, string>, signal: AbortSignal) {
  const response = await env.fetch(`${path}?${new URLSearchParams(query)}`, signal);
  if (response.status === 410) {
    await response.body?.cancel().catch(() => undefined);
    throw new Gone('the history was compacted');
  }
  if (!response.ok) throw await httpError(response);
  return response;
}

async function list<T>(env: Environment, path: string, signal: AbortSignal) {
  const items: T[] = [];
  let revision: string | undefined;
  let next = '';
  do {
    const query: Record<string, string> = { limit: String(PAGE) };
    if (next) query.continue = next;
    const page = (await (await get(env, path, query, signal)).json()) as {
      metadata: { resourceVersion: string; continue?: string };
      items?: T[] | null;
    };
    for (const item of page.items ?? []) items.push(item);
    // The first page's revision: should later pages be newer, the watch only repeats what they already hold.
    revision ??= page.metadata.resourceVersion;
    next = page.metadata.continue ?? '';
  } while (next);
  return { items, revision: revision ?? '0' };
}

type Event<T> =
  | Change<T>
  | { type: 'BOOKMARK'; object: { metadata: { resourceVersion: string } } }
  | { type: 'ERROR'; object: { code?: number; message?: string } };

/**
 * Follows `path` until the signal aborts or the server refuses. Never rejects.
 *
 * `volatile`: the server keeps these in memory, so after a restart its revisions count anew and one of before means
 * something else. Then every watch begins with a list.
 */
export async function follow<T extends Listed>(
  env: Environment,
  path: string,
  sink: Sink<T>,
  signal: AbortSignal,
  { volatile = false } = {},
): Promise<void> {
  let revision: string | undefined;
  let failures = 0;

  const watch = async (from: string) => {
    const query = {
      watch: 'true',
      resourceVersion: from,
      allowWatchBookmarks: 'true',
      timeoutSeconds: String(WATCH_SECONDS),
    };
    const response = await get(env, path, query, signal);
    if (!response.body) throw new Error('the watch has no body');
    sink.phase({ kind: 'live' });
    for await (const line of lines(response.body, SILENCE_MS)) {
      if (signal.aborted) return;
      const event = JSON.parse(line) as Event<T>;
      if (event.type === 'ERROR') {
        if (event.object.code === 410) throw new Gone(event.object.message ?? 'gone');
        throw new HttpError(event.object.code ?? 500, event.object.message ?? 'the watch failed');
      }
      if (event.type !== 'BOOKMARK') sink.change(event);
      const seen = event.object.metadata.resourceVersion;
      if (seen) {
        revision = seen;
        sink.revision(seen);
      }
      failures = 0;
    }
  };

  while (!signal.aborted) {
    const started = performance.now();
    try {
      if (revision === undefined || volatile) {
        sink.phase({ kind: 'listing' });
        const listed = await list<T>(env, path, signal);
        if (signal.aborted) return;
        revision = listed.revision;
        sink.replace(listed.items);
        sink.revision(revision);
      }
      await watch(revision);
      // The server ended the watch, as it was asked to. One that ends at once would make us spin.
      if (performance.now() - started > 1000) failures = 0;
      else await env.sleep(BACKOFF_MS[0]!, signal);
      continue;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof HttpError && (error.status === 401 || error.status === 403)) {
        sink.phase({ kind: 'refused', status: error.status, reason: error.message });
        return;
      }
      if (error instanceof Gone) {
        revision = undefined;
        // The first time at once; a server that says it every time is given time.
        if (failures++ === 0) continue;
      }
      const base = BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)]!;
      if (!(error instanceof Gone)) failures++;
      const delayMs = Math.round(base * (0.5 + env.random() / 2));
      const reason = error instanceof Error ? error.message : String(error);
      sink.phase({ kind: 'waiting', reason, delayMs });
      await env.sleep(delayMs, signal);
    }
  }
}
