import type { Endpoint, EndpointSlice, Node, NodeState, Service } from '../src/lib/api/types';

export function node(name: string, number: number): Node {
  return {
    metadata: { name },
    spec: { podCIDRs: [`10.244.${number}.0/24`, `fd00:10:244:${number}::/64`] },
    status: {
      addresses: [
        { type: 'InternalIP', address: `172.18.0.${10 + number}` },
        { type: 'InternalIP', address: `fd00:18::${10 + number}` },
      ],
    },
  };
}

export function nodeState(
  name: string,
  appliedRevision: number,
  more: Partial<NodeState['status']> = {},
): NodeState {
  return {
    metadata: { name },
    status: {
      storeId: 'mock',
      appliedRevision,
      programmingLatencyUs: 840,
      agentVersion: '0.1.0',
      startedAt: '2026-01-02T03:04:05Z',
      devices: [
        { name: 'eth0', index: 2, role: 'nic', mode: 'xdp-native', hookLatencyUs: 2100 },
        { name: 'vetha1b2c3', index: 7, role: 'pod', mode: 'tc', hookLatencyUs: 930 },
        { name: 'vethd4e5f6', index: 8, role: 'pod', mode: 'tc', hookLatencyUs: 1180 },
      ],
      services: 3,
      backends: 7,
      counters: { no_endpoints: 3, truncated: 0 },
      connected: true,
      ...more,
    },
  };
}

export function service(name: string, spec: Partial<Service['spec']> = {}, namespace = 'default'): Service {
  return {
    metadata: { namespace, name },
    spec: {
      type: 'ClusterIP',
      clusterIPs: ['10.96.12.7', 'fd00:10:96::c07'],
      ports: [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }],
      ...spec,
    },
  };
}

export function slice(of: string, endpoints: Endpoint[], namespace = 'default'): EndpointSlice {
  return {
    metadata: { namespace, name: `${of}-ipv4`, labels: { 'kubernetes.io/service-name': of } },
    addressType: 'IPv4',
    endpoints,
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  };
}

export function endpoint(name: string, address: string, nodeName: string, ready = true): Endpoint {
  return {
    addresses: [address],
    conditions: { ready, serving: ready, terminating: false },
    nodeName,
    targetRef: { kind: 'Workload', namespace: 'default', name },
  };
}
