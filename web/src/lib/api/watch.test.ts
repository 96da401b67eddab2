import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { follow, httpError, lines, type Environment, type Listed, type Phase } from './watch';

type Reply = (url: URL, signal: AbortSignal) => Response;

const encoder = new TextEncoder();

/** A body that says `chunks` and then ends, or stays open when `open`. */
function body(chunks: string[], open = false): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(encoder.encode(chunk));
      if (!open) controller.close();
    },
  });
}

const item = (name: string, revision: number) => ({
  metadata: { namespace: 'default', name, resourceVersion: String(revision) },
});
const listOf = (revision: number, names: string[], next?: string) =>
  Response.json({
    metadata: { resourceVersion: String(revision), continue: next },
    items: names.map((n) => item(n, revision)),
  });
const event = (type: string, object: unknown) => `${JSON.stringify({ type, object })}\n`;
const bookmark = (revision: number) => event('BOOKMARK', { metadata: { resourceVersion: String(revision) } });
const watchOf = (events: string[], open = false) => new Response(body(events, open));
const status = (code: number, message: string) => Response.json({ code, message }, { status: code });

/** Answers with `replies` one after the other; the last one ends the run. */
async function run(replies: Reply[], options: { volatile?: boolean } = {}) {
  const abort = new AbortController();
  const asked: string[] = [];
  const slept: number[] = [];
  const log: string[] = [];
  const phases: Phase[] = [];
  const env: Environment = {
    fetch: async (path, signal) => {
      const url = new URL(path, 'https://controller');
      asked.push(url.searchParams.get('watch') ? `watch ${url.searchParams.get('resourceVersion')}` : 'list');
      const reply = replies.shift();
      if (!reply) {
        abort.abort();
        throw new Error('aborted');
      }
      return reply(url, signal);
    },
    sleep: async (ms) => void slept.push(ms),
    random: () => 1,
  };
  await follow<Listed>(
    env,
    '/api/v1/services',
    {
      replace: (items) => log.push(`replace ${items.map((i) => i.metadata.name).join(',')}`),
      change: (c) => log.push(`${c.type} ${c.object.metadata.name}`),
      revision: (r) => log.push(`@${r}`),
      phase: (p) => phases.push(p),
    },
    abort.signal,
    options,
  );
  return { asked, slept, log, phases };
}

