/** The live state of the cluster: four watches feed two indexes, and the page is told at most every 80 ms. */
import type { EndpointSlice, Node, NodeState, Service } from './api/types';
import { follow, type Environment, type Listed, type Phase, type Sink } from './api/watch';
import { NodeIndex } from './model/nodes';
import { ServiceIndex } from './model/services';

export type Connection =
  | { kind: 'connecting' }
  | { kind: 'live' }
  | { kind: 'reconnecting'; reason: string; since: Date }
  | { kind: 'refused'; status: 401 | 403; reason: string };

const KINDS = ['nodes', 'nodestates', 'services', 'endpointslices'] as const;
type Kind = (typeof KINDS)[number];

const PATHS: Record<Kind, string> = {
  nodes: '/api/v1/nodes',
  nodestates: '/apis/eastwest.dev/v1/nodestates',
  services: '/api/v1/services',
  endpointslices: '/apis/discovery.k8s.io/v1/endpointslices',
};

const RENDER_MS = 80;

function environment(token: string): Environment {
  return {
    fetch: (path, signal) =>
      fetch(path, {
        signal,
        cache: 'no-store',
        headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
      }),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          window.removeEventListener('online', done);
          resolve();
        };
        const timer = setTimeout(done, ms);
        signal.addEventListener('abort', done);
        // The network is back: no need to wait any longer.
        window.addEventListener('online', done);
      }),
    random: Math.random,
  };
}

export class Cluster {
  /** Moves on with every change that the page should show. */
  version = $state(0);
  connection = $state<Connection>({ kind: 'connecting' });
  /** Each kind has been listed once: before that, nothing is known, and "none" would be a lie. */
  loaded = $state<Record<Kind, boolean>>({
    nodes: false,
    nodestates: false,
    services: false,
    endpointslices: false,
  });

  readonly services = new ServiceIndex();
  readonly nodes = new NodeIndex();

  #phases = new Map<Kind, Phase>();
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastLive: Date | undefined;

  constructor(token: string) {
    const env = environment(token);
    const { services, nodes } = this;
    const start = <T extends Listed>(kind: Kind, sink: Pick<Sink<T>, 'replace' | 'change'>) =>
      follow<T>(env, PATHS[kind], this.#sink(kind, sink), this.#abort.signal, {
        // Agents' reports live in the controller's memory and count for themselves.
        volatile: kind === 'nodestates',
      });
    void start<Node>('nodes', {
      replace: (items) => nodes.replaceNodes(items),
      change: (c) => nodes.changeNode(c),
    });
    void start<NodeState>('nodestates', {
      replace: (items) => nodes.replaceStates(items),
      change: (c) => nodes.changeState(c),
    });
    void start<Service>('services', {
      replace: (items) => services.replaceServices(items),
      change: (c) => services.changeService(c),
    });
    void start<EndpointSlice>('endpointslices', {
      replace: (items) => services.replaceSlices(items),
      change: (c) => services.changeSlice(c),
    });
  }

  stop(): void {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  #sink<T>(kind: Kind, { replace, change }: Pick<Sink<T>, 'replace' | 'change'>): Sink<T> {
    return {
      replace: (items) => {
        replace(items);
        this.loaded[kind] = true;
        this.#touch();
      },
      change: (c) => {
        change(c);
        this.#touch();
      },
      revision: (revision) => {
        if (kind === 'nodestates') return;
        this.nodes.seen(kind, revision);
        this.#touch();
      },
      phase: (phase) => {
        this.#phases.set(kind, phase);
        this.#connect();
      },
    };
  }

  #touch(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.version++;
    }, RENDER_MS);
  }

  #connect(): void {
    const phases = [...this.#phases.values()];
    const refused = phases.find((p) => p.kind === 'refused');
    if (refused) {
      this.connection = refused;
      return;
    }
    const waiting = phases.find((p) => p.kind === 'waiting');
    if (waiting) {
      const since =
        this.connection.kind === 'reconnecting' ? this.connection.since : (this.#lastLive ?? new Date());
      this.connection = { kind: 'reconnecting', reason: waiting.reason, since };
      return;
    }
    if (phases.length === KINDS.length && phases.every((p) => p.kind === 'live')) {
      this.connection = { kind: 'live' };
      this.#lastLive = new Date();
    } else if (this.connection.kind !== 'reconnecting' && this.connection.kind !== 'live') {
      this.connection = { kind: 'connecting' };
    }
  }
}
