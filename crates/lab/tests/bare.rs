//! Labs without controller and agents: that pods, nodes and the outside client reach each other, and that nothing is left.
//!
//! They need root and the binary `eastwest` beside the tests (`cargo build -p eastwest`); without, they fail and say so.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use eastwest_lab::{Family, Lab, Network, Options, PodSpec, ask, serve::Answer};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn lab(name: &str, network: Network, family: Family) -> Result<Lab, eastwest_lab::Error> {
    Lab::up(Options { name: name.into(), network, family, nodes: 2, bare: true, ..Options::default() })
}

fn udp(to: SocketAddr) -> Result<Answer, std::io::Error> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    let mut buffer = [0; 2048];
    let n = socket.recv(&mut buffer)?;
    Ok(serde_json::from_slice(&buffer[..n])?)
}

/// From each place to each pod, by TCP and UDP in each family: reached, and by the address that is the client's own.
fn everyone_reaches_everyone(name: &str, network: Network, family: Family) -> Outcome {
    let lab = lab(name, network, family)?;
    let mut host = PodSpec::new("host", "node-2")?;
    (host.host_network, host.port) = (true, 8081);
    let specs =
        [PodSpec::new("a", "node-1")?, PodSpec::new("b", "node-1")?, PodSpec::new("c", "node-2")?, host];
    let pods =
        specs.iter().map(|s| Ok((s, lab.run_pod(s)?))).collect::<Result<Vec<_>, eastwest_lab::Error>>()?;
    let families = if family == Family::Dual { 2 } else { 1 };
    for (from, own) in [("a", Some(&pods[0].1.addresses)), ("client", None), ("node-1", None)] {
        for (spec, pod) in &pods {
            assert_eq!(pod.addresses.len(), families);
            for &ip in &pod.addresses {
                let to = SocketAddr::new(ip, pod.port);
                let context = |e: std::io::Error| format!("{from} to {} at {to}: {e}", spec.name);
                let answers = lab.within(from, || [ask::get(to), udp(to)])?;
                for answer in answers {
                    let answer = answer.map_err(context)?;
                    assert_eq!(answer.pod, spec.name.name, "{from} to {to}");
                    assert_eq!(answer.local, to.to_string());
                    let remote: SocketAddr = answer.remote.parse()?;
                    if let Some(own) = own.filter(|_| spec.name.name != "a") {
                        assert!(own.contains(&remote.ip()), "{from} at {own:?} was seen as {remote}");
                    }
                }
            }
        }
    }
    lab.down()?;
    Ok(())
}

#[test]
fn ptp() -> Outcome {
    everyone_reaches_everyone("b_ptp", Network::Ptp, Family::Dual)
}

#[test]
fn bridge() -> Outcome {
    everyone_reaches_everyone("b_bridge", Network::Bridge, Family::Dual)
}

#[test]
fn vxlan() -> Outcome {
    everyone_reaches_everyone("b_vxlan", Network::Vxlan, Family::Dual)
}

#[test]
fn one_family_alone() -> Outcome {
    everyone_reaches_everyone("b_v4", Network::Ptp, Family::Ipv4)?;
    everyone_reaches_everyone("b_v6", Network::Bridge, Family::Ipv6)?;
    everyone_reaches_everyone("b_vx6", Network::Vxlan, Family::Ipv6)
}

#[test]
fn a_command_runs_where_it_is_told_to() -> Outcome {
    let lab = lab("b_exec", Network::Ptp, Family::Dual)?;
    let mut spec = PodSpec::new("shop/p", "node-1")?;
    spec.command = ["sh", "-c", "echo started; exec sleep 60"].map(str::to_owned).to_vec();
    let pod = lab.run_pod(&spec)?;
    let out = |target: &str, script: &str| -> Result<(Option<i32>, String), eastwest_lab::Error> {
        let output = lab.exec(target, &["sh", "-c", script])?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    };
    let addresses: Vec<String> = pod.addresses.iter().map(IpAddr::to_string).collect();
    for (target, script, want) in [
        ("shop/p", "hostname", "p"),
        (
            "shop/p",
            "head -1 /etc/resolv.conf",
            "search shop.svc.cluster.local svc.cluster.local cluster.local",
        ),
        ("shop/p", "sed -n 2p /etc/resolv.conf", "nameserver 10.96.0.10"),
        ("shop/p", "sed -n 3p /etc/resolv.conf", "options ndots:5"),
        ("shop/p", "getent ahostsv4 p | head -1 | cut -d' ' -f1", &addresses[0]),
        ("shop/p", "getent ahostsv6 p | head -1 | cut -d' ' -f1", &addresses[1]),
        ("node-1", "sed -n 's/^0:://p' /proc/self/cgroup", "/eastwest-b_exec-node-1"),
        ("client", "hostname", "client"),
    ] {
        assert_eq!(out(target, script)?, (Some(0), want.to_owned()), "{target}: {script}");
    }
    assert_eq!(out("shop/p", "exit 7")?.0, Some(7));
    let log = std::fs::read_to_string(lab.logs().join("pod-shop.p.log"))?;
    assert_eq!(log, "started\n");
    for wrong in ["p", "node-3", "shop/q", ""] {
        let error = lab.exec(wrong, &["true"]).expect_err(wrong).to_string();
        assert!(error.contains("shop/p") && error.contains("node-2"), "{error}");
    }
    assert!(matches!(lab.run_pod(&spec), Err(eastwest_lab::Error::PodExists(_))));
    lab.remove_pod(&spec.name)?;
    assert!(lab.state()?.pods.is_empty());
    assert!(!Path::new("/run/netns/ew-b_exec-pod-shop.p").exists());
    lab.run_pod(&spec)?;
    Ok(())
}

