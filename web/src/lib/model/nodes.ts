/** Nodes joined with what their agents report, and how far each is behind the store. */
import type { DeviceState, Node, NodeState } from '../api/types';
import type { Change } from '../api/watch';

export type Health = 'current' | 'behind' | 'disconnected' | 'never reported' | 'other store';

export interface NodeRow {
  name: string;
  addresses: string[];
  podCidrs: string[];
  health: Health;
  /** Undefined: no agent has reported yet. */
  applied: number | undefined;
  /** Revisions between the store's newest and the applied one. */
  behind: number;
  latencyUs: number | undefined;
  services: number;
  backends: number;
  devices: DeviceState[];
  counters: [string, number][];
  agentVersion: string;
  startedAt: string;
  problems: string[];
}

/** Whether an operator should look at it. */
export function troubled(row: NodeRow): boolean {
  return row.health !== 'current' || row.problems.length > 0 || row.devices.some((d) => d.error);
}

const ROLES: Record<string, [one: string, many: string]> = { nic: ['NIC', 'NICs'], pod: ['pod', 'pods'] };

/** `1 NIC xdp-native · 2 pods tc`: how many devices of each role have which hook. */
export function summarise(devices: DeviceState[]): string {
  const groups = new Map<string, { role: string; hook: string; count: number }>();
  for (const d of devices) {
    const hook = d.error ? 'not hooked' : d.mode;
    const group = groups.get(`${d.role} ${hook}`);
    if (group) group.count++;
    else groups.set(`${d.role} ${hook}`, { role: d.role, hook, count: 1 });
  }
  return [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, { role, hook, count }]) => `${count} ${ROLES[role]?.[count === 1 ? 0 : 1] ?? role} ${hook}`)
    .join(' · ');
}

export class NodeIndex {
  #nodes = new Map<string, Node>();
  #states = new Map<string, NodeState>();
  /** The newest revision that each stored kind's list, watch and bookmarks have shown. */
  #seen = new Map<string, number>();

  replaceNodes(nodes: Node[]): void {
    this.#nodes = new Map(nodes.map((n) => [n.metadata.name, n]));
  }

  changeNode({ type, object }: Change<Node>): void {
    if (type === 'DELETED') this.#nodes.delete(object.metadata.name);
    else this.#nodes.set(object.metadata.name, object);
  }

  replaceStates(states: NodeState[]): void {
    this.#states = new Map(states.map((s) => [s.metadata.name, s]));
  }

  changeState({ type, object }: Change<NodeState>): void {
    if (type === 'DELETED') this.#states.delete(object.metadata.name);
    else this.#states.set(object.metadata.name, object);
  }

  /** `kind` has been followed up to `revision`. A smaller one than before means that the store was replaced. */
  seen(kind: string, revision: string): void {
    const number = Number(revision);
    if (Number.isFinite(number)) this.#seen.set(kind, number);
  }

  /** The store that most of the connected agents follow. */
  get #storeId(): string | undefined {
    const votes = new Map<string, number>();
    for (const { status } of this.#states.values()) {
      if (status.connected) votes.set(status.storeId, (votes.get(status.storeId) ?? 0) + 1);
    }
    return [...votes].sort(([, a], [, b]) => b - a)[0]?.[0];
  }

  /** The store's newest revision. An agent may have applied one whose bookmark has not reached this page yet. */
  get head(): number {
    const store = this.#storeId;
    let head = Math.max(0, ...this.#seen.values());
    for (const { status } of this.#states.values()) {
      if (status.connected && status.storeId === store) head = Math.max(head, status.appliedRevision);
    }
    return head;
  }

  rows(): NodeRow[] {
    const head = this.head;
    const store = this.#storeId;
    const names = new Set([...this.#nodes.keys(), ...this.#states.keys()]);
    return [...names].sort(byNumber).map((name) => this.#row(name, head, store));
  }

  #row(name: string, head: number, store: string | undefined): NodeRow {
    const node = this.#nodes.get(name);
    const status = this.#states.get(name)?.status;
    const cidrs = node?.spec?.podCIDRs?.length ? node.spec.podCIDRs : [node?.spec?.podCIDR ?? ''];
    const comparable = status && status.storeId === (store ?? status.storeId);
    const behind = comparable ? Math.max(0, head - status.appliedRevision) : 0;
    let health: Health = 'current';
    if (!status) health = 'never reported';
    else if (!status.connected) health = 'disconnected';
    else if (status.storeId !== store) health = 'other store';
    else if (behind > 0) health = 'behind';
    return {
      name,
      addresses: (node?.status?.addresses ?? []).flatMap((a) => (a.type === 'InternalIP' && a.address) || []),
      podCidrs: cidrs.filter(Boolean),
      health,
      applied: status?.appliedRevision,
      behind,
      latencyUs: status?.programmingLatencyUs,
      services: status?.services ?? 0,
      backends: status?.backends ?? 0,
      devices: [...(status?.devices ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1)),
      counters: Object.entries(status?.counters ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)),
      agentVersion: status?.agentVersion ?? '',
      startedAt: status?.startedAt ?? '',
      problems: status?.problems ?? [],
    };
  }
}

/** node-2 before node-10. */
const collator = new Intl.Collator('en', { numeric: true });
function byNumber(a: string, b: string): number {
  return collator.compare(a, b);
}