describe('follow', () => {
  it('lists, then watches from the revision of the list', async () => {
    const { asked, log, phases } = await run([
      () => listOf(7, ['a', 'b']),
      () =>
        watchOf([
          event('ADDED', item('c', 8)),
          event('MODIFIED', item('a', 9)),
          event('DELETED', item('b', 10)),
        ]),
    ]);
    expect(asked.slice(0, 2)).toEqual(['list', 'watch 7']);
    expect(log).toEqual(['replace a,b', '@7', 'ADDED c', '@8', 'MODIFIED a', '@9', 'DELETED b', '@10']);
    expect(phases.map((p) => p.kind)).toEqual(['listing', 'live']);
  });

  it('reads every page of a long list before it hands it on', async () => {
    const { log, asked } = await run([
      () => listOf(5, ['a'], 'more'),
      (url) => (expect(url.searchParams.get('continue')).toBe('more'), listOf(6, ['b'])),
    ]);
    expect(log).toEqual(['replace a,b', '@5']);
    expect(asked.at(-1)).toBe('watch 5');
  });

  it('goes on from the last event or bookmark when the watch ends', async () => {
    const { asked, log } = await run([
      () => listOf(1, []),
      () => watchOf([event('ADDED', item('a', 2)), bookmark(9)]),
    ]);
    expect(asked).toEqual(['list', 'watch 1', 'watch 9']);
    expect(log).toEqual(['replace ', '@1', 'ADDED a', '@2', '@9']);
  });

  it.each([
    ['as the answer', () => status(410, 'too old')],
    ['as an event', () => watchOf([event('ERROR', { code: 410, message: 'too old' })])],
  ])('lists again, at once, on 410 %s', async (_, gone) => {
    const { asked, slept, log } = await run([() => listOf(1, ['a']), gone, () => listOf(20, ['b'])]);
    expect(asked).toEqual(['list', 'watch 1', 'list', 'watch 20']);
    expect(slept).toEqual([]);
    expect(log).toEqual(['replace a', '@1', 'replace b', '@20']);
  });

  it('slows down when the server answers 410 every time', async () => {
    const { slept } = await run([
      () => listOf(1, []),
      () => status(410, 'too old'),
      () => listOf(2, []),
      () => status(410, 'too old'),
      () => listOf(3, []),
      () => status(410, 'too old'),
    ]);
    expect(slept).toEqual([2000, 4000]);
  });

  it('retries more and more slowly, up to ten seconds, and says why', async () => {
    const down = () => {
      throw new TypeError('Failed to fetch');
    };
    const { slept, phases } = await run(Array.from({ length: 8 }, () => down));
    expect(slept).toEqual([500, 1000, 2000, 4000, 8000, 10000, 10000, 10000]);
    expect(phases[1]).toEqual({ kind: 'waiting', reason: 'Failed to fetch', delayMs: 500 });
  });

  it('retries quickly again after it got through', async () => {
    const down = () => status(503, 'starting');
    const { asked, slept } = await run([
      down,
      down,
      () => listOf(1, []),
      () => watchOf([bookmark(2), event('ERROR', { code: 500, message: 'broken' })]),
    ]);
    expect(slept).toEqual([500, 1000, 500]);
    expect(asked.at(-1)).toBe('watch 2');
  });

  it('does not spin when a watch ends as soon as it began', async () => {
    const { slept } = await run([() => listOf(1, []), () => watchOf([]), () => watchOf([])]);
    expect(slept).toEqual([500, 500]);
  });

  it('lists before every watch what does not outlive the server', async () => {
    const { asked, log } = await run(
      [() => listOf(57, ['a']), () => watchOf([event('ADDED', item('b', 58))]), () => listOf(60, ['c'])],
      { volatile: true },
    );
    expect(asked).toEqual(['list', 'watch 57', 'list', 'watch 60']);
    expect(log).toEqual(['replace a', '@57', 'ADDED b', '@58', 'replace c', '@60']);
  });

  it.each([401, 403] as const)('stops at %i: only a person can help', async (code) => {
    const { asked, phases } = await run([() => status(code, 'who are you?')]);
    expect(asked).toEqual(['list']);
    expect(phases.at(-1)).toEqual({ kind: 'refused', status: code, reason: 'who are you?' });
  });

  it('takes a line that is not JSON as a broken connection', async () => {
    const { asked, phases } = await run([() => listOf(1, []), () => watchOf([bookmark(4), '<html>\n'])]);
    expect(phases.at(-1)?.kind).toBe('waiting');
    expect(asked.at(-1)).toBe('watch 4');
  });

  it('hands on nothing after it was stopped', async () => {
    const abort = new AbortController();
    const seen: string[] = [];
    await follow<Listed>(
      {
        fetch: async () => {
          abort.abort();
          return listOf(1, ['late']);
        },
        sleep: async () => undefined,
        random: () => 0,
      },
      '/api/v1/services',
      {
        replace: () => seen.push('replace'),
        change: () => seen.push('change'),
        revision: () => undefined,
        phase: () => undefined,
      },
      abort.signal,
    );
    expect(seen).toEqual([]);
  });
});

describe('lines', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const out: string[] = [];
    for await (const line of lines(stream, 1000)) out.push(line);
    return out;
  };

  it.each([
    ['whole lines', ['a\nb\n'], ['a', 'b']],
    ['a line in pieces', ['a', 'b', 'c\n'], ['abc']],
    ['blank lines between', ['a\n\n\nb\n'], ['a', 'b']],
    ['a cut last line', ['a\nb'], ['a']],
    ['nothing', [], []],
  ])('%s', async (_, chunks, expected) => {
    expect(await collect(body(chunks))).toEqual(expected);
  });

  it('joins a character cut between two chunks', async () => {
    const bytes = encoder.encode('µ\n');
    const stream = new ReadableStream<Uint8Array>({
      start(c) {
        c.enqueue(bytes.slice(0, 1));
        c.enqueue(bytes.slice(1));
        c.close();
      },
    });
    expect(await collect(stream)).toEqual(['µ']);
  });

  it('ends a connection that went silent', async () => {
    const out = collect(body(['a\n'], true));
    const failed = expect(out).rejects.toThrow('silent');
    await vi.advanceTimersByTimeAsync(1001);
    await failed;
  });
});

describe('httpError', () => {
  it.each([
    [
      "Kubernetes' Status",
      '{"kind":"Status","message":"services \\"x\\" not found"}',
      'services "x" not found',
    ],
    ['a problem document', '{"title":"Bad","detail":"no such node"}', 'no such node'],
    ['plain text', 'upstream down', 'upstream down'],
    ['nothing', '', 'the server answered 502'],
  ])('%s', async (_, text, message) => {
    const error = await httpError(new Response(text, { status: 502 }));
    expect(error.message).toBe(message);
    expect(error.status).toBe(502);
  });
});
