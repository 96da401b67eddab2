//! Input that is wrong, or larger than anyone needs: a table of objects and of what becomes of each. What of it can be served
//! is; what cannot is named by its field, where it is refused or in the object's status, its Events and the nodes' states;
//! and other Services go on, by real packets, before and after.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options};
use http::Method;
use serde_json::{Value, json};

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const SPLITS: &str = "/apis/eastwest.dev/v1/namespaces/default/trafficsplits";
/// Addresses that the pod web-1 answers besides its own.
const MANY: &str = "10.200.0.0/19";

/// What becomes of a row's object, which is Service, slice or split `bad`.
enum Outcome {
    /// Refused with this field, and what is said of it.
    Refused(&'static str, &'static str),
    /// Taken, and named as this in the states of nodes and in Events of the Service.
    Named(&'static str),
    /// Taken, with this reason in the object's condition, and named as this.
    Condition(&'static str, &'static str),
    /// Taken, and served as it is.
    Served,
}

struct Row {
    name: &'static str,
    /// The Service that the object is about, or is.
    service: Value,
    /// Path and object, besides it.
    objects: Vec<(&'static str, Value)>,
    outcome: Outcome,
    /// Ports of the Service at which `pods` answer; of each family that the Service has.
    ports: Vec<u16>,
    /// All of these answer, and no other.
    pods: &'static [&'static str],
}

fn spec(more: Value) -> Value {
    let mut spec = json!({"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80, "targetPort": 8080}]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// A slice of Service `bad`.
fn slice(name: &str, addresses: &[String]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
    let family = if addresses.iter().any(|a| a.contains(':')) { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "bad"}},
        "addressType": family, "endpoints": endpoints, "ports": [{"port": 8080, "protocol": "TCP"}],
    })
}

/// Both pods are named as endpoints, and behind them one that is wrong.
fn endpoint(name: &'static str, pods: &[IpAddr], wrong: &str, outcome: Outcome) -> Row {
    let v6 = wrong.contains(':');
    let mut addresses: Vec<String> =
        pods.iter().filter(|ip| ip.is_ipv6() == v6).map(ToString::to_string).collect();
    addresses.push(wrong.to_owned());
    let refused = matches!(outcome, Outcome::Refused(..));
    let family = if v6 { "IPv6" } else { "IPv4" };
    let ip = if v6 { "fd00:10:96::7777" } else { "10.96.77.77" };
    Row {
        name,
        service: spec(json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": [family], "clusterIP": ip})),
        objects: vec![(SLICES, slice("bad-a", &addresses))],
        outcome,
        ports: vec![80],
        pods: if refused { &[] } else { &["web-1", "web-2"] },
    }
}

fn split(weights: [u32; 2]) -> (&'static str, Value) {
    let group = |version: &str, weight: u32| json!({"selector": {"matchLabels": {"version": version}}, "weight": weight});
    let object = json!({"apiVersion": "eastwest.dev/v1", "kind": "TrafficSplit", "metadata": {"name": "bad"},
        "spec": {"service": "bad", "backends": [group("v1", weights[0]), group("v2", weights[1])]}});
    (SPLITS, object)
}

/// `good` are another Service's addresses, IPv4 first.
fn table(pods: &[IpAddr], good: &[IpAddr]) -> Vec<Row> {
    use Outcome::{Condition, Named, Refused, Served};
    const FIELD: &str = "endpoints[2].addresses[0]";
    let web = || spec(json!({"selector": {"app": "web"}}));
    let external = |ip: &str| spec(json!({"selector": {"app": "web"}, "externalIPs": [ip]}));
    let refused = |name, service, field, what| Row {
        name,
        service,
        objects: vec![],
        outcome: Refused(field, what),
        ports: vec![],
        pods: &[],
    };
    let hundred: Vec<Value> = (1000..1100)
        .map(|port| json!({"name": format!("p{port}"), "port": port, "targetPort": 8080}))
        .collect();
    // 5,000 addresses of one pod, in as many slices as Kubernetes lets there be endpoints in each.
    let many: Vec<String> = (0..5000u32).map(|n| format!("10.200.{}.{}", 1 + n / 250, 1 + n % 250)).collect();
    let names = ["bad-a", "bad-b", "bad-c", "bad-d", "bad-e"];
    let slices = many.chunks(1000).zip(names).map(|(part, name)| (SLICES, slice(name, part)));
    let mut rows = vec![
        Row {
            name: "a Service with 100 ports",
            service: spec(json!({"selector": {"app": "web"}, "ports": hundred})),
            objects: vec![],
            outcome: Served,
            ports: vec![1000, 1033, 1066, 1099],
            pods: &["web-1", "web-2"],
        },
        Row {
            name: "5,000 endpoints in one Service",
            service: spec(json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]})),
            objects: slices.collect(),
            outcome: Served,
            ports: vec![80],
            pods: &["web-1"],
        },
        Row {
            name: "more endpoints in a slice than there may be",
            service: spec(json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]})),
            objects: vec![(SLICES, slice("bad-a", &many[..1001]))],
            outcome: Refused("endpoints", "at most 1000"),
            ports: vec![],
            pods: &[],
        },
        Row {
            name: "a TrafficSplit whose weights are all 0",
            service: web(),
            objects: vec![split([0, 0])],
            outcome: Condition("NoWeight", "all weights are 0"),
            ports: vec![80],
            pods: &["web-1", "web-2"],
        },
        Row {
            name: "a TrafficSplit with one weight of 0",
            service: web(),
            objects: vec![split([0, 1])],
            outcome: Served,
            ports: vec![80],
            pods: &["web-2"],
        },
        refused("no port", spec(json!({"ports": []})), "spec.ports", "Required value"),
        refused("port 0", spec(json!({"ports": [{"port": 0}]})), "spec.ports[0].port", "1 to 65535"),
        refused("port 65536", spec(json!({"ports": [{"port": 65536}]})), "spec.ports[0].port", "65536"),
    ];
    for (family, own) in ["10.96.77.77", "fd00:10:96::7777"].into_iter().enumerate() {
        rows.push(endpoint("an endpoint that is the Service's own address", pods, own, Named(FIELD)));
        let other = good[family].to_string();
        rows.push(endpoint("an endpoint that is another Service's address", pods, &other, Named(FIELD)));
    }
    for (name, address, what) in [
        ("IPv4-mapped", "::ffff:10.0.0.1", "IPv4-mapped"),
        ("loopback, IPv4", "127.0.0.1", "loopback"),
        ("loopback, IPv6", "::1", "loopback"),
        ("link-local, IPv4", "169.254.1.1", "link-local"),
        ("link-local, IPv6", "fe80::1", "link-local"),
        ("unspecified, IPv4", "0.0.0.0", "unspecified"),
        ("unspecified, IPv6", "::", "unspecified"),
        ("multicast, IPv4", "224.0.0.1", "multicast"),
        ("multicast, IPv6", "ff02::1", "multicast"),
        ("no address at all", "10.0.0", "an IPv4 or IPv6 address"),
    ] {
        rows.push(endpoint(name, pods, address, Refused(FIELD, what)));
        rows.push(refused(name, external(address), "spec.externalIPs[0]", what));
    }
    rows
}

