//! From the JSON of the API server to the model, with only what something here reads. Field managers and what kubectl
//! leaves in annotations are most of an object's bytes, and change when nothing else does.

use eastwest_model::{
    DnsRecord, EndpointSlice, Kind, Map, Namespace, Node, ObjectMeta, Resource, Service, TrafficSplit,
    Workload, WorkloadSpec,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Annotations that are kept, by their beginning: of KEP-1672's measurement, and our own.
const ANNOTATIONS: [&str; 2] = ["endpoints.kubernetes.io/last-change-trigger-time", "eastwest.dev/"];

/// A kind of the model that Kubernetes has, under the same name or another.
pub trait FromKubernetes: Resource {
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KUBERNETES_KIND: &'static str;
    const PLURAL: &'static str;
    /// Of our own: the cluster may not know the kind.
    const OPTIONAL: bool = false;
    /// What the API server leaves out by itself.
    const FIELD_SELECTOR: Option<&'static str> = None;

    /// What is mirrored of an object; `None`: nothing, as if it were not there.
    ///
    /// # Errors
    /// With the reason, when it is not an object of its kind.
    fn convert(json: Value) -> Result<Option<Self>, String>;
}

impl FromKubernetes for Namespace {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KUBERNETES_KIND: &'static str = "Namespace";
    const PLURAL: &'static str = "namespaces";

    fn convert(json: Value) -> Result<Option<Self>, String> {
        let mut object: Self = decode(json)?;
        slim(&mut object);
        object.spec.finalizers.clear();
        Ok(Some(object))
    }
}

impl FromKubernetes for Node {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KUBERNETES_KIND: &'static str = "Node";
    const PLURAL: &'static str = "nodes";

    fn convert(json: Value) -> Result<Option<Self>, String> {
        let mut object: Self = decode(json)?;
        slim(&mut object);
        object.status.conditions.retain(|c| c.type_ == "Ready");
        Ok(Some(object))
    }
}

impl FromKubernetes for Service {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KUBERNETES_KIND: &'static str = "Service";
    const PLURAL: &'static str = "services";

    fn convert(json: Value) -> Result<Option<Self>, String> {
        let mut object: Self = decode(json)?;
        slim(&mut object);
        object.status.conditions.clear();
        Ok(Some(object))
    }
}

impl FromKubernetes for EndpointSlice {
    const GROUP: &'static str = "discovery.k8s.io";
    const VERSION: &'static str = "v1";
    const KUBERNETES_KIND: &'static str = "EndpointSlice";
    const PLURAL: &'static str = "endpointslices";

    fn convert(json: Value) -> Result<Option<Self>, String> {
        let mut object: Self = decode(json)?;
        slim(&mut object);
        for endpoint in &mut object.endpoints {
            endpoint.deprecated_topology = None;
            if let Some(target) = &mut endpoint.target_ref {
                target.uid.clear();
                target.resource_version.clear();
                target.field_path.clear();
            }
        }
        Ok(Some(object))
    }
}

/// Kinds of our own, where the cluster has their definitions. Only we know what is right in them.
macro_rules! own {
    ($T:ident, $plural:literal) => {
        impl FromKubernetes for $T {
            const GROUP: &'static str = "eastwest.dev";
            const VERSION: &'static str = "v1";
            const KUBERNETES_KIND: &'static str = stringify!($T);
            const PLURAL: &'static str = $plural;
            const OPTIONAL: bool = true;

            fn convert(json: Value) -> Result<Option<Self>, String> {
                let mut object: Self = decode(json)?;
                slim(&mut object);
                object.default_fields();
                match object.validate().as_slice() {
                    [] => Ok(Some(object)),
                    [error, ..] => Err(error.to_string()),
                }
            }
        }
    };
}
own!(DnsRecord, "dnsrecords");
own!(TrafficSplit, "trafficsplits");

/// What is read of a Pod.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    metadata: ObjectMeta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    host_network: bool,
    hostname: String,
    subdomain: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// A Pod. One on the host's network has the node's addresses, which name no pod; one that has ended has none.
impl FromKubernetes for Workload {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KUBERNETES_KIND: &'static str = "Pod";
    const PLURAL: &'static str = "pods";
    const FIELD_SELECTOR: Option<&'static str> = Some("status.phase!=Succeeded,status.phase!=Failed");

    fn convert(json: Value) -> Result<Option<Self>, String> {
        let pod: Pod = decode(json)?;
        let ended = ["Succeeded", "Failed"].contains(&pod.status.phase.as_str());
        if pod.spec.host_network || ended || pod.status.pod_ips.is_empty() {
            return Ok(None);
        }
        let mut object = Self {
            metadata: pod.metadata,
            spec: WorkloadSpec {
                addresses: pod.status.pod_ips.into_iter().map(|ip| ip.ip).collect(),
                node: pod.spec.node_name,
                hostname: pod.spec.hostname,
                subdomain: pod.spec.subdomain,
                ports: Vec::new(),
                readiness: None,
            },
            ..Self::default()
        };
        slim(&mut object);
        // Nothing here reads how a Pod ends, only that it has.
        object.metadata.deletion_timestamp = None;
        object.metadata.deletion_grace_period_seconds = None;
        object.metadata.generation = 0;
        object.api_version = Kind::Workload.api_version().into();
        object.kind = Kind::Workload.name().into();
        Ok(Some(object))
    }
}

/// Lists in a Go program's JSON may be `null`.
fn decode<T: DeserializeOwned>(mut json: Value) -> Result<T, String> {
    drop_nulls(&mut json);
    serde_json::from_value(json).map_err(|e| e.to_string())
}

fn drop_nulls(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn slim<T: Resource>(object: &mut T) {
    let meta = object.metadata_mut();
    meta.managed_fields.clear();
    meta.owner_references.clear();
    meta.finalizers.clear();
    meta.generate_name.clear();
    meta.self_link.clear();
    let keep = |name: &str| ANNOTATIONS.iter().any(|a| name.starts_with(a));
    let annotations: Map = std::mem::take(&mut meta.annotations);
    meta.annotations = annotations.into_iter().filter(|(name, _)| keep(name)).collect();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_without_what_nobody_reads() {
        let json = json!({"apiVersion": "v1", "kind": "Service", "metadata": {
            "name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7",
            "labels": {"app": "web"}, "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "eastwest.dev/x": "y"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}]},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}], "sessionAffinity": "None",
                "selector": {"app": "web"}, "futureField": {"a": [1]}},
            "status": {"loadBalancer": {}, "conditions": null}});
        let service = Service::convert(json).unwrap().unwrap();
        let kept = serde_json::to_value(&service).unwrap();
        assert_eq!(
            kept["metadata"],
            json!({"name": "web", "namespace": "default", "uid": "u1",
            "resourceVersion": "7", "labels": {"app": "web"}, "annotations": {"eastwest.dev/x": "y"}})
        );
        assert_eq!(kept["spec"]["ports"][0]["targetPort"], "http");
        assert_eq!(kept["spec"]["selector"]["app"], "web");
    }

    #[test]
    fn slices_with_null_lists_and_garbage() {
        let slice = |endpoints: Value, port: Value| {
            EndpointSlice::convert(json!({"metadata": {"name": "s"}, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [{"port": port, "protocol": "TCP", "name": ""}]}))
        };
        assert_eq!(slice(Value::Null, json!(80)).unwrap().unwrap().endpoints.len(), 0);
        let one = json!([{"addresses": ["10.0.0.1"], "nodeName": null, "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1"}}]);
        let kept = slice(one, json!(80)).unwrap().unwrap();
        let target = kept.endpoints[0].target_ref.clone().unwrap();
        assert_eq!((target.name.as_str(), target.uid.as_str()), ("p", ""));
        for (endpoints, port) in
            [(json!("x"), json!(80)), (json!([7]), json!(80)), (json!([]), json!(70_000))]
        {
            assert!(slice(endpoints.clone(), port).is_err(), "{endpoints}");
        }
    }

    #[test]
    fn pods_by_what_their_addresses_mean() {
        for (spec, status, addresses) in [
            (
                json!({"nodeName": "n1"}),
                json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
                Some(vec!["10.0.0.1", "fd00::1"]),
            ),
            (json!({"nodeName": "n1"}), json!({"phase": "Pending"}), None),
            (json!({"nodeName": "n1"}), json!({"phase": "Succeeded", "podIPs": [{"ip": "10.0.0.1"}]}), None),
            (
                json!({"hostNetwork": true}),
                json!({"phase": "Running", "podIPs": [{"ip": "192.0.2.1"}]}),
                None,
            ),
        ] {
            let json = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default",
                "labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": spec, "status": status});
            let workload = Workload::convert(json).unwrap();
            let found =
                workload.as_ref().map(|w| w.spec.addresses.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found, addresses, "{spec} {status}");
            if let Some(w) = workload {
                assert_eq!((w.kind.as_str(), w.api_version.as_str()), ("Workload", "eastwest.dev/v1"));
                assert_eq!(w.metadata.labels["a"], "b");
                assert!(w.metadata.annotations.is_empty());
            }
        }
    }

    #[test]
    fn a_node_changes_with_its_addresses_and_not_with_its_heartbeat() {
        let node = |beat: &str, ready: &str| {
            Node::convert(json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"},
                    "managedFields": [{"time": beat}]},
                "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"], "taints": [{"key": "x"}]},
                "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                    "images": [{"names": ["a"]}], "conditions": [
                        {"type": "Ready", "status": ready, "lastHeartbeatTime": beat},
                        {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": beat}]}}))
            .unwrap()
            .unwrap()
        };
        assert_eq!(node("1", "True"), node("2", "True"));
        assert_ne!(node("1", "True"), node("1", "False"));
        assert_eq!(node("1", "True").spec.pod_cidrs[0].to_string(), "10.244.1.0/24");
    }
}
