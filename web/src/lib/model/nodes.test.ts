import { describe, expect, it } from 'vitest';
import type { DeviceState, Node, NodeState } from '../api/types';
import { NodeIndex, summarise, troubled } from './nodes';

const node = (name: string): Node => ({
  metadata: { name },
  spec: { podCIDRs: ['10.244.1.0/24'] },
  status: {
    addresses: [
      { type: 'InternalIP', address: '172.18.0.11' },
      { type: 'Hostname', address: name },
    ],
  },
});
const state = (
  name: string,
  appliedRevision: number,
  more: Partial<NodeState['status']> = {},
): NodeState => ({
  metadata: { name },
  status: {
    storeId: 'one',
    appliedRevision,
    programmingLatencyUs: 800,
    agentVersion: '0.1.0',
    devices: [],
    services: 1,
    backends: 2,
    counters: {},
    connected: true,
    ...more,
  },
});
const device = (name: string, role: string, mode: string, error?: string): DeviceState => ({
  name,
  index: 1,
  role,
  mode,
  hookLatencyUs: 900,
  error,
});

describe('NodeIndex', () => {
  it.each([
    ['at the head', state('n', 10), 'current', 0],
    ['behind', state('n', 7), 'behind', 3],
    ['not connected', state('n', 10, { connected: false }), 'disconnected', 0],
    ['of a replaced store', state('n', 99, { storeId: 'old' }), 'other store', 0],
  ])('a node %s', (_, reported, health, behind) => {
    const index = new NodeIndex();
    index.seen('services', '10');
    index.seen('nodes', '4');
    index.replaceNodes([node('n')]);
    index.replaceStates([reported, state('x', 10), state('y', 10)]);
    expect(index.rows()[0]).toMatchObject({ name: 'n', health, behind, addresses: ['172.18.0.11'] });
    expect(index.head).toBe(10);
    expect(troubled(index.rows()[0]!)).toBe(health !== 'current');
  });

  it('shows a node whose agent never reported, and a report without a Node', () => {
    const index = new NodeIndex();
    index.replaceNodes([node('n')]);
    index.changeState({ type: 'ADDED', object: state('m', 1) });
    expect(index.rows().map((r) => [r.name, r.health])).toEqual([
      ['m', 'current'],
      ['n', 'never reported'],
    ]);
  });

  it('takes the newest applied revision as the head where no bookmark has come yet', () => {
    const index = new NodeIndex();
    index.seen('services', '5');
    index.replaceStates([state('a', 9), state('b', 5)]);
    expect(index.head).toBe(9);
    expect(index.rows().map((r) => r.behind)).toEqual([0, 4]);
  });

  it('starts anew when the store was replaced', () => {
    const index = new NodeIndex();
    for (const kind of ['nodes', 'services']) index.seen(kind, '500');
    for (const kind of ['nodes', 'services']) index.seen(kind, '3');
    index.replaceStates([state('a', 500, { connected: false, storeId: 'old' })]);
    expect(index.head).toBe(3);
  });

  it('sorts node-2 before node-10 and follows deletions', () => {
    const index = new NodeIndex();
    index.replaceNodes([node('node-10'), node('node-2')]);
    index.changeNode({ type: 'ADDED', object: node('node-1') });
    expect(index.rows().map((r) => r.name)).toEqual(['node-1', 'node-2', 'node-10']);
    index.changeNode({ type: 'DELETED', object: node('node-2') });
    expect(index.rows().map((r) => r.name)).toEqual(['node-1', 'node-10']);
  });

  it('calls a node with problems or an unhooked device troubled', () => {
    const index = new NodeIndex();
    index.replaceStates([
      state('a', 1, { problems: ['no cgroup2'] }),
      state('b', 1, { devices: [device('veth1', 'pod', 'tc', 'no such device')] }),
      state('c', 1, { devices: [device('veth1', 'pod', 'tc')] }),
    ]);
    expect(index.rows().map(troubled)).toEqual([true, true, false]);
  });
});

describe('summarise', () => {
  it.each([
    ['nothing', [], ''],
    ['one kind', [device('a', 'pod', 'tc'), device('b', 'pod', 'tc')], '2 pods tc'],
    [
      'several',
      [device('a', 'pod', 'tc'), device('e', 'nic', 'xdp-native'), device('b', 'pod', 'tc', 'gone')],
      '1 NIC xdp-native · 1 pod not hooked · 1 pod tc',
    ],
  ])('%s', (_, devices, expected) => {
    expect(summarise(devices)).toBe(expected);
  });
});
