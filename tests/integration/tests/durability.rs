//! Nothing acknowledged is lost, and bad input stops nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Error, Lab, Options, Role};
use http::Method;
use serde_json::json;

fn two_nodes(name: &str) -> Result<Lab> {
    lab(name, Options { nodes: 2, ..Options::default() })
}

/// The controller is killed while several writers write, five times over: each acknowledged Service is there after.
#[test]
fn acknowledged_writes_survive_kill_9() {
    let result = (|| -> Result<()> {
        let lab = two_nodes("kill9")?;
        let acknowledged = Mutex::new(BTreeSet::new());
        for round in 0..5 {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| -> Result<()> {
                for writer in 0..4 {
                    let (lab, stop, acknowledged) = (&lab, &stop, &acknowledged);
                    scope.spawn(move || {
                        for n in 0.. {
                            if stop.load(Ordering::Relaxed) {
                                return;
                            }
                            let name = format!("w{writer}-r{round}-{n}");
                            let object =
                                json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
                            if request(lab, Method::POST, SERVICES, &[], Some(&object)).is_ok() {
                                acknowledged.lock().expect("no writer panics").insert(name);
                            }
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(400));
                lab.kill(&Role::Controller)?;
                stop.store(true, Ordering::Relaxed);
                Ok(())
            })?;
            lab.start(&Role::Controller)?;
        }
        let list = request(&lab, Method::GET, SERVICES, &[], None)?;
        let there: BTreeSet<String> = list["items"]
            .as_array()
            .context("items")?
            .iter()
            .filter_map(|s| Some(s["metadata"]["name"].as_str()?.to_owned()))
            .collect();
        let acknowledged = acknowledged.into_inner().expect("no writer panics");
        ensure!(acknowledged.len() > 20, "too few writes to tell: {}", acknowledged.len());
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        ensure!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
        let ips: Vec<_> = list["items"].as_array().context("items")?.iter().flat_map(cluster_ips).collect();
        ensure!(ips.iter().collect::<BTreeSet<_>>().len() == ips.len(), "an address was given twice");
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}

fn refused(lab: &Lab, object: &serde_json::Value) -> Result<(u16, String)> {
    match request(lab, Method::POST, SERVICES, &[("fieldValidation", "Strict")], Some(object)) {
        Ok(_) => anyhow::bail!("accepted: {object}"),
        Err(Error::Api(e)) => Ok((e.code().context("a status code")?, e.to_string())),
        Err(e) => Err(e.into()),
    }
}

#[test]
fn bad_input_is_named_and_harms_nothing() {
    let result = (|| -> Result<()> {
        let lab = two_nodes("badinput")?;
        pod(&lab, "web-1", "node-1", "web", "v1")?;
        pod(&lab, "client-pod", "node-2", "client", "v1")?;
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}],
                          "clusterIP": "10.96.3.3"});
        service(&lab, "web", spec)?;
        let port = json!([{"port": 80}]);
        for (object, code, word) in [
            (
                json!({"metadata": {"name": "a"}, "spec": {"ports": port, "clusterIP": "192.0.2.1"}}),
                422,
                "spec.clusterIPs",
            ),
            (
                json!({"metadata": {"name": "a"}, "spec": {"ports": port, "clusterIP": "10.96.3.3"}}),
                422,
                "spec.clusterIPs",
            ),
            (
                json!({"metadata": {"name": "a"}, "spec": {"ports": port, "sessionAfinity": "None"}}),
                400,
                "sessionAfinity",
            ),
            (json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": "eighty"}]}}), 400, "port"),
            (json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 70_000}]}}), 400, "port"),
            (json!({"metadata": {"name": "UPPER"}, "spec": {"ports": port}}), 422, "metadata.name"),
            (json!({"metadata": {"name": "web"}, "spec": {"ports": port}}), 409, "web"),
            (json!([1, 2, 3]), 400, ""),
        ] {
            let (status, text) = refused(&lab, &object)?;
            ensure!(status == code && text.contains(word), "{object}: {status} {text}");
        }
        let big = json!({"metadata": {"name": "big", "annotations": {"a": "x".repeat(100_000_000)}}});
        // The server may answer while the client still sends: either word will do, but not silence.
        match request(&lab, Method::POST, SERVICES, &[], Some(&big)) {
            Ok(_) => anyhow::bail!("100 MB accepted"),
            Err(Error::Api(e)) => ensure!(e.code().is_none_or(|c| c == 413), "100 MB: {e}"),
            Err(e) => return Err(e.into()),
        }

        // Garbage on the DNS port and cut packets towards the virtual IP.
        lab.within("client-pod", || -> Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for n in 0..2000u32 {
                let bytes: Vec<u8> = (0..n % 64)
                    .map(|i| (i.wrapping_add(n).wrapping_mul(2_654_435_761) >> 24) as u8)
                    .collect();
                socket.send_to(&bytes, "10.96.0.10:53")?;
                socket.send_to(&bytes, "10.96.3.3:80").ok();
            }
            let mut tcp = connect("10.96.0.10:53".parse()?, 0)?;
            tcp.write_all(&[0xff; 3000]).ok();
            Ok(())
        })??;
        lab.within("client-pod", || get("10.96.3.3:80".parse()?))??;
        let text = run(&lab, "client-pod", &["dig", "+short", "+tries=1", "web.default.svc.cluster.local"])?;
        ensure!(text.trim() == "10.96.3.3", "{text}");
        let status = lab.status()?;
        ensure!(status.nodes.iter().all(|n| n.agent.as_ref().is_some_and(|a| a.running)), "an agent ended");
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
