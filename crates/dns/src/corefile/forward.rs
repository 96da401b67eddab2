//! `forward`: who is asked what the cluster does not know.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;

use super::build::{Building, Outcome, duration, name, number, zones};
use super::{CorefileError, Directive};
use crate::CacheLimits;
use crate::forward::{Group, GroupOptions, Policy};
use crate::upstream::{Manner, Tls, connector};
use crate::wire::Name;

/// A `forward` as written; its cache is known when the block has been read.
pub(super) struct Forward {
    line: usize,
    options: GroupOptions,
    fixed: Vec<Target>,
    tls_name: Option<String>,
    authorities: Option<PathBuf>,
}

struct Target {
    addr: SocketAddr,
    tls: bool,
    /// The name of its certificate.
    name: Option<String>,
}

/// Upstreams of one `forward`, as CoreDNS has it.
const UPSTREAMS: usize = 15;

impl Forward {
    pub(super) fn group(self, cache: CacheLimits, uncached: (Vec<Name>, Vec<Name>)) -> Outcome<Arc<Group>> {
        let Self { line, options, fixed, tls_name, authorities } = self;
        let wrong = |text: String| CorefileError::new(line, format!("forward: {text}"));
        let tls = match fixed.iter().any(|t| t.tls) {
            true => Some(connector(authorities.as_deref()).map_err(|e| wrong(e.to_string()))?),
            false => None,
        };
        let mut upstreams = Vec::new();
        for target in fixed {
            let tls = match tls.as_ref().filter(|_| target.tls) {
                None => None,
                Some(connector) => {
                    let given = target.name.as_ref().or(tls_name.as_ref());
                    let name = match given {
                        Some(name) => ServerName::try_from(name.clone())
                            .map_err(|_| wrong(format!("{name:?} is no name of a certificate")))?,
                        None => ServerName::IpAddress(target.addr.ip().into()),
                    };
                    Some(Tls { connector: connector.clone(), name })
                }
            };
            upstreams.push((target.addr, tls));
        }
        Ok(Group::with(GroupOptions { cache, uncached, ..options }, upstreams))
    }
}

pub(super) fn forward(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let error = |text: String| Err(CorefileError::new(d.line, format!("forward: {text}")));
    let Some((from, to)) = d.args.split_first().filter(|(_, to)| !to.is_empty()) else {
        return error("needs the zone and at least one upstream: forward . /etc/resolv.conf".into());
    };
    let from = zones(std::slice::from_ref(from), &[], d.line)?;
    let mut forward = Forward {
        line: d.line,
        options: GroupOptions {
            policy: Policy::Random,
            manner: Manner { tcp: false, expire: Duration::from_secs(10), mixed_case: true },
            ..GroupOptions::default()
        },
        fixed: Vec::new(),
        tls_name: None,
        authorities: None,
    };
    for to in to {
        if to.starts_with('/') {
            let path = PathBuf::from(to);
            let of_node = to == "/etc/resolv.conf";
            forward.options.files.push(if of_node { b.environment.resolv_conf.clone() } else { path });
        } else {
            forward.fixed.push(target(to, d.line)?);
        }
    }
    if forward.fixed.len() > UPSTREAMS {
        return error(format!("at most {UPSTREAMS} upstreams"));
    }
    for o in &d.block {
        option(&mut forward, o)?;
    }
    // One group for each zone of a range; they share everything else.
    for from in from {
        b.forwards.push(Forward {
            line: forward.line,
            options: GroupOptions { from, ..forward.options.clone() },
            fixed: forward
                .fixed
                .iter()
                .map(|t| Target { addr: t.addr, tls: t.tls, name: t.name.clone() })
                .collect(),
            tls_name: forward.tls_name.clone(),
            authorities: forward.authorities.clone(),
        });
    }
    Ok(())
}

/// `IP`, `IP:PORT`, `[IP]:PORT`, each with `dns://` or `tls://`, and for TLS `%NAME` of the certificate.
fn target(text: &str, line: usize) -> Outcome<Target> {
    let error = |why: &str| Err(CorefileError::new(line, format!("forward: {text}: {why}")));
    let (tls, rest) = match text.split_once("://") {
        None => (false, text),
        Some(("dns", rest)) => (false, rest),
        Some(("tls", rest)) => (true, rest),
        Some(_) => return error("upstreams are asked by UDP, TCP and TLS; use an IP address, or tls://IP"),
    };
    let (rest, name) = match rest.split_once('%') {
        Some((rest, name)) if tls => (rest, Some(name.to_owned())),
        _ => (rest, None),
    };
    let port = if tls { 853 } else { 53 };
    let addr = rest.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)).or_else(|_| rest.parse());
    match addr {
        Ok(addr) => Ok(Target { addr, tls, name }),
        Err(_) => error("an upstream is an IP address, with a port if it is not the usual one, or a file"),
    }
}

fn option(forward: &mut Forward, o: &Directive) -> Outcome<()> {
    let error = |text: &str| Err(CorefileError::new(o.line, format!("forward: {}: {text}", o.name)));
    let options = &mut forward.options;
    let arg = || match &o.args[..] {
        [arg] => Ok(arg.as_str()),
        _ => error("needs one value").map(|()| ""),
    };
    match o.name.as_str() {
        "except" => {
            options.except.extend(o.args.iter().map(|z| name(z, o.line)).collect::<Outcome<Vec<Name>>>()?);
        }
        "force_tcp" => options.manner.tcp = true,
        // What is asked here goes by UDP unless told otherwise, however the client came.
        "prefer_udp" => {}
        "expire" => options.manner.expire = duration(arg()?, o.line)?,
        "max_fails" => options.max_fails = number(o, arg()?)?,
        "max_concurrent" => options.max_concurrent = number(o, arg()?)?,
        "failfast_all_unhealthy_upstreams" => options.failfast = true,
        "policy" => {
            options.policy = match arg()? {
                "random" => Policy::Random,
                "round_robin" => Policy::RoundRobin,
                "sequential" => Policy::Sequential,
                _ => return error("is random, round_robin or sequential"),
            };
        }
        "health_check" => {
            let Some((every, more)) = o.args.split_first() else { return error("needs a duration") };
            options.health_check = duration(every, o.line)?;
            let mut more = more.iter();
            while let Some(word) = more.next() {
                match (word.as_str(), more.as_slice().first()) {
                    ("no_rec", _) => {
                        return error("no_rec is not done: upstreams here are resolvers; remove it");
                    }
                    ("domain", Some(zone)) => {
                        options.health_domain = name(zone, o.line)?;
                        more.next();
                    }
                    _ => return error("after the duration comes domain NAME"),
                }
            }
        }
        "tls_servername" => forward.tls_name = Some(arg()?.to_owned()),
        "tls" => match &o.args[..] {
            [] => {}
            [authorities] => forward.authorities = Some(authorities.into()),
            _ => {
                return error(
                    "certificates of our own are not shown to upstreams; give the authorities' file alone",
                );
            }
        },
        "max_idle_conns" | "max_connect_attempts" | "max_age" | "next" | "failover" | "doh_method" => {
            return error(
                "is not known here; remove the line: attempts are 2, idle connections 32 an upstream",
            );
        }
        _ => return error("is no option of it"),
    }
    Ok(())
}