/// The pods that answer at an address.
fn reached(lab: &Lab, to: SocketAddr, pods: usize) -> Result<HashSet<String>> {
    lab.within("asks", || {
        let mut seen = HashSet::new();
        // One of two is missed once in 2^32.
        for _ in 0..32 {
            if seen.len() >= pods {
                break;
            }
            seen.insert(get(to)?.pod);
        }
        Ok(seen)
    })?
}

fn others_go_on(lab: &Lab, good: &[IpAddr], open: &mut [std::net::TcpStream]) -> Result<()> {
    for ip in good {
        lab.within("asks", || get(SocketAddr::new(*ip, 80)))?.with_context(|| format!("{ip} after it"))?;
    }
    for stream in open {
        echo_line(stream, "still here\n").context("a connection of another Service")?;
    }
    Ok(())
}

/// Makes an object, on every node. What it was refused with, if it was.
fn make(lab: &Lab, path: &str, object: &Value) -> Result<Option<String>> {
    let query = [("wait", "programmed"), ("timeout", "60s")];
    match request(lab, Method::POST, path, &query, Some(object)) {
        Ok(_) => Ok(None),
        Err(error) => {
            let text = format!("{error:?}");
            if text.contains("code: 422") || text.contains("code: 400") {
                Ok(Some(text))
            } else {
                bail!("{path}: {error}")
            }
        }
    }
}

/// That nodes and Events name it.
fn named(lab: &Lab, text: &str) -> Result<()> {
    eventually_in(4, || {
        for node in ["node-1", "node-2"] {
            let path = format!("/apis/eastwest.dev/v1/nodestates/{node}");
            let problems = request(lab, Method::GET, &path, &[], None)?["status"]["problems"].to_string();
            ensure!(problems.contains(text) && problems.contains("default/bad"), "{node}: {problems}");
        }
        let events = request(lab, Method::GET, "/api/v1/namespaces/default/events", &[], None)?;
        let about = |event: &Value| {
            event["involvedObject"]["name"].as_str().is_some_and(|name| name.starts_with("bad"))
                && event["message"].as_str().is_some_and(|message| message.contains(text))
        };
        ensure!(events["items"].as_array().is_some_and(|all| all.iter().any(about)), "no Event: {events}");
        Ok(())
    })
}

