/**
 * The objects the dashboard reads, from the API document. That calls every field with a default optional, since a writer
 * may leave it out; what the server always writes is told to the compiler here.
 */
import type { components } from './schema';

type Schemas = components['schemas'];
/** `T` with the fields `K` always there. */
type Always<T, K extends keyof T> = Omit<T, K> & { [P in K]-?: NonNullable<T[P]> };

export type ObjectMeta = Always<Schemas['ObjectMeta'], 'name'>;
type Stored<T extends { metadata?: unknown }> = Omit<T, 'metadata'> & { metadata: ObjectMeta };

export type ServicePort = Always<Schemas['ServicePort'], 'port'>;
export type ServiceSpec = Omit<Schemas['ServiceSpec'], 'ports'> & { ports?: ServicePort[] };
export type Service = Omit<Stored<Schemas['Service']>, 'spec'> & { spec: ServiceSpec };

export type Endpoint = Always<Schemas['Endpoint'], 'addresses'>;
export type EndpointSlice = Omit<Stored<Schemas['EndpointSlice']>, 'endpoints'> & { endpoints?: Endpoint[] };

export type Node = Stored<Schemas['Node']>;

export type DeviceState = Always<
  Schemas['DeviceState'],
  'name' | 'index' | 'role' | 'mode' | 'hookLatencyUs'
>;
export type NodeStateStatus = Omit<
  Always<
    Schemas['NodeStateStatus'],
    | 'storeId'
    | 'appliedRevision'
    | 'programmingLatencyUs'
    | 'agentVersion'
    | 'services'
    | 'backends'
    | 'counters'
    | 'connected'
  >,
  'devices'
> & { devices: DeviceState[] };
export type NodeState = Omit<Stored<Schemas['NodeState']>, 'status'> & { status: NodeStateStatus };
