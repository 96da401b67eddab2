//! TrafficSplits: weights by label, whatever the number of endpoints, changed without touching open connections.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options};
use http::Method;
use serde_json::json;

const SPLITS: &str = "/apis/eastwest.dev/v1/namespaces/default/trafficsplits";

/// Makes or changes the split of Service `web`, on every node.
fn split(lab: &Lab, method: Method, path: &str, v1: u32, v2: u32) -> Result<()> {
    let group = |version: &str, weight: u32| json!({"selector": {"matchLabels": {"version": version}}, "weight": weight});
    let object = json!({"apiVersion": "eastwest.dev/v1", "kind": "TrafficSplit", "metadata": {"name": "web"},
        "spec": {"service": "web", "backends": [group("v1", v1), group("v2", v2)]}});
    let query = [("wait", "programmed"), ("timeout", "10s")];
    request(lab, method, path, &query, Some(&object)).with_context(|| format!("split {v1} to {v2}"))?;
    Ok(())
}

/// How many of so many new connections reached version v2.
fn reached_v2(lab: &Lab, from: &str, vip: SocketAddr, connections: usize) -> Result<usize> {
    let pods = lab.within(from, || -> Result<Vec<String>> {
        (0..connections).map(|_| Ok(get(vip)?.pod)).collect()
    })??;
    Ok(pods.iter().filter(|p| p.starts_with("v2")).count())
}

fn weights(lab: &Lab) -> Result<()> {
    for (name, node) in [("v1-1", "node-1"), ("v1-2", "node-2"), ("v1-3", "node-2")] {
        pod(lab, name, node, "web", "v1")?;
    }
    pod(lab, "v2-1", "node-2", "web", "v2")?;
    pod(lab, "client-1", "node-1", "client", "v1")?;
    let spec = json!({"selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack",
        "ports": [{"port": 80, "targetPort": 8080}]});
    let web = service(lab, "web", spec)?;
    split(lab, Method::POST, SPLITS, 90, 10)?;
    let path = format!("{SPLITS}/web");
    for ip in cluster_ips(&web) {
        let vip = SocketAddr::new(ip, 80);
        split(lab, Method::PUT, &path, 90, 10)?;
        for from in ["client-1", "client"] {
            // 30 are expected of 300; further off than this is one time in a million.
            let v2 = reached_v2(lab, from, vip, 300)?;
            ensure!((5..=60).contains(&v2), "{v2} of 300 connections of {from} to {vip} reached v2");
        }
        split(lab, Method::PUT, &path, 0, 1)?;
        let v2 = reached_v2(lab, "client-1", vip, 20)?;
        ensure!(v2 == 20, "{v2} of 20 connections to {vip} reached v2, which alone has a weight");
        let mut open = lab.within("client-1", || connect(vip, 0))??;
        echo_line(&mut open, "before\n")?;
        split(lab, Method::PUT, &path, 1, 0)?;
        let v2 = reached_v2(lab, "client-1", vip, 20)?;
        ensure!(v2 == 0, "{v2} of 20 connections to {vip} reached v2, which has no weight");
        echo_line(&mut open, "after\n").context("the connection that was open")?;
    }
    Ok(())
}

#[test]
fn weights_divide_new_connections_and_leave_open_ones() {
    let result = (|| weights(&lab("splits", Options { nodes: 2, ..Options::default() })?))();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
