//! eastwest starts beside a running kube-proxy, here rules of nftables as it makes them: the connections that those hold go
//! on, and new ones are ours. For pods, and for clients outside by a node port; each pod hook, both families.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options, PodHook, Role};
use serde_json::json;

/// Connections of each client: enough that chance does not give all of them the backend that they have.
const CONNECTIONS: usize = 8;
const NODE_PORT: u16 = 30080;

/// kube-proxy's rules on node-1, by which one pod serves both addresses.
fn rules(lab: &Lab, vip: IpAddr, node: IpAddr, backend: IpAddr) -> Result<()> {
    let (family, backend) = match backend {
        IpAddr::V4(ip) => ("ip", format!("{ip}:8080")),
        IpAddr::V6(ip) => ("ip6", format!("[{ip}]:8080")),
    };
    let text = format!(
        "table {family} kube-proxy {{
  chain services {{
    {family} daddr {vip} tcp dport 80 dnat to {backend}
    {family} daddr {node} tcp dport {NODE_PORT} meta mark set mark or 0x4000 dnat to {backend}
  }}
  chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority 100; meta mark & 0x4000 != 0 masquerade fully-random; }}
}}"
    );
    run(lab, "node-1", &["nft", &text]).map(drop)
}

struct Client<'a> {
    place: &'a str,
    to: SocketAddr,
    connections: Vec<TcpStream>,
}

impl Client<'_> {
    fn open(&mut self, lab: &Lab) -> Result<()> {
        let to = self.to;
        for _ in 0..CONNECTIONS {
            let stream = lab.within(self.place, || connect(to, 0))?;
            self.connections.push(stream.with_context(|| format!("{} to {to}", self.place))?);
        }
        self.go_on("before")
    }

    fn go_on(&mut self, when: &str) -> Result<()> {
        for (n, stream) in self.connections.iter_mut().enumerate() {
            echo_line(stream, &format!("{when} {n}\n"))
                .with_context(|| format!("{}: connection {n} to {}, {when}", self.place, self.to))?;
        }
        Ok(())
    }

    /// New connections reach both pods, as only ours do.
    fn anew(&self, lab: &Lab) -> Result<()> {
        let to = self.to;
        // The agent has reported before it has hooked every device.
        eventually(|| {
            let mut seen = BTreeSet::new();
            for _ in 0..32 {
                seen.insert(lab.within(self.place, || get(to))??.pod);
            }
            ensure!(seen.len() == 2, "{} at {to} gets {seen:?}", self.place);
            Ok(())
        })
    }
}

fn beside(name: &str, hook: PodHook) -> Result<()> {
    let lab = lab(name, Options { nodes: 2, pod_hook: hook, ..Options::default() })?;
    pod(&lab, "web-1", "node-1", "web", "v1")?;
    let there = pod(&lab, "web-2", "node-2", "web", "v1")?;
    pod(&lab, "asks", "node-1", "asks", "v1")?;
    let spec = json!({
        "type": "NodePort",
        "selector": {"app": "web"},
        "ipFamilyPolicy": "PreferDualStack",
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
    });
    let vips = cluster_ips(&service(&lab, "web", spec)?);
    let nodes: [IpAddr; 2] = ["172.31.0.1".parse()?, "fd00:172:31::1".parse()?];

    let role = Role::Agent("node-1".to_owned());
    lab.stop(&role)?;
    let bin = match std::env::var("EASTWEST_BIN_DIR") {
        Ok(bin) => bin,
        // As the lab finds them: tests run from `deps`.
        Err(_) => std::env::current_exe()?.ancestors().nth(2).context("a folder")?.display().to_string(),
    };
    let pins = format!("/sys/fs/bpf/eastwest-lab/{name}/node-1");
    // Without the tests' own words in its environment, which it would take for settings.
    let agent = format!("{bin}/eastwest-agent");
    run(&lab, "node-1", &["env", "-i", &agent, "cleanup", "--pin-dir", &pins])?;
    let mut clients = Vec::new();
    for (vip, node) in vips.iter().zip(nodes) {
        let backend =
            there.addresses.iter().find(|ip| ip.is_ipv4() == vip.is_ipv4()).context("an address")?;
        rules(&lab, *vip, node, *backend)?;
        for (place, to) in [
            ("asks", SocketAddr::new(*vip, 80)),
            ("node-1", SocketAddr::new(*vip, 80)),
            ("client", SocketAddr::new(node, NODE_PORT)),
        ] {
            let mut client = Client { place, to, connections: Vec::new() };
            client.open(&lab)?;
            clients.push(client);
        }
    }
    lab.start(&role)?;
    for client in &mut clients {
        client.go_on("beside eastwest")?;
    }
    for client in &mut clients {
        // A process of the test is in no node's cgroup.
        if client.place != "node-1" {
            client.anew(&lab)?;
        }
        client.go_on("beside new ones")?;
    }
    for family in ["ip", "ip6"] {
        run(&lab, "node-1", &["nft", "delete", "table", family, "kube-proxy"])?;
    }
    clients.iter().filter(|client| client.place != "node-1").try_for_each(|client| client.anew(&lab))
}

#[test]
fn pods_hooked_by_tc() {
    beside("besidetc", PodHook::Tc).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn pods_hooked_by_xdp() {
    beside("besidexdp", PodHook::Xdp).unwrap_or_else(|error| panic!("{error:?}"));
}
