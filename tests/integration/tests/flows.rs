//! Flows that nodes tell of while somebody asks: who asked which Service and what it got, by pods, processes and clients
//! outside; and counts of connections by Service.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options};
use http::Method;
use serde_json::{Value, json};

fn flows(lab: &Lab, query: &[(&str, &str)]) -> Result<Vec<Value>> {
    let list = request(lab, Method::GET, "/v1/flows", query, None)?;
    Ok(list["flows"].as_array().cloned().unwrap_or_default())
}

fn sample(lab: &Lab, sampling: u32) -> Result<()> {
    let body = json!({"sampling": sampling, "seconds": 60});
    request(lab, Method::PUT, "/v1/flows", &[], Some(&body))?;
    Ok(())
}

fn told(lab: &Lab) -> Result<()> {
    pod(lab, "web-1", "node-1", "web", "v1")?;
    pod(lab, "web-2", "node-2", "web", "v1")?;
    pod(lab, "asks", "node-1", "asks", "v1")?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080},
                       {"name": "ask", "port": 80, "targetPort": 8080, "protocol": "UDP"}]);
    let spec =
        |app: &str| json!({"selector": {"app": app}, "ports": ports, "ipFamilyPolicy": "PreferDualStack"});
    let web = cluster_ips(&service(lab, "web", spec("web"))?);
    let empty = cluster_ips(&service(lab, "empty", spec("nobody"))?);

    // Nobody asks: nothing is told.
    lab.within("asks", || get(SocketAddr::new(web[0], 80)))??;
    ensure!(flows(lab, &[])?.is_empty(), "told without being asked");

    sample(lab, 1)?;
    for (web, empty) in web.iter().zip(&empty) {
        let (to, none) = (SocketAddr::new(*web, 80), SocketAddr::new(*empty, 80));
        // Agents hear of it a moment later: ask again until it is told.
        let seen = |from: &str, verdict: &str, ask: &dyn Fn() -> Result<()>| {
            let asked = if verdict == "opened" { to } else { none };
            eventually(|| {
                ask()?;
                let found = flows(lab, &[("verdict", verdict)])?.into_iter().find(|flow| {
                    flow["from"] == from && flow["asked"] == asked.to_string() && flow["protocol"] == "TCP"
                });
                found.with_context(|| format!("no flow from {from} to {asked} was told of"))
            })
        };
        let pod = seen("pod", "opened", &|| lab.within("asks", || get(to))?.map(|_| ()))?;
        ensure!(pod["clientName"] == "default/asks" && pod["service"] == "default/web", "{pod}");
        ensure!(pod["node"] == "node-1", "{pod}");
        ensure!(pod["backendName"].as_str().is_some_and(|name| name.starts_with("default/web-")), "{pod}");
        let url = format!("http://{to}/");
        let host =
            seen("host", "opened", &|| run(lab, "node-2", &["curl", "-sS", "-m", "3", &url]).map(drop))?;
        ensure!(host["clientName"] == "node-2" && host["service"] == "default/web", "{host}");
        let outside = seen("outside", "opened", &|| lab.within("client", || get(to))?.map(|_| ()))?;
        ensure!(outside["service"] == "default/web" && outside["client"].is_string(), "{outside}");
        let refused = seen("pod", "refused", &|| lab.within("asks", || refusal(none))?.map(|_| ()))?;
        ensure!(refused["reason"] == "no_endpoints" && refused["service"] == "default/empty", "{refused}");
    }
    // UDP, and what a filter leaves.
    eventually(|| {
        lab.within("asks", || ask_udp(SocketAddr::new(web[0], 80)))??;
        let all = flows(lab, &[("service", "default/web"), ("namespace", "default")])?;
        ensure!(all.iter().all(|flow| flow["service"] == "default/web"), "{all:?}");
        all.into_iter().find(|flow| flow["protocol"] == "UDP").context("UDP")
    })?;
    ensure!(flows(lab, &[("namespace", "elsewhere")])?.is_empty(), "a namespace without flows");

    // By the command line, as it happens.
    let kubeconfig = lab.kubeconfig();
    let bin = std::env::var("EASTWEST_BIN_DIR").context("EASTWEST_BIN_DIR")?;
    let mut shown = std::process::Command::new(format!("{bin}/eastwest"));
    shown.arg("--kubeconfig").arg(&kubeconfig).args(["flows", "-f", "--service", "web", "-o", "json"]);
    let mut shown = shown.stdout(std::process::Stdio::piped()).spawn()?;
    let (sender, lines) = std::sync::mpsc::channel();
    let output = std::io::BufReader::new(shown.stdout.take().context("stdout")?);
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(output).map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let line = eventually(|| {
        lab.within("asks", || get(SocketAddr::new(web[0], 80)))??;
        Ok(lines.try_recv()?)
    });
    shown.kill()?;
    shown.wait()?;
    let flow: Value = serde_json::from_str(&line?)?;
    ensure!(flow["service"] == "default/web", "{flow}");

    // Counted by Service, whether told of or not.
    eventually_in(4, || {
        let text = run(lab, "node-1", &["curl", "-sS", "-m", "3", "http://127.0.0.1:10249/metrics"])?;
        let wanted = "eastwest_service_connections_total{namespace=\"default\",service=\"web\",port=\"http\",protocol=\"TCP\"}";
        let line = text.lines().find(|line| line.starts_with(wanted)).context("no count of the Service")?;
        let count: u64 = line.rsplit(' ').next().context("a value")?.parse()?;
        ensure!(count >= 3, "{line}");
        Ok(())
    })?;

    // Enough of it.
    sample(lab, 0)?;
    eventually(|| {
        let before = request(lab, Method::GET, "/v1/flows", &[], None)?["next"].clone();
        for _ in 0..5 {
            lab.within("asks", || get(SocketAddr::new(web[0], 80)))??;
        }
        std::thread::sleep(std::time::Duration::from_millis(700));
        let after = request(lab, Method::GET, "/v1/flows", &[], None)?;
        ensure!(after["next"] == before && after["sampling"] == 0, "still told of flows");
        Ok(())
    })
}

#[test]
fn who_talks_to_whom() {
    let result = lab("flows", Options { nodes: 2, ..Options::default() }).and_then(|lab| told(&lab));
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
