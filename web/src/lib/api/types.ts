/** The objects the dashboard reads, by the names that the API document gives them. */

export interface ObjectMeta {
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  creationTimestamp?: string;
  labels?: Record<string, string>;
}

export interface ServicePort {
  name?: string;
  protocol?: string;
  port: number;
  targetPort?: number | string;
  nodePort?: number;
}

export interface Service {
  metadata: ObjectMeta;
  spec: {
    type?: string;
    clusterIP?: string;
    clusterIPs?: string[];
    externalName?: string;
    selector?: Record<string, string>;
    ports?: ServicePort[];
  };
}

export interface Endpoint {
  addresses: string[];
  conditions?: { ready?: boolean; serving?: boolean; terminating?: boolean };
  hostname?: string;
  nodeName?: string;
  targetRef?: { kind?: string; namespace?: string; name?: string };
}

export interface EndpointSlice {
  metadata: ObjectMeta;
  addressType: string;
  endpoints: Endpoint[];
  ports: { name?: string; port?: number; protocol?: string }[];
}

export interface Node {
  metadata: ObjectMeta;
  spec?: { podCIDR?: string; podCIDRs?: string[] };
  status?: { addresses?: { type: string; address: string }[] };
}

export interface DeviceState {
  name: string;
  index: number;
  role: string;
  mode: string;
  hookLatencyUs: number;
  error?: string | null;
}

export interface NodeState {
  metadata: ObjectMeta;
  status: {
    storeId: string;
    appliedRevision: number;
    programmingLatencyUs: number;
    agentVersion: string;
    startedAt?: string;
    devices: DeviceState[];
    services: number;
    backends: number;
    counters: Record<string, number>;
    problems?: string[];
    connected: boolean;
  };
}
