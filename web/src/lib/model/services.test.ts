import { describe, expect, it } from 'vitest';
import type { Endpoint, EndpointSlice, Service, ServiceSpec } from '../api/types';
import { ServiceIndex, stateOf, unserved } from './services';

const service = (name: string, spec: Partial<Service['spec']> = {}, namespace = 'default'): Service => ({
  metadata: { namespace, name },
  spec: { type: 'ClusterIP', clusterIPs: ['10.96.0.1'], ports: [{ port: 80 }], ...spec },
});
const pod = (
  name: string,
  address: string,
  conditions: Endpoint['conditions'] = { ready: true },
): Endpoint => ({
  addresses: [address],
  conditions,
  nodeName: 'node-1',
  targetRef: { kind: 'Workload', namespace: 'default', name },
});
const slice = (
  name: string,
  of: string,
  endpoints: Endpoint[],
  addressType: EndpointSlice['addressType'] = 'IPv4',
): EndpointSlice => ({
  metadata: { namespace: 'default', name, labels: { 'kubernetes.io/service-name': of } },
  addressType,
  endpoints,
  ports: [{ port: 8080, protocol: 'TCP' }],
});
const only = (index: ServiceIndex) => index.rows()[0]!;

describe('ServiceIndex', () => {
  it('joins slices to their Service, whichever comes first', () => {
    const index = new ServiceIndex();
    index.replaceSlices([slice('web-a', 'web', [pod('web-1', '10.244.1.2')])]);
    expect(index.rows()).toEqual([]);
    index.changeService({ type: 'ADDED', object: service('web') });
    expect(only(index)).toMatchObject({ key: 'default/web', ready: 1 });
    index.changeSlice({
      type: 'ADDED',
      object: slice('web-b', 'web', [pod('web-2', '10.244.2.2', { ready: false })]),
    });
    expect(only(index).endpoints.map((e) => [e.name, e.state])).toEqual([
      ['web-1', 'ready'],
      ['web-2', 'not ready'],
    ]);
  });

  it('counts a dual-stack pod once', () => {
    const index = new ServiceIndex();
    index.replaceServices([service('web')]);
    index.replaceSlices([
      slice('web-4', 'web', [pod('web-1', '10.244.1.2')]),
      slice('web-6', 'web', [pod('web-1', 'fd00:10:244:1::2')], 'IPv6'),
    ]);
    expect(only(index)).toMatchObject({
      ready: 1,
      endpoints: [{ addresses: ['10.244.1.2', 'fd00:10:244:1::2'] }],
    });
  });

  it('counts it as ready only where both families are', () => {
    const index = new ServiceIndex();
    index.replaceServices([service('web')]);
    index.replaceSlices([
      slice('web-4', 'web', [pod('web-1', '10.244.1.2')]),
      slice('web-6', 'web', [pod('web-1', 'fd00::2', { ready: false })], 'IPv6'),
    ]);
    expect(only(index)).toMatchObject({ ready: 0, endpoints: [{ state: 'not ready' }] });
  });

  it('follows changes of readiness, a moved slice and deletions', () => {
    const index = new ServiceIndex();
    index.replaceServices([service('a'), service('b')]);
    const ready = () => index.rows().map((r) => `${r.name}:${r.ready}/${r.endpoints.length}`);
    index.changeSlice({ type: 'ADDED', object: slice('s', 'a', [pod('p', '10.0.0.1')]) });
    expect(ready()).toEqual(['a:1/1', 'b:0/0']);
    index.changeSlice({
      type: 'MODIFIED',
      object: slice('s', 'a', [pod('p', '10.0.0.1', { ready: false })]),
    });
    expect(ready()).toEqual(['a:0/1', 'b:0/0']);
    index.changeSlice({ type: 'MODIFIED', object: slice('s', 'b', [pod('p', '10.0.0.1')]) });
    expect(ready()).toEqual(['a:0/0', 'b:1/1']);
    index.changeSlice({ type: 'DELETED', object: slice('s', 'b', []) });
    expect(ready()).toEqual(['a:0/0', 'b:0/0']);
    index.changeService({ type: 'DELETED', object: service('a') });
    expect(ready()).toEqual(['b:0/0']);
  });

  it('forgets what a new list does not hold', () => {
    const index = new ServiceIndex();
    index.replaceServices([service('a'), service('b')]);
    index.replaceSlices([slice('s', 'a', [pod('p', '10.0.0.1')])]);
    index.replaceServices([service('a')]);
    expect(index.rows().map((r) => [r.name, r.ready])).toEqual([['a', 1]]);
    index.replaceSlices([]);
    expect(only(index).ready).toBe(0);
  });

  it.each([
    ['', ['default/api', 'default/web', 'other/web']],
    ['web', ['default/web', 'other/web']],
    ['WEB other', ['other/web']],
    ['10.96.0.7', ['default/api']],
    ['nothing', []],
  ])('finds %j', (query, expected) => {
    const index = new ServiceIndex();
    index.replaceServices([
      service('web', {}, 'other'),
      service('web'),
      service('api', { clusterIPs: ['10.96.0.7'] }),
    ]);
    expect(index.find(query).map((r) => r.key)).toEqual(expected);
  });

  it('finds those that nobody serves', () => {
    const index = new ServiceIndex();
    index.replaceServices([
      service('a'),
      service('b'),
      service('out', { type: 'ExternalName', externalName: 'x.org' }),
      service('kube-dns', {}, 'kube-system'),
    ]);
    index.replaceSlices([slice('s', 'a', [pod('p', '10.0.0.1')])]);
    expect(index.find('', true).map((r) => r.name)).toEqual(['b']);
    expect(unserved(only(index))).toBe(false);
  });

  it.each<[string, Partial<ServiceSpec>, string[]]>([
    ['one unnamed port', { ports: [{ port: 80 }] }, ['80/TCP']],
    [
      'another target',
      { ports: [{ name: 'http', port: 80, targetPort: 'web', protocol: 'TCP' }] },
      ['http 80→web/TCP'],
    ],
    ['the same target', { ports: [{ port: 53, targetPort: 53, protocol: 'UDP' }] }, ['53/UDP']],
    ['a node port', { ports: [{ port: 80, nodePort: 30080 }] }, ['80/TCP (node 30080)']],
    ['none', { ports: [] }, []],
  ])('ports: %s', (_, spec, expected) => {
    const index = new ServiceIndex();
    index.replaceServices([service('a', spec)]);
    expect(only(index).ports).toEqual(expected);
  });

  it('tells headless from virtual', () => {
    const index = new ServiceIndex();
    index.replaceServices([service('a', { clusterIP: 'None', clusterIPs: ['None'] })]);
    expect(only(index)).toMatchObject({ headless: true, addresses: [] });
  });

  it('recomputes only the Service that changed', () => {
    const index = new ServiceIndex();
    index.replaceServices([service('a'), service('b')]);
    const [a, b] = index.rows();
    index.changeSlice({ type: 'ADDED', object: slice('s', 'b', [pod('p', '10.0.0.1')]) });
    const [a2, b2] = index.rows();
    expect(a2).toBe(a);
    expect(b2).not.toBe(b);
  });
});

describe('stateOf', () => {
  it.each([
    [undefined, 'ready'],
    [{}, 'ready'],
    [{ ready: true }, 'ready'],
    [{ ready: false }, 'not ready'],
    [{ ready: false, serving: true, terminating: true }, 'terminating'],
  ] as const)('%j is %s', (conditions, expected) => {
    expect(stateOf({ addresses: ['10.0.0.1'], conditions })).toBe(expected);
  });
});
