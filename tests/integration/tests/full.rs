//! A connection table that is far too small: connections with traffic go on, those that were silent longest give way, and
//! new ones get in. Both pod hooks, both families.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options, PodHook};
use serde_json::json;

/// Entries of the tables, two for each connection.
const ENTRIES: u32 = 1024;
/// Connections with traffic.
const LIVE: usize = 24;
/// Rounds, and new flows in each: some ten times the table in all.
const ROUNDS: usize = 40;
const EACH: usize = 128;

fn live(to: SocketAddr) -> Result<Vec<TcpStream>> {
    (0..LIVE).map(|_| Ok(connect(to, 0)?)).collect()
}

fn go_on(streams: &mut [TcpStream], round: usize) -> Result<()> {
    for (n, stream) in streams.iter_mut().enumerate() {
        echo_line(stream, &format!("round {round} of {n}\n"))
            .with_context(|| format!("connection {n} in round {round}"))?;
    }
    Ok(())
}

/// One datagram from each of so many ports: each is a flow of its own.
fn flood(to: SocketAddr) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sockets = (0..EACH).map(|_| UdpSocket::bind(any)).collect::<std::io::Result<Vec<_>>>()?;
    for socket in &sockets {
        socket.send_to(b"?", to)?;
    }
    Ok(())
}

fn all(lab: &Lab, client: &str, to: SocketAddr) -> Result<()> {
    lab.within(client, || {
        let mut streams = live(to)?;
        // Each speaks after every few new flows, so none is silent while a whole table of others comes.
        for round in 0..ROUNDS {
            flood(to)?;
            go_on(&mut streams, round)?;
            if round % 4 == 0 {
                get(to).with_context(|| format!("a new connection in round {round}"))?;
            }
        }
        // One way alone for longer than the time that an entry's last use is noted by.
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(1200));
            go_on(&mut streams, ROUNDS + round)?;
            flood(to)?;
        }
        Ok(())
    })?
}

fn full(name: &str, hook: PodHook) -> Result<()> {
    let size = ENTRIES.to_string();
    let args = ["--capacity-connections4", &size, "--capacity-connections6", &size].map(str::to_owned);
    let options = Options { nodes: 2, pod_hook: hook, agent_args: args.to_vec(), ..Options::default() };
    let lab = lab(name, options)?;
    for (name, node, app) in [
        ("web-1", "node-1", "web"),
        ("web-2", "node-2", "web"),
        ("web-3", "node-2", "web"),
        ("asks", "node-1", "asks"),
    ] {
        pod(&lab, name, node, app, "v1")?;
    }
    let spec = json!({
        "type": "NodePort",
        "selector": {"app": "web"},
        "ipFamilyPolicy": "PreferDualStack",
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
            {"name": "ask", "port": 80, "targetPort": 8080, "protocol": "UDP", "nodePort": 30080},
        ],
    });
    for vip in cluster_ips(&service(&lab, "web", spec)?) {
        all(&lab, "asks", SocketAddr::new(vip, 80)).with_context(|| format!("a pod to {vip}"))?;
    }
    for node in ["172.31.0.1", "fd00:172:31::1"] {
        all(&lab, "client", SocketAddr::new(node.parse()?, 30080))
            .with_context(|| format!("outside to {node}"))?;
    }
    let state = request(&lab, http::Method::GET, "/apis/eastwest.dev/v1/nodestates/node-1", &[], None)?;
    ensure!(state.to_string().contains("\"dropped_table_full\":0"), "entries were refused: {state}");
    Ok(())
}

#[test]
fn pods_hooked_by_tc() {
    full("fulltc", PodHook::Tc).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn pods_hooked_by_xdp() {
    full("fullxdp", PodHook::Xdp).unwrap_or_else(|error| panic!("{error:?}"));
}
