//! Services of every kind and their EndpointSlices, and the names that follow from them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use eastwest_integration::request;
use eastwest_lab::Lab;
use http::Method;
use serde_json::{Value, json};

/// Random Services besides those made by hand.
const RANDOM: usize = 60;

/// What questions are made of.
pub struct Cluster {
    /// Names below the zone, without it.
    pub names: Vec<String>,
    /// Reverse names of addresses in use, and of some that are not.
    pub reverse: Vec<String>,
    /// A name that exists once all is known.
    pub last: String,
}

struct Maker<'a> {
    lab: &'a Lab,
    names: BTreeSet<String>,
    addresses: BTreeSet<std::net::IpAddr>,
}

/// One endpoint: addresses by family, host name, readiness.
type Endpoint<'a> = (&'a str, Option<&'a str>, bool);

impl Maker<'_> {
    fn service(&mut self, namespace: &str, name: &str, spec: &Value) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        let path = format!("/api/v1/namespaces/{namespace}/services");
        let made = request(self.lab, Method::POST, &path, &[], Some(&object))
            .with_context(|| format!("{namespace}/{name} {spec}"))?;
        let base = format!("{name}.{namespace}.svc");
        self.names.insert(base.clone());
        for ip in made["spec"]["clusterIPs"].as_array().into_iter().flatten() {
            if let Some(Ok(ip)) = ip.as_str().map(str::parse) {
                self.addresses.insert(ip);
            }
        }
        self.ports(&base, &made["spec"]["ports"]);
        Ok(())
    }

    fn ports(&mut self, base: &str, ports: &Value) {
        for port in ports.as_array().into_iter().flatten() {
            let name = port["name"].as_str().unwrap_or("");
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
            for (port, protocol) in [(name, protocol.as_str()), (name, "sctp"), ("other", protocol.as_str())]
            {
                self.names.insert(format!("_{port}._{protocol}.{base}"));
                self.names.insert(format!("{port}.{protocol}.{base}"));
            }
            self.names.insert(format!("_{protocol}.{base}"));
        }
        self.names.insert(format!("any.any.{base}"));
        self.names.insert(format!("*.*.{base}"));
    }

    fn slice(
        &mut self,
        namespace: &str,
        of: &str,
        n: usize,
        ports: &Value,
        endpoints: &[Endpoint<'_>],
    ) -> Result<()> {
        let family = if endpoints.first().is_some_and(|e| e.0.contains(':')) { "IPv6" } else { "IPv4" };
        let list: Vec<Value> = endpoints
            .iter()
            .map(|(address, hostname, ready)| {
                let mut e = json!({"addresses": [address], "conditions": {"ready": ready, "serving": ready}});
                if let Some(hostname) = hostname {
                    e["hostname"] = json!(hostname);
                }
                // Names of their own where `endpoint_pod_names` is set; every third has none.
                if address.bytes().map(usize::from).sum::<usize>() % 3 > 0 {
                    let name = pod_name(address);
                    e["targetRef"] = json!({"kind": "Pod", "namespace": namespace, "name": name});
                }
                e
            })
            .collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{of}-{n}"), "labels": {"kubernetes.io/service-name": of}},
            "addressType": family, "endpoints": list, "ports": ports,
        });
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        request(self.lab, Method::POST, &path, &[], Some(&object))
            .with_context(|| format!("slice of {namespace}/{of}"))?;
        let base = format!("{of}.{namespace}.svc");
        for (address, hostname, _) in endpoints {
            let dashed = address.replace(['.', ':'], "-");
            self.names.insert(format!("{dashed}.{base}"));
            self.names.insert(format!("{dashed}.{namespace}.pod"));
            self.names.insert(format!("_http._tcp.{dashed}.{base}"));
            self.names.insert(format!("{}.{base}", pod_name(address)));
            if let Some(hostname) = hostname {
                self.names.insert(format!("{hostname}.{base}"));
            }
            self.addresses.insert(address.parse()?);
        }
        self.ports(&base, ports);
        Ok(())
    }
}

