// Generated from api-spec/openapi.json by `make spec`. Not to be edited.

export interface paths {
    "/api/v1/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What nodes report of objects, in all namespaces. */
        get: operations["all"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/namespaces": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List namespaces, or watch them with watch=true
         * @description A scope for names. Deleting it deletes what is in it.
         */
        get: operations["listNamespace"];
        put?: never;
        /**
         * Create a Namespace
         * @description A scope for names. Deleting it deletes what is in it.
         */
        post: operations["createNamespace"];
        /**
         * Delete all namespaces that are selected
         * @description A scope for names. Deleting it deletes what is in it.
         */
        delete: operations["deletecollectionNamespace"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/namespaces/{namespace}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What nodes report of objects, in one namespace. */
        get: operations["namespaced"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/namespaces/{namespace}/services": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        /**
         * List services, or watch them with watch=true
         * @description A stable virtual address in front of endpoints.
         */
        get: operations["listService"];
        put?: never;
        /**
         * Create a Service
         * @description A stable virtual address in front of endpoints.
         */
        post: operations["createService"];
        /**
         * Delete all services that are selected
         * @description A stable virtual address in front of endpoints.
         */
        delete: operations["deletecollectionService"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/namespaces/{namespace}/services/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Service
         * @description A stable virtual address in front of endpoints.
         */
        get: operations["getService"];
        /**
         * Replace a Service
         * @description A stable virtual address in front of endpoints.
         */
        put: operations["updateService"];
        post?: never;
        /**
         * Delete a Service
         * @description A stable virtual address in front of endpoints.
         */
        delete: operations["deleteService"];
        options?: never;
        head?: never;
        /**
         * Change a Service in part
         * @description A stable virtual address in front of endpoints.
         */
        patch: operations["patchService"];
        trace?: never;
    };
    "/api/v1/namespaces/{namespace}/services/{name}/status": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Service
         * @description A stable virtual address in front of endpoints.
         */
        get: operations["getServiceStatus"];
        /**
         * Replace a Service
         * @description A stable virtual address in front of endpoints.
         */
        put: operations["updateServiceStatus"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change a Service in part
         * @description A stable virtual address in front of endpoints.
         */
        patch: operations["patchServiceStatus"];
        trace?: never;
    };
    "/api/v1/namespaces/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Namespace
         * @description A scope for names. Deleting it deletes what is in it.
         */
        get: operations["getNamespace"];
        /**
         * Replace a Namespace
         * @description A scope for names. Deleting it deletes what is in it.
         */
        put: operations["updateNamespace"];
        post?: never;
        /**
         * Delete a Namespace
         * @description A scope for names. Deleting it deletes what is in it.
         */
        delete: operations["deleteNamespace"];
        options?: never;
        head?: never;
        /**
         * Change a Namespace in part
         * @description A scope for names. Deleting it deletes what is in it.
         */
        patch: operations["patchNamespace"];
        trace?: never;
    };
    "/api/v1/namespaces/{name}/status": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Namespace
         * @description A scope for names. Deleting it deletes what is in it.
         */
        get: operations["getNamespaceStatus"];
        /**
         * Replace a Namespace
         * @description A scope for names. Deleting it deletes what is in it.
         */
        put: operations["updateNamespaceStatus"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change a Namespace in part
         * @description A scope for names. Deleting it deletes what is in it.
         */
        patch: operations["patchNamespaceStatus"];
        trace?: never;
    };
    "/api/v1/nodes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List nodes, or watch them with watch=true
         * @description A machine that runs workloads and an agent.
         */
        get: operations["listNode"];
        put?: never;
        /**
         * Create a Node
         * @description A machine that runs workloads and an agent.
         */
        post: operations["createNode"];
        /**
         * Delete all nodes that are selected
         * @description A machine that runs workloads and an agent.
         */
        delete: operations["deletecollectionNode"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Node
         * @description A machine that runs workloads and an agent.
         */
        get: operations["getNode"];
        /**
         * Replace a Node
         * @description A machine that runs workloads and an agent.
         */
        put: operations["updateNode"];
        post?: never;
        /**
         * Delete a Node
         * @description A machine that runs workloads and an agent.
         */
        delete: operations["deleteNode"];
        options?: never;
        head?: never;
        /**
         * Change a Node in part
         * @description A machine that runs workloads and an agent.
         */
        patch: operations["patchNode"];
        trace?: never;
    };
    "/api/v1/nodes/{name}/status": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Node
         * @description A machine that runs workloads and an agent.
         */
        get: operations["getNodeStatus"];
        /**
         * Replace a Node
         * @description A machine that runs workloads and an agent.
         */
        put: operations["updateNodeStatus"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change a Node in part
         * @description A machine that runs workloads and an agent.
         */
        patch: operations["patchNodeStatus"];
        trace?: never;
    };
    "/api/v1/services": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List services, or watch them with watch=true
         * @description A stable virtual address in front of endpoints.
         */
        get: operations["listServiceForAllNamespaces"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/discovery.k8s.io/v1/endpointslices": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List endpointslices, or watch them with watch=true
         * @description Endpoints of one Service in one address family.
         */
        get: operations["listEndpointSliceForAllNamespaces"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        /**
         * List endpointslices, or watch them with watch=true
         * @description Endpoints of one Service in one address family.
         */
        get: operations["listEndpointSlice"];
        put?: never;
        /**
         * Create a EndpointSlice
         * @description Endpoints of one Service in one address family.
         */
        post: operations["createEndpointSlice"];
        /**
         * Delete all endpointslices that are selected
         * @description Endpoints of one Service in one address family.
         */
        delete: operations["deletecollectionEndpointSlice"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a EndpointSlice
         * @description Endpoints of one Service in one address family.
         */
        get: operations["getEndpointSlice"];
        /**
         * Replace a EndpointSlice
         * @description Endpoints of one Service in one address family.
         */
        put: operations["updateEndpointSlice"];
        post?: never;
        /**
         * Delete a EndpointSlice
         * @description Endpoints of one Service in one address family.
         */
        delete: operations["deleteEndpointSlice"];
        options?: never;
        head?: never;
        /**
         * Change a EndpointSlice in part
         * @description Endpoints of one Service in one address family.
         */
        patch: operations["patchEndpointSlice"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/dnsrecords": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List dnsrecords, or watch them with watch=true
         * @description A DNS name of the user's own.
         */
        get: operations["listDnsRecordForAllNamespaces"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/dnsrecords": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        /**
         * List dnsrecords, or watch them with watch=true
         * @description A DNS name of the user's own.
         */
        get: operations["listDnsRecord"];
        put?: never;
        /**
         * Create a DnsRecord
         * @description A DNS name of the user's own.
         */
        post: operations["createDnsRecord"];
        /**
         * Delete all dnsrecords that are selected
         * @description A DNS name of the user's own.
         */
        delete: operations["deletecollectionDnsRecord"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/dnsrecords/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a DnsRecord
         * @description A DNS name of the user's own.
         */
        get: operations["getDnsRecord"];
        /**
         * Replace a DnsRecord
         * @description A DNS name of the user's own.
         */
        put: operations["updateDnsRecord"];
        post?: never;
        /**
         * Delete a DnsRecord
         * @description A DNS name of the user's own.
         */
        delete: operations["deleteDnsRecord"];
        options?: never;
        head?: never;
        /**
         * Change a DnsRecord in part
         * @description A DNS name of the user's own.
         */
        patch: operations["patchDnsRecord"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/trafficsplits": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        /**
         * List trafficsplits, or watch them with watch=true
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        get: operations["listTrafficSplit"];
        put?: never;
        /**
         * Create a TrafficSplit
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        post: operations["createTrafficSplit"];
        /**
         * Delete all trafficsplits that are selected
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        delete: operations["deletecollectionTrafficSplit"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/trafficsplits/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a TrafficSplit
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        get: operations["getTrafficSplit"];
        /**
         * Replace a TrafficSplit
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        put: operations["updateTrafficSplit"];
        post?: never;
        /**
         * Delete a TrafficSplit
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        delete: operations["deleteTrafficSplit"];
        options?: never;
        head?: never;
        /**
         * Change a TrafficSplit in part
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        patch: operations["patchTrafficSplit"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/trafficsplits/{name}/status": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a TrafficSplit
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        get: operations["getTrafficSplitStatus"];
        /**
         * Replace a TrafficSplit
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        put: operations["updateTrafficSplitStatus"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change a TrafficSplit in part
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        patch: operations["patchTrafficSplitStatus"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/workloads": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        /**
         * List workloads, or watch them with watch=true
         * @description Stands for a Pod where there is no Kubernetes.
         */
        get: operations["listWorkload"];
        put?: never;
        /**
         * Create a Workload
         * @description Stands for a Pod where there is no Kubernetes.
         */
        post: operations["createWorkload"];
        /**
         * Delete all workloads that are selected
         * @description Stands for a Pod where there is no Kubernetes.
         */
        delete: operations["deletecollectionWorkload"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/workloads/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Workload
         * @description Stands for a Pod where there is no Kubernetes.
         */
        get: operations["getWorkload"];
        /**
         * Replace a Workload
         * @description Stands for a Pod where there is no Kubernetes.
         */
        put: operations["updateWorkload"];
        post?: never;
        /**
         * Delete a Workload
         * @description Stands for a Pod where there is no Kubernetes.
         */
        delete: operations["deleteWorkload"];
        options?: never;
        head?: never;
        /**
         * Change a Workload in part
         * @description Stands for a Pod where there is no Kubernetes.
         */
        patch: operations["patchWorkload"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/namespaces/{namespace}/workloads/{name}/status": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a Workload
         * @description Stands for a Pod where there is no Kubernetes.
         */
        get: operations["getWorkloadStatus"];
        /**
         * Replace a Workload
         * @description Stands for a Pod where there is no Kubernetes.
         */
        put: operations["updateWorkloadStatus"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change a Workload in part
         * @description Stands for a Pod where there is no Kubernetes.
         */
        patch: operations["patchWorkloadStatus"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/nodestates": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List nodestates, or watch them with watch=true
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        get: operations["listNodeState"];
        put?: never;
        /**
         * Create a NodeState
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        post: operations["createNodeState"];
        /**
         * Delete all nodestates that are selected
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        delete: operations["deletecollectionNodeState"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/eastwest.dev/v1/nodestates/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a NodeState
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        get: operations["getNodeState"];
        /**
         * Replace a NodeState
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        put: operations["updateNodeState"];
        post?: never;
        /**
         * Delete a NodeState
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        delete: operations["deleteNodeState"];
        options?: never;
        head?: never;
        /**
         * Change a NodeState in part
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        patch: operations["patchNodeState"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/nodestates/{name}/status": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        /**
         * Get a NodeState
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        get: operations["getNodeStateStatus"];
        /**
         * Replace a NodeState
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        put: operations["updateNodeStateStatus"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change a NodeState in part
         * @description What the agent of a node has programmed. Kept in memory only.
         */
        patch: operations["patchNodeStateStatus"];
        trace?: never;
    };
    "/apis/eastwest.dev/v1/trafficsplits": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List trafficsplits, or watch them with watch=true
         * @description How a Service's new connections are divided among groups of its endpoints.
         */
        get: operations["listTrafficSplitForAllNamespaces"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/apis/eastwest.dev/v1/workloads": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List workloads, or watch them with watch=true
         * @description Stands for a Pod where there is no Kubernetes.
         */
        get: operations["listWorkloadForAllNamespaces"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/livez": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The process runs */
        get: operations["livez"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Requests are served */
        get: operations["readyz"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/agent/flows": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Takes an agent's flows, and answers what it shall tell of: at once while it shall tell of some, else when that changes or
         *     after ten seconds.
         */
        post: operations["report"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/agent/stream": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** All that agents program, ordered by revision: a full list or what is missing, then changes as they happen. */
        get: operations["agent_stream"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/flows": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The flows that agents have told of. */
        get: operations["list"];
        /** Has agents tell of flows, for a time. */
        put: operations["sample"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/topology": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Nodes with what they have applied, and Services with the readiness of their endpoints. */
        get: operations["topology"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/trace": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What a connection would get, with each endpoint that was considered and why. */
        get: operations["trace"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/version": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The version, in Kubernetes' form */
        get: operations["version"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @enum {string} */
        AddressType: "IPv4" | "IPv6" | "FQDN";
        /** @description One thing wrong. */
        Cause: {
            /** @description Path as in the manifest: `spec.ports[0].port`. */
            field?: string;
            message?: string;
            reason?: string;
        };
        ClientIpConfig: {
            /**
             * Format: int32
             * @description 1 to 86400; 10800 when absent.
             */
            timeoutSeconds?: number | null;
        };
        /** @description One observation about an object, as Kubernetes' `metav1.Condition`. */
        Condition: {
            lastTransitionTime?: string | null;
            message?: string;
            /** Format: int64 */
            observedGeneration?: number | null;
            reason?: string;
            /** @description `True`, `False` or `Unknown`. */
            status?: string;
            type?: string;
        };
        /** @description What the error is about. */
        Details: {
            causes?: components["schemas"]["Cause"][];
            group?: string;
            kind?: string;
            name?: string;
            /** Format: int32 */
            retryAfterSeconds?: number | null;
            uid?: string;
        };
        /** @description A network device and what is attached to it. */
        DeviceState: {
            /** @description Why it is not, or not fully, hooked. */
            error?: string | null;
            /**
             * Format: int64
             * @description From the kernel's announcement of the device to the last program attached, microseconds.
             */
            hookLatencyUs?: number;
            /** Format: int32 */
            index?: number;
            /** @description `tc`, `clsact`, `xdp-generic` or `xdp-native`. */
            mode?: string;
            name?: string;
            /** @description `pod` or `nic`. */
            role?: string;
        };
        /** @description A name of the user's own in a zone the cluster owns. */
        DnsRecord: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            spec?: components["schemas"]["DnsRecordSpec"];
        };
        /** @description A list of DnsRecord objects. */
        DnsRecordList: {
            apiVersion: string;
            items: components["schemas"]["DnsRecord"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        DnsRecordSpec: {
            /** @description Fully qualified owner name; a final dot may be left out. */
            name?: string;
            /**
             * Format: int32
             * @description Seconds, 0 to 2147483647 (RFC 2181 §8). Absent: the zone's default, 5 s for names of the cluster.
             */
            ttl?: number | null;
            /** @default A */
            type?: components["schemas"]["DnsRecordType"];
            /** @description Record data in presentation form, one string a record. */
            values?: string[];
        };
        /** @enum {string} */
        DnsRecordType: "A" | "AAAA" | "CNAME" | "TXT" | "SRV" | "MX" | "PTR";
        Endpoint: {
            /** @description 1 to 100 addresses; only the first is used, as by kube-proxy. */
            addresses?: string[];
            conditions?: components["schemas"]["EndpointConditions"];
            deprecatedTopology?: Record<string, never> | null;
            hints?: components["schemas"]["EndpointHints"] | null;
            hostname?: string | null;
            nodeName?: string | null;
            targetRef?: components["schemas"]["ObjectReference"] | null;
            zone?: string | null;
        };
        /** @description `nil` means: `ready` true, `serving` true, `terminating` false (discovery/v1 types.go). */
        EndpointConditions: {
            ready?: boolean | null;
            serving?: boolean | null;
            terminating?: boolean | null;
        };
        EndpointHints: {
            forNodes?: components["schemas"]["HintName"][];
            forZones?: components["schemas"]["HintName"][];
        };
        EndpointPort: {
            appProtocol?: string | null;
            /** @description Ties the port to the Service port of the same name; empty for a Service with one unnamed port. */
            name?: string | null;
            /**
             * Format: int32
             * @description Absent means all ports, which nothing programs.
             */
            port?: number | null;
            /** @default TCP */
            protocol?: components["schemas"]["Protocol"];
        };
        /** @description Endpoints of one Service in one address family (`discovery.k8s.io/v1`, KEP-752). */
        EndpointSlice: {
            /** @default IPv4 */
            addressType?: components["schemas"]["AddressType"];
            apiVersion?: string;
            endpoints?: components["schemas"]["Endpoint"][];
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            ports?: components["schemas"]["EndpointPort"][];
        };
        /** @description A list of EndpointSlice objects. */
        EndpointSliceList: {
            apiVersion: string;
            items: components["schemas"]["EndpointSlice"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        /** @description A connection that was opened through a Service, or a packet that was refused or dropped. */
        Flow: {
            /** @description `IP:PORT` that the client asked for. */
            asked?: string;
            /** @description `IP:PORT` of the endpoint that it was given; empty without one. */
            backend?: string;
            /** @description The endpoint's pod, `NAMESPACE/NAME`. */
            backendName?: string;
            /** @description `IP:PORT`; empty for a process. */
            client?: string;
            /** @description The client's pod, `NAMESPACE/NAME`, or node; empty when nobody is known by the address. */
            clientName?: string;
            /** @description `pod`, `host` (a process of the node) or `outside`. */
            from?: string;
            /** @description The node that decided. */
            node?: string;
            /** @description `TCP`, `UDP` or `SCTP`. */
            protocol?: string;
            /** @description Why not, as the counters of `eastwest_packets_total` name it. */
            reason?: string;
            /** @description The Service asked for, `NAMESPACE/NAME`; empty when no Service has the address. */
            service?: string;
            /** @description RFC 3339, when the agent heard of it. */
            time?: string;
            /** @description `opened`, `refused` or `dropped`. */
            verdict?: string;
        };
        /** @description The flows that a controller has heard of. */
        FlowList: {
            flows?: components["schemas"]["Flow"][];
            /**
             * Format: int64
             * @description Flows after `after` that the controller has forgotten since.
             */
            missed?: number;
            /**
             * Format: int64
             * @description To be given as `after` next time.
             */
            next?: number;
            /**
             * Format: int32
             * @description Of so many flows one is told of now; 0: none.
             */
            sampling?: number;
        };
        /** @description What an agent has to tell, and asks. */
        FlowReport: {
            /** @description Without names. */
            flows?: components["schemas"]["Flow"][];
            node?: string;
            /**
             * Format: int32
             * @description Of so many flows one is told of now; 0: none.
             */
            sampling?: number;
        };
        /** @description What is to be told of flows. */
        FlowSampling: {
            /**
             * Format: int32
             * @description Of so many flows one is told of; 0: none.
             */
            sampling?: number;
            /**
             * Format: int32
             * @description For how long, 1 to 3600.
             */
            seconds?: number;
        };
        HintName: {
            name?: string;
        };
        /** @enum {string} */
        IpFamily: "IPv4" | "IPv6";
        /** @enum {string} */
        IpFamilyPolicy: "SingleStack" | "PreferDualStack" | "RequireDualStack";
        /** @description Kubernetes' `ListMeta`. */
        ListMeta: {
            /** @description Opaque; give it back as `continue` for the next page. */
            continue?: string;
            /** Format: int64 */
            remainingItemCount?: number | null;
            resourceVersion?: string;
        };
        LoadBalancerIngress: {
            hostname?: string;
            ip?: string;
            /** @description `VIP` (the default) or `Proxy` (KEP-1860). */
            ipMode?: string | null;
            ports?: Record<string, never>[];
        };
        LoadBalancerStatus: {
            ingress?: components["schemas"]["LoadBalancerIngress"][];
        };
        /** @description A scope for names. Deleting it deletes what is in it. */
        Namespace: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            spec?: components["schemas"]["NamespaceSpec"];
            status?: components["schemas"]["NamespaceStatus"];
        };
        /** @description A list of Namespace objects. */
        NamespaceList: {
            apiVersion: string;
            items: components["schemas"]["Namespace"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        NamespaceSpec: {
            finalizers?: string[];
        };
        NamespaceStatus: {
            /** @description `Active` or `Terminating`. */
            phase?: string;
        };
        /** @description A machine that runs workloads and an agent. */
        Node: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            spec?: components["schemas"]["NodeSpec"];
            status?: components["schemas"]["NodeStatus"];
        };
        NodeAddress: {
            address?: string;
            /** @description `InternalIP`, `ExternalIP` or `Hostname`. */
            type?: string;
        };
        /** @description A list of Node objects. */
        NodeList: {
            apiVersion: string;
            items: components["schemas"]["Node"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        NodeSpec: {
            podCIDR?: string;
            /** @description Address ranges of the pods on this node, at most one of each family. */
            podCIDRs?: string[];
            providerID?: string;
            taints?: components["schemas"]["Taint"][];
            unschedulable?: boolean;
        };
        /**
         * @description What the agent of a node has programmed. Written by agents, kept in the controller's memory only: a report makes no
         *     revision in the store, or each change would cause as many more as there are nodes.
         */
        NodeState: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            status?: components["schemas"]["NodeStateStatus"];
        };
        /** @description A list of NodeState objects. */
        NodeStateList: {
            apiVersion: string;
            items: components["schemas"]["NodeState"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        NodeStateStatus: {
            agentVersion?: string;
            /** @description Every change up to and including this revision is in the kernel's maps and in the DNS index. */
            appliedRevision?: components["schemas"]["Revision"];
            /** Format: int64 */
            backends?: number;
            /** @description Set by the controller: an agent stream of this node is open now. */
            connected?: boolean;
            /** @description Packets dropped or refused by the kernel programs, by reason. */
            counters?: {
                [key: string]: number;
            };
            devices?: components["schemas"]["DeviceState"][];
            /** @description What does not work and why; empty when all is well. */
            problems?: string[];
            /**
             * Format: int64
             * @description From receiving the newest change to its last map write, microseconds.
             */
            programmingLatencyUs?: number;
            /** Format: int64 */
            services?: number;
            /** @description RFC 3339. */
            startedAt?: string;
            /** @description Identity of the store that `appliedRevision` belongs to. */
            storeId?: string;
        };
        NodeStatus: {
            addresses?: components["schemas"]["NodeAddress"][];
            conditions?: components["schemas"]["Condition"][];
        };
        /** @description Kubernetes' `ObjectMeta`, without what nothing here reads. */
        ObjectMeta: {
            annotations?: components["schemas"]["StringMap"];
            /** @description RFC 3339, seconds, UTC. */
            creationTimestamp?: string | null;
            /** Format: int64 */
            deletionGracePeriodSeconds?: number | null;
            deletionTimestamp?: string | null;
            finalizers?: string[];
            /** @description Prefix from which the server makes a name when `name` is empty. */
            generateName?: string;
            /**
             * Format: int64
             * @description Counts changes of `spec`, from 1.
             */
            generation?: number;
            labels?: components["schemas"]["StringMap"];
            /** @description Field managers (server-side apply), opaque here. */
            managedFields?: Record<string, never>[];
            name?: string;
            namespace?: string;
            ownerReferences?: components["schemas"]["OwnerReference"][];
            /** @description The revision of the last write, as a decimal string. Clients compare it for equality only. */
            resourceVersion?: string;
            /** @description Deprecated in Kubernetes; accepted and ignored. */
            selfLink?: string;
            uid?: string;
        };
        ObjectReference: {
            apiVersion?: string;
            fieldPath?: string;
            kind?: string;
            name?: string;
            namespace?: string;
            resourceVersion?: string;
            uid?: string;
        };
        /** @description The object that caused this one; it goes when that one goes. */
        OwnerReference: {
            apiVersion?: string;
            blockOwnerDeletion?: boolean | null;
            controller?: boolean | null;
            kind?: string;
            name?: string;
            uid?: string;
        };
        /** @description RFC 9457 `application/problem+json`: how an error looks under `/v1/`. */
        Problem: {
            detail: string;
            errors?: components["schemas"]["Cause"][];
            /** Format: int32 */
            status: number;
            title: string;
            type: string;
        };
        /** @enum {string} */
        Protocol: "TCP" | "UDP" | "SCTP";
        /**
         * @description The writer's own word on readiness; a `Ready` condition in `status` goes first.
         * @enum {string}
         */
        Readiness: "Ready" | "NotReady";
        /**
         * Format: int64
         * @description A position in the store's history. Every write makes exactly one; they are ordered and never reused.
         */
        Revision: number;
        /** @description A stable virtual address in front of endpoints (`v1` Service). */
        Service: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            spec?: components["schemas"]["ServiceSpec"];
            status?: components["schemas"]["ServiceStatus"];
        };
        /** @description A list of Service objects. */
        ServiceList: {
            apiVersion: string;
            items: components["schemas"]["Service"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        ServicePort: {
            appProtocol?: string | null;
            /** @description May be empty only when the Service has one port. */
            name?: string;
            /** Format: int32 */
            nodePort?: number | null;
            /** Format: int32 */
            port?: number;
            /** @default TCP */
            protocol?: components["schemas"]["Protocol"];
            targetPort?: components["schemas"]["TargetPort"] | null;
        };
        ServiceSpec: {
            allocateLoadBalancerNodePorts?: boolean | null;
            /** @description `None` makes the Service headless; empty: the server chooses. The same as the first of `clusterIPs`. */
            clusterIP?: string;
            clusterIPs?: string[];
            externalIPs?: string[];
            externalName?: string;
            externalTrafficPolicy?: components["schemas"]["TrafficPolicy"] | null;
            /** Format: int32 */
            healthCheckNodePort?: number | null;
            internalTrafficPolicy?: components["schemas"]["TrafficPolicy"] | null;
            ipFamilies?: components["schemas"]["IpFamily"][];
            ipFamilyPolicy?: components["schemas"]["IpFamilyPolicy"] | null;
            loadBalancerClass?: string | null;
            loadBalancerIP?: string;
            loadBalancerSourceRanges?: string[];
            ports?: components["schemas"]["ServicePort"][];
            publishNotReadyAddresses?: boolean | null;
            /** @description Empty: endpoints are the user's to write. */
            selector?: components["schemas"]["StringMap"];
            sessionAffinity?: components["schemas"]["SessionAffinity"] | null;
            sessionAffinityConfig?: components["schemas"]["SessionAffinityConfig"] | null;
            trafficDistribution?: string | null;
            type?: components["schemas"]["ServiceType"] | null;
        };
        ServiceStatus: {
            conditions?: components["schemas"]["Condition"][];
            loadBalancer?: components["schemas"]["LoadBalancerStatus"];
        };
        /** @enum {string} */
        ServiceType: "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName";
        /** @enum {string} */
        SessionAffinity: "None" | "ClientIP";
        SessionAffinityConfig: {
            clientIP?: components["schemas"]["ClientIpConfig"] | null;
        };
        /** @description A group of endpoints and its part of the traffic. */
        SplitBackend: {
            selector?: components["schemas"]["SplitSelector"];
            /**
             * Format: int32
             * @description Part of new connections, relative to the other groups': 0 to 1,000,000; 0 gets none. The part of a group without
             *     usable endpoints goes to the others.
             */
            weight?: number;
        };
        /** @description Which pods or workloads. */
        SplitSelector: {
            /** @description All of these labels; none means all that no group before has. */
            matchLabels?: components["schemas"]["StringMap"];
        };
        /** @description Kubernetes' `metav1.Status`: how an error looks to its clients. */
        Status: {
            apiVersion: string;
            /**
             * Format: int32
             * @description The HTTP status code.
             */
            code?: number;
            details?: components["schemas"]["Details"] | null;
            kind: string;
            message?: string;
            /** @description Always empty. */
            metadata: components["schemas"]["StringMap"];
            /** @description One word for programs: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, … */
            reason?: string;
            /** @description `Success` or `Failure`. */
            status: string;
        };
        StringMap: {
            [key: string]: string;
        };
        /** @description Keeps workloads off a Node. */
        Taint: {
            /** @description `NoSchedule`, `PreferNoSchedule` or `NoExecute`. */
            effect?: string;
            key?: string;
            value?: string;
        };
        /** @description Kubernetes' IntOrString for `targetPort`. */
        TargetPort: number | string;
        /** @description The cluster at one revision. */
        Topology: {
            nodes: components["schemas"]["TopologyNode"][];
            /** @description The newest revision. */
            revision: components["schemas"]["Revision"];
            /** @description Ranges of ClusterIPs. */
            serviceCIDRs: string[];
            services: components["schemas"]["TopologyService"][];
            storeId: string;
            /** @description DNS zone of cluster names. */
            zone: string;
        };
        /** @description A node and how far its agent is. */
        TopologyNode: {
            addresses: string[];
            agentVersion: string;
            appliedRevision?: components["schemas"]["Revision"] | null;
            /**
             * Format: int64
             * @description Revisions that it has not applied yet.
             */
            behind: number;
            /** @description Whether its agent follows the controller now. */
            connected: boolean;
            /** @description Devices hooked. */
            devices: number;
            name: string;
            podCIDRs: string[];
            problems: string[];
            /** Format: int64 */
            programmingLatencyUs: number;
        };
        /** @description A Service and its endpoints. */
        TopologyService: {
            clusterIPs: string[];
            /** @description All endpoints. */
            endpoints: number;
            name: string;
            namespace: string;
            /** @description `80/TCP`. */
            ports: string[];
            /** @description Endpoints that get traffic. One with an address of each family counts once. */
            ready: number;
            type: string;
        };
        /** @description What a connection would get at one revision. */
        Trace: {
            from: components["schemas"]["TraceFrom"];
            /** @description What became of the target's name; empty when it was an address. */
            name?: string[];
            /** @description One for each address that the target has in a family of the client's; none when the name leads nowhere. */
            paths: components["schemas"]["TracePath"][];
            revision: components["schemas"]["Revision"];
            /** @description The target as it was asked for. */
            to: string;
        };
        /** @description An endpoint of the Service port. */
        TraceBackend: {
            /** @description `10.244.1.3:8080`. */
            address: string;
            /** @description Empty when it is not known. */
            node: string;
            /** @description Why it may be chosen, or not. */
            reason: string;
            /** @description The address the backend sees; empty when it is not chosen. */
            sees?: string;
            /**
             * Format: double
             * @description Its part of new connections, 0 to 1.
             */
            share: number;
            /** @description `Pod web-1`; empty when nothing is known to stand behind it. */
            target: string;
        };
        /** @description Who connects. */
        TraceFrom: {
            addresses: string[];
            /** @description The pod or node; empty for a client outside. */
            name: string;
            /** @description The node that decides: where the client runs, or where its packet comes in. */
            node: string;
            /** @description `pod`, `host` (a process of a node, or a pod on its network) or `outside`. */
            place: string;
        };
        /** @description What stands at the address. */
        TraceFrontend: {
            /**
             * Format: int32
             * @description Seconds of ClientIP affinity; 0: none.
             */
            affinitySeconds: number;
            /** @description `ClusterIp`, `NodePort`, `ExternalIp` or `LoadBalancer`. */
            kind: string;
            /** @description `Cluster` or `Local`: from where this client's endpoints are taken. */
            policy: string;
            /** @description Name of the Service port; empty when it has none. */
            port: string;
            sourceRanges: string[];
        };
        /** @description What one address gets. */
        TracePath: {
            /** @description `10.96.0.5:80/TCP`. */
            address: string;
            /** @description All endpoints of the Service port, whether they may be chosen or not. */
            backends: components["schemas"]["TraceBackend"][];
            frontend?: components["schemas"]["TraceFrontend"] | null;
            /** @description Where the packets of the connection are looked at, in their order. */
            hooks: string[];
            reason: string;
            /** @description `namespace/name` of the Service whose address it is. */
            service?: string | null;
            verdict: components["schemas"]["TraceVerdict"];
        };
        /** @enum {string} */
        TraceVerdict: "translated" | "direct" | "refused" | "dropped";
        /** @enum {string} */
        TrafficPolicy: "Cluster" | "Local";
        /** @description How a Service's new connections are divided among groups of its endpoints, whatever the number in each group. */
        TrafficSplit: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            spec?: components["schemas"]["TrafficSplitSpec"];
            status?: components["schemas"]["TrafficSplitStatus"];
        };
        /** @description A list of TrafficSplit objects. */
        TrafficSplitList: {
            apiVersion: string;
            items: components["schemas"]["TrafficSplit"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        TrafficSplitSpec: {
            /** @description Groups of endpoints; one that fits several belongs to the first, one that fits none gets nothing. */
            backends?: components["schemas"]["SplitBackend"][];
            /** @description Name of the Service, in the same namespace. A Service has one TrafficSplit at most. */
            service?: string;
        };
        TrafficSplitStatus: {
            /** @description `Accepted`: whether it takes effect, and why not. */
            conditions?: components["schemas"]["Condition"][];
        };
        /** @description Stands for a Pod where there is no Kubernetes: labels select it, its addresses become endpoints. */
        Workload: {
            apiVersion?: string;
            kind?: string;
            metadata?: components["schemas"]["ObjectMeta"];
            spec?: components["schemas"]["WorkloadSpec"];
            status?: components["schemas"]["WorkloadStatus"];
        };
        /** @description A list of Workload objects. */
        WorkloadList: {
            apiVersion: string;
            items: components["schemas"]["Workload"][];
            kind: string;
            metadata: components["schemas"]["ListMeta"];
        };
        WorkloadPort: {
            name?: string;
            /** Format: int32 */
            port?: number;
            /** @default TCP */
            protocol?: components["schemas"]["Protocol"];
        };
        WorkloadSpec: {
            /** @description At most one address of each family counts, the first; as with a Pod's `podIPs`. */
            addresses?: string[];
            hostname?: string;
            /** @description Name of the Node it runs on. */
            node?: string;
            /** @description Named ports that a Service's `targetPort` may refer to. */
            ports?: components["schemas"]["WorkloadPort"][];
            readiness?: components["schemas"]["Readiness"] | null;
            /** @description With `hostname`: the workload gets a name under the headless Service of this name. */
            subdomain?: string;
        };
        WorkloadStatus: {
            /** @description `Ready` decides whether its endpoints get traffic; absent: `spec.readiness`, else ready. */
            conditions?: components["schemas"]["Condition"][];
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    all: {
        parameters: {
            query?: {
                /** @description involvedObject.kind, .name, .namespace, .uid, metadata.namespace, reason, type: FIELD=VALUE or FIELD!=VALUE, joined by commas */
                fieldSelector?: string;
                watch?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description An EventList */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                };
            };
        };
    };
    listNamespace: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NamespaceList"];
                };
            };
        };
    };
    createNamespace: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Namespace"];
                "application/yaml": components["schemas"]["Namespace"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    deletecollectionNamespace: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NamespaceList"];
                };
            };
        };
    };
    namespaced: {
        parameters: {
            query?: {
                /** @description involvedObject.kind, .name, .namespace, .uid, metadata.namespace, reason, type: FIELD=VALUE or FIELD!=VALUE, joined by commas */
                fieldSelector?: string;
                watch?: string;
            };
            header?: never;
            path: {
                /** @description Name of a namespace */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description An EventList */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                };
            };
        };
    };
    listService: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServiceList"];
                };
            };
        };
    };
    createService: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Service"];
                "application/yaml": components["schemas"]["Service"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    deletecollectionService: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServiceList"];
                };
            };
        };
    };
    getService: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    updateService: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Service"];
                "application/yaml": components["schemas"]["Service"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    deleteService: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchService: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Service"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Service"];
                "application/strategic-merge-patch+json": components["schemas"]["Service"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    getServiceStatus: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    updateServiceStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Service"];
                "application/yaml": components["schemas"]["Service"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    patchServiceStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Service"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Service"];
                "application/strategic-merge-patch+json": components["schemas"]["Service"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Service"];
                };
            };
        };
    };
    getNamespace: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    updateNamespace: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Namespace"];
                "application/yaml": components["schemas"]["Namespace"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    deleteNamespace: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchNamespace: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Namespace"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Namespace"];
                "application/strategic-merge-patch+json": components["schemas"]["Namespace"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    getNamespaceStatus: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    updateNamespaceStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Namespace"];
                "application/yaml": components["schemas"]["Namespace"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    patchNamespaceStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Namespace"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Namespace"];
                "application/strategic-merge-patch+json": components["schemas"]["Namespace"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Namespace"];
                };
            };
        };
    };
    listNode: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeList"];
                };
            };
        };
    };
    createNode: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Node"];
                "application/yaml": components["schemas"]["Node"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    deletecollectionNode: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeList"];
                };
            };
        };
    };
    getNode: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    updateNode: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Node"];
                "application/yaml": components["schemas"]["Node"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    deleteNode: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchNode: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Node"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Node"];
                "application/strategic-merge-patch+json": components["schemas"]["Node"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    getNodeStatus: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    updateNodeStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Node"];
                "application/yaml": components["schemas"]["Node"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    patchNodeStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Node"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Node"];
                "application/strategic-merge-patch+json": components["schemas"]["Node"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Node"];
                };
            };
        };
    };
    listServiceForAllNamespaces: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServiceList"];
                };
            };
        };
    };
    listEndpointSliceForAllNamespaces: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSliceList"];
                };
            };
        };
    };
    listEndpointSlice: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSliceList"];
                };
            };
        };
    };
    createEndpointSlice: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EndpointSlice"];
                "application/yaml": components["schemas"]["EndpointSlice"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSlice"];
                };
            };
        };
    };
    deletecollectionEndpointSlice: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSliceList"];
                };
            };
        };
    };
    getEndpointSlice: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSlice"];
                };
            };
        };
    };
    updateEndpointSlice: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EndpointSlice"];
                "application/yaml": components["schemas"]["EndpointSlice"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSlice"];
                };
            };
        };
    };
    deleteEndpointSlice: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchEndpointSlice: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["EndpointSlice"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["EndpointSlice"];
                "application/strategic-merge-patch+json": components["schemas"]["EndpointSlice"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndpointSlice"];
                };
            };
        };
    };
    listDnsRecordForAllNamespaces: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecordList"];
                };
            };
        };
    };
    listDnsRecord: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecordList"];
                };
            };
        };
    };
    createDnsRecord: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DnsRecord"];
                "application/yaml": components["schemas"]["DnsRecord"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecord"];
                };
            };
        };
    };
    deletecollectionDnsRecord: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecordList"];
                };
            };
        };
    };
    getDnsRecord: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecord"];
                };
            };
        };
    };
    updateDnsRecord: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DnsRecord"];
                "application/yaml": components["schemas"]["DnsRecord"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecord"];
                };
            };
        };
    };
    deleteDnsRecord: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchDnsRecord: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["DnsRecord"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["DnsRecord"];
                "application/strategic-merge-patch+json": components["schemas"]["DnsRecord"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DnsRecord"];
                };
            };
        };
    };
    listTrafficSplit: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplitList"];
                };
            };
        };
    };
    createTrafficSplit: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TrafficSplit"];
                "application/yaml": components["schemas"]["TrafficSplit"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    deletecollectionTrafficSplit: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplitList"];
                };
            };
        };
    };
    getTrafficSplit: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    updateTrafficSplit: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TrafficSplit"];
                "application/yaml": components["schemas"]["TrafficSplit"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    deleteTrafficSplit: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchTrafficSplit: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["TrafficSplit"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["TrafficSplit"];
                "application/strategic-merge-patch+json": components["schemas"]["TrafficSplit"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    getTrafficSplitStatus: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    updateTrafficSplitStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TrafficSplit"];
                "application/yaml": components["schemas"]["TrafficSplit"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    patchTrafficSplitStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["TrafficSplit"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["TrafficSplit"];
                "application/strategic-merge-patch+json": components["schemas"]["TrafficSplit"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplit"];
                };
            };
        };
    };
    listWorkload: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WorkloadList"];
                };
            };
        };
    };
    createWorkload: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Workload"];
                "application/yaml": components["schemas"]["Workload"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    deletecollectionWorkload: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WorkloadList"];
                };
            };
        };
    };
    getWorkload: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    updateWorkload: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Workload"];
                "application/yaml": components["schemas"]["Workload"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    deleteWorkload: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchWorkload: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Workload"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Workload"];
                "application/strategic-merge-patch+json": components["schemas"]["Workload"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    getWorkloadStatus: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    updateWorkloadStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Workload"];
                "application/yaml": components["schemas"]["Workload"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    patchWorkloadStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Namespace of the object */
                namespace: string;
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["Workload"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["Workload"];
                "application/strategic-merge-patch+json": components["schemas"]["Workload"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Workload"];
                };
            };
        };
    };
    listNodeState: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeStateList"];
                };
            };
        };
    };
    createNodeState: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NodeState"];
                "application/yaml": components["schemas"]["NodeState"];
            };
        };
        responses: {
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    deletecollectionNodeState: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeStateList"];
                };
            };
        };
    };
    getNodeState: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    updateNodeState: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NodeState"];
                "application/yaml": components["schemas"]["NodeState"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    deleteNodeState: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Status"];
                };
            };
        };
    };
    patchNodeState: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["NodeState"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["NodeState"];
                "application/strategic-merge-patch+json": components["schemas"]["NodeState"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    getNodeStateStatus: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    updateNodeStateStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NodeState"];
                "application/yaml": components["schemas"]["NodeState"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
            /** @description Done */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    patchNodeStateStatus: {
        parameters: {
            query?: {
                /** @description All: do everything but keep nothing */
                dryRun?: string;
                /** @description Unknown fields: Strict refuses, Warn (the default) warns, Ignore */
                fieldValidation?: string;
                /** @description Who writes, for server-side apply */
                fieldManager?: string;
                /** @description Server-side apply: take fields from other managers */
                force?: boolean;
                /** @description programmed: answer when every node has programmed the write; else 504 */
                wait?: string;
                /** @description How long to wait: 500ms, 5s (the default), 1m */
                timeout?: string;
            };
            header?: never;
            path: {
                /** @description Name of the object */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/apply-patch+yaml": components["schemas"]["NodeState"];
                "application/json-patch+json": Record<string, never>[];
                "application/merge-patch+json": components["schemas"]["NodeState"];
                "application/strategic-merge-patch+json": components["schemas"]["NodeState"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeState"];
                };
            };
        };
    };
    listTrafficSplitForAllNamespaces: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TrafficSplitList"];
                };
            };
        };
    };
    listWorkloadForAllNamespaces: {
        parameters: {
            query?: {
                /** @description Only objects with these labels: a=b,c!=d,e in (x,y),!f */
                labelSelector?: string;
                /** @description metadata.name, metadata.namespace, spec.type or spec.clusterIP */
                fieldSelector?: string;
                /** @description Most objects in the answer; its metadata.continue leads to the rest */
                limit?: number;
                /** @description metadata.continue of the page before */
                continue?: string;
                /** @description With watch: events after this revision */
                resourceVersion?: string;
                /** @description Exact: the list as it was at resourceVersion */
                resourceVersionMatch?: string;
                /** @description Events as they happen, one JSON object a line */
                watch?: boolean;
                /** @description Also BOOKMARK events */
                allowWatchBookmarks?: boolean;
                /** @description Begin a watch with what there is */
                sendInitialEvents?: boolean;
                /** @description End of a watch */
                timeoutSeconds?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WorkloadList"];
                };
            };
        };
    };
    livez: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The process runs */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    readyz: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Requests are served */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    report: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FlowReport"];
            };
        };
        responses: {
            /** @description What to tell of */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FlowSampling"];
                };
            };
        };
    };
    agent_stream: {
        parameters: {
            query: {
                /** @description Name of the agent's node. */
                node: string;
                /** @description The store whose changes it has applied; absent on a first start. */
                storeId?: string;
                /** @description The last revision it has applied; absent on a first start. */
                revision?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One message a line: `hello`, then `reset`, `put` and `synced` for a full list, `put` and `delete` for changes, `bookmark` every 5 s */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/x-ndjson": unknown;
                };
            };
            /** @description The request cannot be served */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    list: {
        parameters: {
            query?: {
                /** @description From this number on, a former answer's `next`; absent: all that are kept. */
                after?: number;
                /** @description Of Services, clients or endpoints in this namespace. */
                namespace?: string;
                /** @description Of this Service, NAMESPACE/NAME. */
                service?: string;
                /** @description `opened`, `refused` or `dropped`. */
                verdict?: string;
                /** @description With nothing to tell, answer only when there is something, or after ten seconds. */
                wait?: boolean;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The newest that are kept, oldest first */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FlowList"];
                };
            };
            /** @description The request cannot be served */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    sample: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FlowSampling"];
            };
        };
        responses: {
            /** @description What is told of from now on */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FlowSampling"];
                };
            };
            /** @description The request cannot be served */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    topology: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The cluster at the newest revision */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Topology"];
                };
            };
            /** @description The request cannot be served */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    trace: {
        parameters: {
            query: {
                /** @description `pod/NAMESPACE/NAME`, `node/NAME` for a process there, `client` or `client/ADDRESS` for one outside. */
                from: string;
                /** @description `tcp://HOST:PORT` (also udp, sctp); HOST is an address, a Service's name as a pod would ask for it, or a node. */
                to: string;
                /** @description Node where the packet of a client outside comes in; absent: the first. */
                node?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description What it gets, at the newest revision */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Trace"];
                };
            };
            /** @description The request cannot be served */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    version: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The version, in Kubernetes' form */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
}
