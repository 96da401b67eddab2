//! Names as pods see them, over real packets: by dig, by the C library, and by a stranger.

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Options, PodSpec};
use http::Method;
use serde_json::json;

#[test]
fn names_as_pods_see_them() {
    let result = (|| -> Result<()> {
        let lab = lab("dns", Options::default())?;
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        request(&lab, Method::POST, "/api/v1/namespaces", &[], Some(&shop))?;
        let web = pod(&lab, "web-1", "node-2", "web", "v1")?;
        pod(&lab, "client-pod", "node-1", "client", "v1")?;
        lab.run_pod(&PodSpec::new("shop/buyer", "node-1")?.label("app", "buyer")).context("shop/buyer")?;
        let spec =
            json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
        let service = service(&lab, "web", spec)?;
        let vip = cluster_ips(&service)[0].to_string();
        let pod_ip = web.addresses.iter().find(|ip| ip.is_ipv4()).context("the pod's address")?.to_string();
        let dashed = pod_ip.replace('.', "-");
        let endpoint = format!("{dashed}.web.default.svc.cluster.local");
        let walked = format!("web.default.svc.cluster.local.\n{vip}");

        // Asking pod, dig's words, what it prints.
        let cases: &[(&str, &[&str], &str)] = &[
            ("client-pod", &["+short", "web.default.svc.cluster.local"], &vip),
            ("client-pod", &["+short", "+tcp", "web.default.svc.cluster.local"], &vip),
            ("client-pod", &["+short", "+noedns", "web.default.svc.cluster.local"], &vip),
            ("client-pod", &["+short", &endpoint], &pod_ip),
            ("client-pod", &["+short", "-x", &pod_ip], &format!("{endpoint}.")),
            ("client-pod", &["+short", "-x", &vip], "web.default.svc.cluster.local."),
            (
                "client-pod",
                &["+short", "SRV", "_http._tcp.web.default.svc.cluster.local"],
                "0 100 80 web.default.svc.cluster.local.",
            ),
            // The search list of a pod is walked for it, and for nobody else.
            ("shop/buyer", &["+short", "web.default.shop.svc.cluster.local"], &walked),
            ("client-pod", &["+short", "web.default.shop.svc.cluster.local"], ""),
            ("shop/buyer", &["+short", "web.shop.svc.cluster.local"], ""),
        ];
        for (from, words, expected) in cases {
            let argv: Vec<&str> = ["dig", "+tries=1"].iter().chain(*words).copied().collect();
            let text = run(&lab, from, &argv)?;
            ensure!(text.trim() == *expected, "{from} {words:?}: {text:?} is not {expected:?}");
        }
        let version = run(&lab, "client-pod", &["dig", "+short", "CH", "TXT", "version.bind"])?;
        ensure!(version.contains("eastwest-"), "{version}");
        let cookie = run(&lab, "client-pod", &["dig", "+nsid", "web.default.svc.cluster.local"])?;
        ensure!(cookie.contains("(good)"), "no cookie came back: {cookie}");

        // How an answer came about, told to the command line.
        let eastwest = std::env::var("EASTWEST_BIN_DIR").context("EASTWEST_BIN_DIR")? + "/eastwest";
        let words = ["--lab", "dns", "dns", "web.default", "A", "--from", "pod/shop/buyer", "--explain"];
        let told = std::process::Command::new(eastwest).args(words).output()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        for line in [
            "asked by: pod shop/buyer",
            "answered by: kubernetes",
            "tried: web.default.shop.svc.cluster.local. NXDOMAIN",
            "tried: web.default.svc.cluster.local. NOERROR",
        ] {
            ensure!(told.contains(line), "no {line:?} in {told}");
        }

        // The C library, both families at once over one socket.
        for name in ["web.default", "web.default.svc.cluster.local"] {
            let text = run(&lab, "shop/buyer", &["getent", "ahostsv4", name])?;
            ensure!(text.starts_with(&vip), "getent {name}: {text}");
        }

        // Somebody outside the cluster: refused, or not even a way there; never an answer.
        let asked = lab.exec(
            "client",
            &["dig", "+tries=1", "+time=1", "@10.96.0.10", "web.default.svc.cluster.local"],
        )?;
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        ensure!(!text.contains("NOERROR") && !text.contains(&vip), "a stranger was answered: {text}");
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
