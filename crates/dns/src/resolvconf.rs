//! Upstreams from a resolv.conf file (resolv.conf(5)), followed as it changes.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Forwarder;

/// The `nameserver` lines, in their order. A link-local IPv6 address may name its interface (`fe80::1%eth0`).
/// What cannot be read is left out.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        if fields.next() != Some("nameserver") {
            continue;
        }
        let server = fields.next().and_then(|address| match address.split_once('%') {
            None => address.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)),
            Some((ip, interface)) => {
                let ip = ip.parse::<Ipv6Addr>().ok()?;
                let scope = interface.parse().ok().or_else(|| interface_index(interface))?;
                Some(SocketAddrV6::new(ip, 53, 0, scope).into())
            }
        });
        match server {
            Some(server) if !servers.contains(&server) => servers.push(server),
            Some(_) => {}
            None => tracing::warn!(line, "resolv.conf: no address that can be used"),
        }
    }
    servers
}

fn interface_index(name: &str) -> Option<u32> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// Reads `path` into `forwarder`'s upstreams.
///
/// # Errors
/// The file cannot be read; the upstreams stay as they were.
pub fn load_resolv_conf(path: &Path, forwarder: &Forwarder) -> io::Result<()> {
    forwarder.set_upstreams(parse_resolv_conf(&std::fs::read_to_string(path)?));
    Ok(())
}

/// Keeps `forwarder`'s upstreams as `path` has them, looking every `period`; never ends. By polling: the file is
/// replaced, bind-mounted and rewritten in place by those who own it, and no one watch sees all three.
pub async fn follow_resolv_conf(path: &Path, forwarder: Arc<Forwarder>, period: Duration) {
    let mut last: Option<Result<String, io::ErrorKind>> = None;
    loop {
        let now = tokio::fs::read_to_string(path).await.map_err(|e| e.kind());
        if last.as_ref() != Some(&now) {
            match &now {
                Ok(text) => forwarder.set_upstreams(parse_resolv_conf(text)),
                Err(kind) => {
                    tracing::warn!(path = %path.display(), %kind, "resolv.conf cannot be read; upstreams stay");
                }
            }
            last = Some(now);
        }
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_of_resolv_conf() {
        let text = "# nameserver 9.9.9.9\nsearch a.test\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # second\n\
                    nameserver 192.0.2.1\nnameserver nonsense\nnameserver fe80::1%2\nnameserver fe80::1%no/such\noptions ndots:5\n";
        let expected: Vec<SocketAddr> = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%2]:53"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        assert_eq!(parse_resolv_conf(text), expected);
        assert_eq!(parse_resolv_conf(""), []);
    }
}