#[test]
fn a_cut_cable_cuts_and_mends() -> Outcome {
    let lab = lab("b_link", Network::Ptp, Family::Ipv4)?;
    let a = lab.run_pod(&PodSpec::new("a", "node-2")?)?;
    let to = SocketAddr::new(a.addresses[0], a.port);
    let reach = |patience: u64| {
        lab.within("client", || TcpStream::connect_timeout(&to, Duration::from_millis(patience)).is_ok())
    };
    assert!(reach(5000)?);
    lab.link("node-2", false)?;
    assert!(!reach(500)?);
    lab.link("node-2", true)?;
    assert!(reach(5000)?);
    Ok(())
}

/// Everything of one lab that a machine can show.
fn traces(lab: &str) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    for dir in ["/run/netns", "/run/eastwest/lab", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        let of_lab = |n: &String| n == lab || n.contains(&format!("-{lab}-")) || *n == format!("{lab}.lock");
        traces.extend(names.filter(of_lab).map(|n| format!("{dir}/{n}")));
    }
    traces
}

#[test]
fn nothing_is_left_even_of_half_a_lab() -> Outcome {
    let name = "b_half";
    let mut lab = lab(name, Network::Bridge, Family::Dual)?;
    let pod = lab.run_pod(&PodSpec::new("a", "node-1")?)?;
    lab.run_pod(&{
        let mut spec = PodSpec::new("h", "node-2")?;
        (spec.host_network, spec.command) = (true, vec!["sleep".into(), "600".into()]);
        spec
    })?;
    lab.keep();
    drop(lab);
    // A crash: what the lab knew of itself is gone, and half of its namespaces.
    std::fs::remove_dir_all(format!("/run/eastwest/lab/{name}"))?;
    let status =
        std::process::Command::new("ip").args(["netns", "delete", &format!("ew-{name}-fabric")]).status()?;
    assert!(status.success());
    assert!(!traces(name).is_empty());
    assert!(eastwest_lab::down(name)?);
    assert_eq!(traces(name), BTreeSet::new());
    assert!(!pod.process.ok_or("no process")?.alive());
    assert!(!eastwest_lab::down(name)?, "a second time there is nothing");

    // And `up` clears what an earlier one has left.
    let mut again = Lab::up(Options { name: name.into(), nodes: 1, bare: true, ..Options::default() })?;
    again.keep();
    std::fs::remove_file(format!("/run/eastwest/lab/{name}/state.json"))?;
    let anew = Lab::up(Options { name: name.into(), nodes: 1, bare: true, ..Options::default() })?;
    assert!(matches!(Lab::up(anew.state()?.options), Err(eastwest_lab::Error::Exists(_))));
    anew.down()?;
    assert_eq!(traces(name), BTreeSet::new());
    Ok(())
}

#[test]
fn the_machine_itself_stays_as_it_is() -> Outcome {
    let picture = || -> Result<String, std::io::Error> {
        let mut all = String::new();
        for args in [&["-br", "link"][..], &["route"], &["-6", "route"], &["rule"]] {
            let output = std::process::Command::new("ip").args(args).output()?;
            all.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        all.push_str(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?);
        all.push_str(&std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding")?);
        all.push_str(&std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/accept_dad")?);
        Ok(all)
    };
    let before = picture()?;
    let lab = lab("b_self", Network::Vxlan, Family::Dual)?;
    lab.run_pod(&PodSpec::new("a", "node-1")?)?;
    assert_eq!(picture()?, before);
    // A name or port of the machine is not taken either.
    let taken = lab.within("node-1", || TcpListener::bind("172.31.0.1:7443").is_ok())?;
    assert!(taken);
    lab.down()?;
    assert_eq!(picture()?, before);
    Ok(())
}

#[test]
fn wrong_options_say_what_is_right() {
    for (options, want) in [
        (Options { name: "My Lab".into(), ..Options::default() }, "a-z"),
        (Options { nodes: 0, ..Options::default() }, "1 to 99"),
        (Options { nodes: 100, ..Options::default() }, "1 to 99"),
    ] {
        let error = Lab::up(options).expect_err(want).to_string();
        assert!(error.contains(want), "{error}");
    }
    let error = Lab::open("nosuch").expect_err("there is none").to_string();
    assert!(error.contains("lab up --name nosuch"), "{error}");
}
