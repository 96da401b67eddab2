//! From where and to where, in words.

use std::net::IpAddr;
use std::str::FromStr;

use eastwest_model::Protocol;

/// A client.
#[derive(Debug, PartialEq, Eq)]
pub enum Who {
    Pod { namespace: String, name: String },
    Node(String),
    Outside(Option<IpAddr>),
}

/// A target.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub protocol: Protocol,
    pub host: String,
    pub port: u16,
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Outside(Some(ip)));
        }
        let address = |ip: &str| ip.parse().map_err(|_| format!("{ip:?} is no IP address"));
        match text.split('/').collect::<Vec<_>>()[..] {
            ["client"] => Ok(Self::Outside(None)),
            ["client", ip] => Ok(Self::Outside(Some(address(ip)?))),
            ["node" | "nodes" | "no", name] if !name.is_empty() => Ok(Self::Node(name.into())),
            ["pod" | "pods" | "po" | "workload" | "workloads" | "wl", ref rest @ ..] => match *rest {
                [name] if !name.is_empty() => {
                    Ok(Self::Pod { namespace: "default".into(), name: name.into() })
                }
                [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                    Ok(Self::Pod { namespace: namespace.into(), name: name.into() })
                }
                _ => Err(format!("{text:?} is not pod/NAMESPACE/NAME")),
            },
            _ => Err(format!("{text:?} is none of pod/NAMESPACE/NAME, node/NAME, client, client/ADDRESS")),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let protocol = match scheme {
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            "sctp" => Protocol::SCTP,
            _ => return Err(format!("{scheme:?} is none of tcp, udp, sctp")),
        };
        let wrong = || format!("{text:?} is not tcp://HOST:PORT; an IPv6 HOST stands in brackets");
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bare {
            Some(ip) if ip.contains(':') => ip,
            None if !host.is_empty() && !host.contains([':', '/', '[']) => host,
            _ => return Err(wrong()),
        };
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
        Ok(Self { protocol, host: host.to_ascii_lowercase(), port })
    }
}

/// The Services (namespace, name) that a name may mean, in the order of a pod's search list.
pub fn services<'a>(host: &'a str, namespace: &'a str, zone: &str) -> Vec<(&'a str, &'a str)> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let relative = host.strip_suffix(zone).and_then(|h| h.strip_suffix('.'));
    match relative.unwrap_or(host).split('.').collect::<Vec<_>>()[..] {
        [name] if relative.is_none() => vec![(namespace, name)],
        [name, namespace] if relative.is_none() => vec![(namespace, name)],
        [name, namespace, "svc"] => vec![(namespace, name)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients() {
        let pod =
            |namespace: &str, name: &str| Some(Who::Pod { namespace: namespace.into(), name: name.into() });
        for (text, wanted) in [
            ("pod/default/a", pod("default", "a")),
            ("pod/a", pod("default", "a")),
            ("wl/x/a", pod("x", "a")),
            ("node/n1", Some(Who::Node("n1".into()))),
            ("client", Some(Who::Outside(None))),
            ("client/192.0.2.1", Some(Who::Outside("192.0.2.1".parse().ok()))),
            ("2001:db8::1", Some(Who::Outside("2001:db8::1".parse().ok()))),
            ("client/x", None),
            ("pod/", None),
            ("pod/a/b/c", None),
            ("svc/a", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Who>().ok(), wanted, "{text:?}");
        }
    }

    #[test]
    fn targets() {
        let target = |protocol, host: &str, port| Some(Target { protocol, host: host.into(), port });
        for (text, wanted) in [
            ("tcp://web.default:80", target(Protocol::TCP, "web.default", 80)),
            ("WEB:80", target(Protocol::TCP, "web", 80)),
            ("udp://10.96.0.10:53", target(Protocol::UDP, "10.96.0.10", 53)),
            ("sctp://[fd00::1]:9", target(Protocol::SCTP, "fd00::1", 9)),
            ("http://web:80", None),
            ("web", None),
            ("web:0", None),
            ("web:99999", None),
            ("fd00::1:80", None),
            ("[web]:80", None),
            (":80", None),
        ] {
            assert_eq!(text.parse::<Target>().ok(), wanted, "{text:?}");
        }
    }

    #[test]
    fn names() {
        for (host, wanted) in [
            ("web", vec![("ns", "web")]),
            ("web.other", vec![("other", "web")]),
            ("web.other.svc", vec![("other", "web")]),
            ("web.other.svc.cluster.local.", vec![("other", "web")]),
            ("web.cluster.local", vec![]),
            ("a.web.other.svc.cluster.local", vec![]),
            ("example.com.", vec![("com", "example")]),
        ] {
            assert_eq!(services(host, "ns", "cluster.local"), wanted, "{host}");
        }
    }
}