fn play(lab: &Lab, row: &Row) -> Result<()> {
    let object =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad"}, "spec": row.service});
    let mut refusals: Vec<String> = make(lab, SERVICES, &object)?.into_iter().collect();
    for (path, object) in &row.objects {
        refusals.extend(make(lab, path, object)?);
    }
    match &row.outcome {
        Outcome::Refused(field, what) => {
            let [refusal] = &refusals[..] else { bail!("refused {} times: {refusals:?}", refusals.len()) };
            ensure!(refusal.contains(&format!("field: {field:?}")) && refusal.contains(what), "{refusal}");
        }
        _ => ensure!(refusals.is_empty(), "refused: {refusals:?}"),
    }
    match &row.outcome {
        Outcome::Named(text) => named(lab, text)?,
        Outcome::Condition(reason, text) => {
            let (path, object) = row.objects.last().context("an object")?;
            let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
            let status = request(lab, Method::GET, &path, &[], None)?["status"].to_string();
            ensure!(status.contains(reason) && status.contains("\"False\""), "{status}");
            named(lab, text)?;
        }
        Outcome::Refused(..) | Outcome::Served => {}
    }
    if row.ports.is_empty() || row.pods.is_empty() {
        return Ok(());
    }
    let service = request(lab, Method::GET, &format!("{SERVICES}/bad"), &[], None)?;
    let wanted: HashSet<String> = row.pods.iter().map(|pod| (*pod).to_owned()).collect();
    for ip in cluster_ips(&service) {
        for port in &row.ports {
            let to = SocketAddr::new(ip, *port);
            let seen = reached(lab, to, wanted.len()).with_context(|| to.to_string())?;
            ensure!(seen == wanted, "{to} is answered by {seen:?}, not by {wanted:?}");
        }
    }
    if row.name.starts_with("5,000") {
        // Each connection goes to an address of its own, as good as.
        let to = SocketAddr::new(cluster_ips(&service)[0], 80);
        let local = lab.within("asks", || -> Result<HashSet<String>> {
            (0..40).map(|_| Ok(get(to)?.local)).collect()
        })??;
        ensure!(local.len() > 20, "40 connections reached {} of 5,000 endpoints", local.len());
    }
    Ok(())
}

fn clear(lab: &Lab, row: &Row) -> Result<()> {
    let slices: Vec<(&str, &str)> =
        row.objects.iter().filter_map(|(path, o)| Some((*path, o["metadata"]["name"].as_str()?))).collect();
    for (path, name) in slices.into_iter().chain([(SERVICES, "bad")]) {
        let query = [("wait", "programmed"), ("timeout", "60s")];
        match request(lab, Method::DELETE, &format!("{path}/{name}"), &query, None) {
            Err(error) if !format!("{error:?}").contains("code: 404") => bail!("{path}/{name}: {error}"),
            _ => {}
        }
    }
    Ok(())
}

fn all() -> Result<()> {
    let lab = lab("badinput", Options { nodes: 2, ..Options::default() })?;
    let web = [pod(&lab, "web-1", "node-1", "web", "v1")?, pod(&lab, "web-2", "node-2", "web", "v2")?];
    pod(&lab, "asks", "node-1", "asks", "v1")?;
    // web-1 answers many addresses.
    run(&lab, "web-1", &["ip", "route", "add", "local", MANY, "dev", "lo"])?;
    let own = web[0].addresses.iter().find(|ip| ip.is_ipv4()).context("an address")?.to_string();
    run(&lab, "node-1", &["ip", "route", "add", MANY, "via", &own])?;

    let good = cluster_ips(&service(&lab, "good", spec(json!({"selector": {"app": "web"}})))?);
    ensure!(good.len() == 2, "{good:?}");
    let mut open = lab.within("asks", || -> Result<Vec<_>> {
        good.iter().map(|ip| Ok(connect(SocketAddr::new(*ip, 80), 0)?)).collect()
    })??;
    let pods: Vec<IpAddr> = web.iter().flat_map(|pod| pod.addresses.clone()).collect();
    let mut wrong = Vec::new();
    for row in table(&pods, &good) {
        let played = play(&lab, &row);
        let gone_on = others_go_on(&lab, &good, &mut open);
        let cleared = clear(&lab, &row);
        if let Err(error) = played.and(gone_on).and(cleared) {
            wrong.push(format!("{}: {error:?}", row.name));
        }
    }
    // A Service that comes after all of them is programmed, and the nodes have nothing to complain of any more.
    let last = service(&lab, "last", spec(json!({"selector": {"app": "web"}})))?;
    others_go_on(&lab, &cluster_ips(&last), &mut open)?;
    eventually_in(4, || {
        let state = request(&lab, Method::GET, "/apis/eastwest.dev/v1/nodestates/node-1", &[], None)?;
        ensure!(!state["status"]["problems"].to_string().contains("default/bad"), "{state}");
        Ok(())
    })?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

#[test]
fn what_is_wrong_is_named_and_others_go_on() {
    all().unwrap_or_else(|error| panic!("{error:?}"));
}
