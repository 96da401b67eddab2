//! The manifests of a scenario.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::run::Cluster;
use crate::{Family, Scenario, Service, Slice};

/// The Service's manifest, whole.
pub(crate) fn service(cluster: &dyn Cluster, service: &Service) -> Result<Value> {
    let mut spec = match &service.spec {
        Value::Null => Map::new(),
        Value::Object(spec) => spec.clone(),
        other => anyhow::bail!("spec of {}: {other}", service.name),
    };
    spec.entry("ports").or_insert_with(|| {
        json!([{"name": "http", "port": 80, "targetPort": 8080},
               {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}])
    });
    if !spec.contains_key("ipFamilyPolicy") {
        spec.insert("ipFamilyPolicy".into(), "RequireDualStack".into());
    }
    let mut object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": service.name, "namespace": "default", "labels": service.labels}, "spec": spec});
    fill(cluster, &mut object, None)?;
    Ok(object)
}

/// EndpointSlices of one family, if any endpoint has an address of it.
pub(crate) fn slice(
    cluster: &dyn Cluster,
    scenario: &Scenario,
    service: &Value,
    slice: &Slice,
    nth: usize,
    family: Family,
) -> Result<Value> {
    let name = service["metadata"]["name"].as_str().context("a name")?;
    let table_ports = service["spec"]["ports"].as_array().context("ports")?;
    let ports: Vec<Value> = match &slice.ports {
        Some(ports) => ports
            .iter()
            .map(|(name, port)| {
                let mut port = port.clone();
                port["name"] = name.as_str().into();
                port
            })
            .collect(),
        None => table_ports
            .iter()
            .map(|p| {
                json!({"name": p["name"], "protocol": p["protocol"],
                       "port": if p["targetPort"].is_null() { &p["port"] } else { &p["targetPort"] }})
            })
            .collect(),
    };
    let mut endpoints = Vec::new();
    for (pod, endpoint) in &slice.endpoints {
        let names = |key: &str, names: &Option<Vec<String>>| {
            names.as_ref().map(|names| (key.to_owned(), names.iter().map(|n| json!({"name": n})).collect()))
        };
        let hints: Map<String, Value> = names("forZones", &endpoint.for_zones)
            .into_iter()
            .chain(names("forNodes", &endpoint.for_nodes))
            .collect();
        let mut object = json!({
            "addresses": [address(cluster, pod, family)?.to_string()],
            "nodeName": cluster.node_of(pod)?,
            "conditions": {},
        });
        let conditions =
            [("ready", endpoint.ready), ("serving", endpoint.serving), ("terminating", endpoint.terminating)];
        for (condition, value) in conditions {
            if let Some(value) = value {
                object["conditions"][condition] = value.into();
            }
        }
        if let Some(zone) = &endpoint.zone {
            object["zone"] = zone.as_str().into();
        }
        if !hints.is_empty() {
            object["hints"] = hints.into();
        }
        endpoints.push(object);
    }
    anyhow::ensure!(!endpoints.is_empty(), "{}: a slice without endpoints", scenario.name);
    Ok(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-{nth}-{}", family.to_string().to_lowercase()), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": name}},
        "addressType": family, "ports": ports, "endpoints": endpoints}))
}

/// The address of a node, a pod or `client`, in a family.
pub(crate) fn address(cluster: &dyn Cluster, name: &str, family: Family) -> Result<IpAddr> {
    let addresses = cluster.addresses(name)?;
    addresses
        .iter()
        .copied()
        .find(|a| Family::of(*a) == family)
        .with_context(|| format!("{name} has no {family} address"))
}

/// Puts addresses in place of `{NAME}`, `{NAME IPv4}` and `{NAME IPv6}` in all strings.
pub(crate) fn fill(cluster: &dyn Cluster, value: &mut Value, family: Option<Family>) -> Result<()> {
    match value {
        Value::String(text) => {
            while let Some((before, rest)) = text.split_once('{') {
                let (name, after) = rest.split_once('}').with_context(|| format!("{text:?}: no '}}'"))?;
                let (name, family) = match name.split_once(' ') {
                    Some((name, "IPv4")) => (name, Some(Family::IPv4)),
                    Some((name, "IPv6")) => (name, Some(Family::IPv6)),
                    _ => (name, family),
                };
                let family = family.with_context(|| format!("{text:?}: which family?"))?;
                *text = format!("{before}{}{after}", address(cluster, name, family)?);
            }
        }
        Value::Array(values) => values.iter_mut().try_for_each(|v| fill(cluster, v, family))?,
        Value::Object(values) => values.values_mut().try_for_each(|v| fill(cluster, v, family))?,
        _ => {}
    }
    Ok(())
}

/// Ports of a Service by number: the protocols it has, and the node port of each.
pub(crate) fn ports(service: &Value, port: u16) -> BTreeMap<&str, u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports
        .filter(|p| p["port"] == port)
        .map(|p| (p["protocol"].as_str().unwrap_or("TCP"), p["nodePort"].as_u64().unwrap_or(0) as u16))
        .collect()
}