fn pod_name(address: &str) -> String {
    format!("pod-{}", address.replace(['.', ':'], "x"))
}

/// Makes them all.
pub fn make(lab: &Lab, seed: u64) -> Result<Cluster> {
    let mut m = Maker { lab, names: BTreeSet::new(), addresses: BTreeSet::new() };
    for namespace in ["shop", "bare", "hidden"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        request(lab, Method::POST, "/api/v1/namespaces", &[], Some(&object))?;
    }
    let http = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let three = json!([
        {"name": "http", "port": 80, "targetPort": 8080}, {"name": "https", "port": 443},
        {"name": "dns", "port": 53, "protocol": "UDP"}
    ]);
    let slice_http = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    let slice_three = json!([
        {"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "https", "port": 443, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"}
    ]);

    m.service("default", "web", &json!({"ports": three, "ipFamilyPolicy": "PreferDualStack"}))?;
    m.slice(
        "default",
        "web",
        4,
        &slice_three,
        &[("10.244.9.1", None, true), ("10.244.9.2", Some("web-a"), true)],
    )?;
    m.slice("default", "web", 6, &slice_three, &[("fd00:10:244:9::1", None, true)])?;
    m.service("default", "four", &json!({"ports": [{"port": 80}], "ipFamilies": ["IPv4"]}))?;
    m.service(
        "default",
        "six",
        &json!({"ports": http, "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}),
    )?;
    m.slice("default", "six", 6, &slice_http, &[("fd00:10:244:9::6", None, true)])?;
    m.service("shop", "node-port", &json!({"ports": http, "type": "NodePort"}))?;
    m.slice("shop", "node-port", 4, &slice_http, &[("10.244.9.1", None, true), ("10.244.9.9", None, false)])?;
    m.service("shop", "balanced", &json!({"ports": three, "type": "LoadBalancer"}))?;

    m.service(
        "default",
        "db",
        &json!({"ports": http, "clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"}),
    )?;
    let db = [
        ("10.244.8.1", Some("db-0"), true),
        ("10.244.8.2", Some("db-1"), true),
        ("10.244.8.3", None, true),
        ("10.244.8.4", Some("db-4"), false),
        ("10.244.8.5", None, false),
        ("10.244.8.6", Some("twin"), true),
        ("10.244.8.7", Some("twin"), true),
    ];
    m.slice("default", "db", 4, &slice_http, &db)?;
    let db6 = [("fd00:10:244:8::1", Some("db-0"), true), ("fd00:10:244:8::3", None, true)];
    m.slice("default", "db", 6, &slice_http, &db6)?;
    m.service(
        "default",
        "early",
        &json!({"ports": http, "clusterIP": "None", "publishNotReadyAddresses": true}),
    )?;
    m.slice(
        "default",
        "early",
        4,
        &slice_http,
        &[("10.244.7.1", None, false), ("10.244.7.2", Some("e-2"), true)],
    )?;
    m.service("default", "portless", &json!({"clusterIP": "None"}))?;
    m.slice("default", "portless", 4, &json!([]), &[("10.244.7.9", None, true)])?;
    m.service("default", "empty", &json!({"ports": http, "clusterIP": "None"}))?;
    m.service("shop", "single", &json!({"ports": [{"port": 25}], "clusterIP": "None"}))?;
    m.slice(
        "shop",
        "single",
        4,
        &json!([{"name": "", "port": 25, "protocol": "TCP"}]),
        &[("10.244.6.1", None, true)],
    )?;
    m.service("hidden", "secret", &json!({"ports": http}))?;
    m.slice("hidden", "secret", 4, &slice_http, &[("10.244.5.1", None, true)])?;

    for (name, target) in [
        ("outside", "www.example.test"),
        ("dotted", "www.example.test."),
        ("outside-alias", "far.example.test"),
        ("outside-lost", "lost.example.test"),
        ("outside-four", "four.example.test"),
        ("inside", "web.default.svc.cluster.local"),
        ("inside-headless", "db.default.svc.cluster.local"),
        ("inside-chain", "outside.default.svc.cluster.local"),
        ("dangling", "gone.default.svc.cluster.local"),
        ("address", "192.0.2.1"),
        ("self", "self.default.svc.cluster.local"),
        ("ring-a", "ring-b.default.svc.cluster.local"),
        ("ring-b", "ring-a.default.svc.cluster.local"),
    ] {
        m.service("default", name, &json!({"type": "ExternalName", "externalName": target}))?;
    }

    let mut random = fastrand::Rng::with_seed(seed);
    for i in 0..RANDOM {
        let name = format!("r{i}");
        let headless = random.bool();
        let dual = random.bool();
        let mut ports = three.as_array().cloned().unwrap_or_default();
        ports.truncate(random.usize(1..4));
        let mut spec = json!({"ports": ports});
        if headless {
            spec["clusterIP"] = json!("None");
        }
        if dual {
            spec["ipFamilyPolicy"] = json!("PreferDualStack");
        }
        let namespace = *random.choice(&["default", "shop", "hidden"]).unwrap_or(&"default");
        m.service(namespace, &name, &spec)?;
        for family in 0..1 + u8::from(dual) {
            let addresses: Vec<(String, Option<String>, bool)> = (0..random.usize(0..6))
                .map(|_| {
                    let host = random.u8(1..250);
                    let ip = match family {
                        0 => format!("10.245.{}.{host}", i % 8),
                        _ => format!("fd00:10:245:{:x}::{host:x}", i % 8 + 1),
                    };
                    let hostname = random.bool().then(|| format!("h-{}", random.u8(..4)));
                    (ip, hostname, random.u8(..5) > 0)
                })
                .collect();
            let mut endpoints: Vec<Endpoint<'_>> =
                addresses.iter().map(|(ip, h, ready)| (ip.as_str(), h.as_deref(), *ready)).collect();
            endpoints.sort_unstable();
            endpoints.dedup_by_key(|e| e.0);
            let mut slice_ports = slice_three.as_array().cloned().unwrap_or_default();
            slice_ports.truncate(ports.len());
            if !endpoints.is_empty() {
                m.slice(namespace, &name, 4 + usize::from(family), &json!(slice_ports), &endpoints)?;
            }
        }
    }
    m.service("default", "last", &json!({"ports": http}))?;
    m.slice("default", "last", 4, &slice_http, &[("10.244.4.1", None, true)])?;

    let mut reverse: Vec<String> = Vec::new();
    for ip in &m.addresses {
        reverse.push(arpa(*ip));
    }
    for stranger in ["10.244.8.77", "10.96.200.200", "192.0.2.1", "127.0.0.1", "fd00:10:244:8::77", "::1"] {
        reverse.push(arpa(stranger.parse()?));
    }
    let own = [
        "",
        "svc",
        "pod",
        "dns",
        "ns.dns",
        "dns-version",
        "default.svc",
        "shop.svc",
        "bare.svc",
        "hidden.svc",
        "nowhere.svc",
        "default.pod",
        "nowhere.pod",
        "gone.default.svc",
        "web.nowhere.svc",
        "default",
        "web.default",
        "web.shop.svc",
        "10-0-0-1.default.pod",
        "10-0-0-1.nowhere.pod",
        "fd00--1.default.pod",
        "1-2-3.default.pod",
        "010-0-0-1.default.pod",
        "10-0-0-256.default.pod",
        "kubernetes.default.svc",
        "*.default.svc",
        "any.default.svc",
        "web.*.svc",
        "*.*.svc",
        "a.b.c.d.e.f.svc",
        "_http._tcp.gone.default.svc",
    ];
    m.names.extend(own.map(str::to_owned));
    let names = m.names.into_iter().collect();
    Ok(Cluster { names, reverse, last: "last.default.svc.cluster.local.".into() })
}

fn arpa(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        std::net::IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|b| [b & 15, b >> 4]);
            nibbles.map(|n| format!("{n:x}.")).collect::<String>() + "ip6.arpa."
        }
    }
}
