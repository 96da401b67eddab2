/**
 * Services joined with their endpoints, kept up to date change by change: a change costs what that one Service costs,
 * whatever the number of Services. Plain values, no rendering.
 */
import type { Endpoint, EndpointSlice, Service } from '../api/types';
import type { Change } from '../api/watch';

const LABEL_SERVICE_NAME = 'kubernetes.io/service-name';
const DNS_SERVICE = 'kube-system/kube-dns';

export interface EndpointRow {
  /** The pod or workload where the slice names one, else the address. */
  name: string;
  /** One in each family at most, as a rule. */
  addresses: string[];
  node: string;
  state: 'ready' | 'terminating' | 'not ready';
}

export interface ServiceRow {
  key: string;
  namespace: string;
  name: string;
  type: string;
  /** Virtual addresses; empty for headless Services and ExternalName. */
  addresses: string[];
  headless: boolean;
  externalName: string;
  ports: string[];
  endpoints: EndpointRow[];
  ready: number;
  /** The cluster's DNS address: each node's agent answers there itself, so it needs no endpoints. */
  dns: boolean;
  /** Lower case, for the filter box. */
  text: string;
}

/** Has ports to serve and nobody to serve them: its clients are refused. */
export function unserved(row: ServiceRow): boolean {
  return row.type !== 'ExternalName' && row.ready === 0 && !row.dns;
}

export function keyOf(object: { metadata: { namespace?: string; name: string } }): string {
  return `${object.metadata.namespace ?? ''}/${object.metadata.name}`;
}

function serviceKeyOf(slice: EndpointSlice): string | undefined {
  const name = slice.metadata.labels?.[LABEL_SERVICE_NAME];
  return name ? `${slice.metadata.namespace ?? ''}/${name}` : undefined;
}

/** `nil` conditions as Kubernetes reads them (discovery/v1 types.go): ready unless said otherwise. */
export function stateOf(endpoint: Endpoint): EndpointRow['state'] {
  if (endpoint.conditions?.terminating) return 'terminating';
  return (endpoint.conditions?.ready ?? true) ? 'ready' : 'not ready';
}

function describePorts(service: Service): string[] {
  return (service.spec.ports ?? []).map((p) => {
    const target = p.targetPort !== undefined && p.targetPort !== p.port ? `→${p.targetPort}` : '';
    const node = p.nodePort ? ` (node ${p.nodePort})` : '';
    return `${p.name ? `${p.name} ` : ''}${p.port}${target}/${p.protocol ?? 'TCP'}${node}`;
  });
}

/** A dual-stack pod stands in two slices; it is one endpoint to a person. */
function endpointRows(slices: Iterable<EndpointSlice>): EndpointRow[] {
  const rows = new Map<string, EndpointRow>();
  for (const slice of slices) {
    for (const endpoint of slice.endpoints ?? []) {
      const address = endpoint.addresses[0] ?? '';
      const target = endpoint.targetRef?.name;
      const id = target ? `${endpoint.targetRef?.kind ?? ''}/${target}` : address;
      const state = stateOf(endpoint);
      const row = rows.get(id);
      if (!row) {
        rows.set(id, {
          name: target ?? endpoint.hostname ?? address,
          addresses: [address],
          node: endpoint.nodeName ?? '',
          state,
        });
        continue;
      }
      if (!row.addresses.includes(address)) row.addresses.push(address);
      if (row.state === 'ready') row.state = state;
    }
  }
  return [...rows.values()].sort((a, b) => compare(a.name, b.name));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export class ServiceIndex {
  #services = new Map<string, Service>();
  #slices = new Map<string, EndpointSlice>();
  #slicesOf = new Map<string, Set<string>>();
  #rows = new Map<string, ServiceRow>();
  #sorted: string[] | undefined = [];

  get size(): number {
    return this.#services.size;
  }

  replaceServices(services: Service[]): void {
    this.#services = new Map(services.map((s) => [keyOf(s), s]));
    this.#rows.clear();
    this.#sorted = undefined;
  }

  changeService({ type, object }: Change<Service>): void {
    const key = keyOf(object);
    this.#rows.delete(key);
    if (type === 'DELETED') {
      this.#services.delete(key);
      this.#sorted = undefined;
      return;
    }
    if (!this.#services.has(key)) this.#sorted = undefined;
    this.#services.set(key, object);
  }

  replaceSlices(slices: EndpointSlice[]): void {
    this.#slices.clear();
    this.#slicesOf.clear();
    this.#rows.clear();
    for (const slice of slices) this.#add(slice);
  }

  changeSlice({ type, object }: Change<EndpointSlice>): void {
    // The label may have moved it from another Service.
    this.#remove(keyOf(object));
    if (type !== 'DELETED') this.#add(object);
  }

  #add(slice: EndpointSlice): void {
    const key = keyOf(slice);
    const owner = serviceKeyOf(slice);
    this.#slices.set(key, slice);
    if (owner === undefined) return;
    this.#rows.delete(owner);
    const siblings = this.#slicesOf.get(owner);
    if (siblings) siblings.add(key);
    else this.#slicesOf.set(owner, new Set([key]));
  }

  #remove(key: string): void {
    const old = this.#slices.get(key);
    if (!old) return;
    this.#slices.delete(key);
    const owner = serviceKeyOf(old);
    if (owner === undefined) return;
    this.#rows.delete(owner);
    const siblings = this.#slicesOf.get(owner);
    siblings?.delete(key);
    if (siblings?.size === 0) this.#slicesOf.delete(owner);
  }

  #row(key: string, service: Service): ServiceRow {
    const known = this.#rows.get(key);
    if (known) return known;
    const { namespace = '', name } = service.metadata;
    const { spec } = service;
    const all = spec.clusterIPs?.length ? spec.clusterIPs : spec.clusterIP ? [spec.clusterIP] : [];
    const addresses = all.filter((ip) => ip !== 'None');
    const slices = [...(this.#slicesOf.get(key) ?? [])].flatMap((s) => this.#slices.get(s) ?? []);
    const endpoints = endpointRows(slices);
    const type = spec.type ?? 'ClusterIP';
    const row: ServiceRow = {
      key,
      namespace,
      name,
      type,
      addresses,
      headless: all.includes('None'),
      externalName: spec.externalName ?? '',
      ports: describePorts(service),
      endpoints,
      ready: endpoints.filter((e) => e.state === 'ready').length,
      dns: key === DNS_SERVICE && endpoints.length === 0,
      text: [key, type, ...addresses, ...(spec.ports ?? []).map((p) => String(p.port))]
        .join(' ')
        .toLowerCase(),
    };
    this.#rows.set(key, row);
    return row;
  }

  /** All rows by namespace and name. */
  rows(): ServiceRow[] {
    this.#sorted ??= [...this.#services.keys()].sort(compare);
    return this.#sorted.map((key) => this.#row(key, this.#services.get(key)!));
  }

  /** Rows that hold every word of `query`; with `onlyUnserved`, those without a ready endpoint. */
  find(query: string, onlyUnserved = false): ServiceRow[] {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    return this.rows().filter(
      (row) => words.every((w) => row.text.includes(w)) && (!onlyUnserved || unserved(row)),
    );
  }
}
