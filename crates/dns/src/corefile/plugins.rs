//! Each plugin of CoreDNS: what it sets here, or why it is refused.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::build::{Building, Outcome, duration, number, zones};
use super::{CorefileError, Directive, forward, records};
use crate::access::{Action, Rule};
use crate::cache::{Prefetch, Stale};
use crate::engine::Grant;
use crate::plan::{Autopath, Dns64, HeaderRule, Log};
use crate::wire::Name;
use crate::{CacheLimits, IndexOptions, PodMode};

/// Plugins that may stand more than once in a block.
pub(super) fn may_repeat(name: &str) -> bool {
    matches!(
        name,
        "acl" | "forward" | "header" | "hosts" | "rewrite" | "template" | "log" | "import" | "transfer"
    )
}

pub(super) fn plugin(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    match d.name.as_str() {
        "acl" => acl(b, d),
        "any" => none(d).map(|()| b.block.any = true),
        "autopath" => autopath(b, d),
        "bind" => bind(b, d),
        "bufsize" => bufsize(b, d),
        "cache" => cache(b, d),
        "cancel" => cancel(d),
        "chaos" => {
            let (version, authors) =
                d.args.split_first().map_or((None, Vec::new()), |(v, a)| (Some(v), a.to_vec()));
            let version =
                version.cloned().unwrap_or_else(|| concat!("eastwest-", env!("CARGO_PKG_VERSION")).into());
            b.block.chaos = Some((version, authors));
            Ok(())
        }
        "debug" | "metadata" => none(d),
        "dns64" => dns64(b, d),
        // Failures are counted and logged in any case.
        "errors" => Ok(()),
        "forward" => forward::forward(b, d),
        "header" => header(b, d),
        "health" => health(b, d),
        "hosts" => records::hosts(b, d),
        "kubernetes" => kubernetes(b, d),
        "loadbalance" => match &d.args[..] {
            [] => {
                b.block.loadbalance = true;
                Ok(())
            }
            [policy] if policy == "round_robin" && d.block.is_empty() => {
                b.block.loadbalance = true;
                Ok(())
            }
            _ => refuse(d, "only round_robin is done; weights are set with a TrafficSplit"),
        },
        "local" => none(d).map(|()| b.block.local = true),
        "log" => log(b, d),
        // Our own listeners are never asked as upstreams.
        "loop" => none(d),
        "minimal" => none(d).map(|()| b.block.minimal = true),
        // As many sockets as there are cores are open anyway.
        "multisocket" => Ok(()),
        "nsid" => {
            let id = if d.args.is_empty() { b.environment.node.clone() } else { d.args.join(" ") };
            b.block.nsid = Some(id.into_bytes());
            Ok(())
        }
        "prometheus" => {
            let metrics = b.environment.metrics;
            port(d, d.args.first(), metrics, 9153, "--dns-metrics-listen")
        }
        "ready" => {
            let ready = b.environment.ready;
            port(d, d.args.first(), ready, 8181, "--dns-ready-listen")
        }
        // The file is looked at every few seconds in any case, and at SIGHUP.
        "reload" => d.args.iter().try_for_each(|a| duration(a, d.line).map(drop)),
        "rewrite" => records::rewrite(b, d),
        "root" => match &d.args[..] {
            [path] => {
                b.root = path.into();
                Ok(())
            }
            _ => refuse(d, "needs a folder"),
        },
        "template" => records::template(b, d),
        "transfer" => transfer(b, d),
        "whoami" => none(d).map(|()| b.block.whoami = true),
        other => match instead(other) {
            Some(why) => refuse(d, why),
            None => refuse(d, &unheard_of(other)),
        },
    }
}

/// Plugins that are followed.
const FOLLOWED: [&str; 31] = [
    "acl",
    "any",
    "autopath",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "debug",
    "dns64",
    "errors",
    "forward",
    "header",
    "health",
    "hosts",
    "import",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nsid",
    "prometheus",
    "ready",
    "reload",
    "rewrite",
    "template",
    "transfer",
];

/// Of a name that no plugin has; with the one that was meant, perhaps.
fn unheard_of(name: &str) -> String {
    let near = FOLLOWED.iter().map(|f| (strsim::damerau_levenshtein(name, f), *f)).min();
    let meant =
        near.filter(|(distance, _)| *distance <= 2).map_or(String::new(), |(_, f)| format!(" (is it {f}?)"));
    format!("is no plugin of CoreDNS that is known here{meant}; docs/dns-plugins.md has them all")
}

/// What to do about a plugin that is not here.
fn instead(name: &str) -> Option<&'static str> {
    let why = match name {
        "auto" | "file" | "secondary" => {
            "zone files are not served; put the records into DnsRecord objects, or forward the zone to a server that has it"
        }
        "dnssec" | "sign" => "nothing is signed here; forward the zone to a server that signs it",
        "etcd" => "records of etcd are not served; put them into DnsRecord objects",
        "route53" | "azure" | "clouddns" | "nomad" => {
            "a cloud's zones are not mirrored; forward the zone to the cloud's resolver"
        }
        "grpc" | "https" | "quic" => "upstreams are asked by UDP, TCP and TLS: use forward",
        "k8s_external" => "external names are not made of Services; put them into DnsRecord objects",
        "tls" => "DNS over TLS is switched on by --dns-tls-cert and --dns-tls-key; remove it",
        "timeouts" => "time-outs are fixed: idle connections are closed after 10 s; remove it",
        "dnstap" => "dnstap is not written; use log",
        "erratic" => "it is for tests; remove it",
        "geoip" | "view" => "answers do not depend on where a client is; use acl, or a block for each zone",
        "pprof" | "trace" => "there is no such interface; metrics are at --dns-metrics-listen; remove it",
        "tsig" => "signed queries are not checked; use acl",
        "on" | "ondemand" => "no program is started; remove it",
        _ => return None,
    };
    Some(why)
}

pub(super) fn refuse<T>(d: &Directive, why: &str) -> Outcome<T> {
    Err(CorefileError::new(d.line, format!("{}: {why}", d.name)))
}

/// A plugin without options.
fn none(d: &Directive) -> Outcome<()> {
    if d.args.is_empty() && d.block.is_empty() { Ok(()) } else { refuse(d, "takes no options") }
}

/// An option that is not known, of plugin `p`.
pub(super) fn unknown<T>(p: &str, o: &Directive) -> Outcome<T> {
    Err(CorefileError::new(o.line, format!("{p}: {} is no option that is known here", o.name)))
}

pub(super) fn one<'a>(p: &str, o: &'a Directive) -> Outcome<&'a str> {
    match &o.args[..] {
        [value] => Ok(value),
        _ => Err(CorefileError::new(o.line, format!("{p}: {} needs one value", o.name))),
    }
}

/// A listener that the agent has by its own setting.
fn port(d: &Directive, address: Option<&String>, ours: u16, usual: u16, flag: &str) -> Outcome<()> {
    let port =
        address.and_then(|a| a.rsplit_once(':')).map(|(_, p)| number(d, p)).transpose()?.unwrap_or(usual);
    if port == ours {
        return Ok(());
    }
    let text = format!(
        "port {port} is not what the agent listens on ({ours}); set {flag} to it, or remove the address"
    );
    refuse(d, &text)
}

fn health(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    port(d, d.args.first(), b.environment.health, 8080, "--dns-health-listen")?;
    for o in &d.block {
        match o.name.as_str() {
            "lameduck" => *b.lameduck = duration(one("health", o)?, o.line)?,
            _ => return unknown("health", o),
        }
    }
    Ok(())
}

fn bind(b: &Building<'_>, d: &Directive) -> Outcome<()> {
    if let Some(o) = d.block.first() {
        return unknown("bind", o);
    }
    for address in &d.args {
        let ours = address.parse::<IpAddr>().is_ok_and(|ip| b.environment.listen.contains(&ip));
        if !ours {
            let listen: Vec<String> = b.environment.listen.iter().map(ToString::to_string).collect();
            let text = format!(
                "{address} is not listened on (that is {}); set --cluster-dns or --node-local-dns",
                listen.join(", ")
            );
            return refuse(d, &text);
        }
    }
    Ok(())
}

fn bufsize(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let size: u16 = d.args.first().map_or(Ok(1232), |s| number(d, s))?;
    if !(512..=4096).contains(&size) {
        return refuse(d, "is 512 to 4096");
    }
    b.block.bufsize = Some(size);
    Ok(())
}

fn cancel(d: &Directive) -> Outcome<()> {
    // Two attempts of 2 s each are the most that a query takes.
    match d.args.first().map(|t| duration(t, d.line)).transpose()? {
        Some(t) if t < Duration::from_secs(4) => refuse(d, "a query ends after 4 s, not sooner; remove it"),
        _ => Ok(()),
    }
}

fn log(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    if !d.args.is_empty() && d.args.iter().any(|a| a != ".") {
        return refuse(
            d,
            "the block's zones are logged, in the form of the agent's own log; remove names and format",
        );
    }
    let sample = b.environment.log_sample;
    let all = |yes| Log { success: yes, denial: yes, error: yes, sample };
    let mut log = all(d.block.is_empty());
    for o in &d.block {
        if o.name != "class" {
            return unknown("log", o);
        }
        for class in &o.args {
            match class.as_str() {
                "all" => log = all(true),
                "success" => log.success = true,
                "denial" => log.denial = true,
                "error" => log.error = true,
                _ => return refuse(o, "is all, success, denial or error"),
            }
        }
    }
    b.block.log = Some(log);
    Ok(())
}

fn transfer(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let mut to = Some(Vec::new());
    for o in &d.block {
        match o.name.as_str() {
            "to" if o.args.is_empty() => return refuse(o, "needs addresses, or *"),
            "to" => {
                for word in &o.args {
                    if word == "*" {
                        to = None;
                        continue;
                    }
                    // The port is that of NOTIFY, which neither CoreDNS nor we send for the cluster's zones.
                    let ip = word.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| word.parse::<IpAddr>());
                    let wrong = || CorefileError::new(o.line, format!("transfer: {word:?} is no address"));
                    let ip = ip.map_err(|_| wrong())?;
                    to.iter_mut().for_each(|to| to.push(ip));
                }
            }
            "source" => {
                let wrong = || CorefileError::new(o.line, "transfer: source needs an address".to_owned());
                one("transfer", o)?.parse::<IpAddr>().map_err(|_| wrong())?;
            }
            _ => return unknown("transfer", o),
        }
    }
    if to.as_ref().is_some_and(Vec::is_empty) {
        return refuse(d, "needs to, and who may have the zones");
    }
    let zones = zones(&d.args, &b.block.zones, d.line)?;
    b.block.transfer.push(Grant { zones, to });
    Ok(())
}

fn acl(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let zones = zones(&d.args, &b.block.zones, d.line)?;
    for o in &d.block {
        let action = match o.name.as_str() {
            "allow" => Action::Allow,
            "block" => Action::Block,
            "filter" => Action::Filter,
            "drop" => Action::Drop,
            _ => return unknown("acl", o),
        };
        let mut rule = Rule { zones: zones.clone(), action, types: Vec::new(), sources: Vec::new() };
        let mut section = "";
        let mut all = (false, false);
        for word in &o.args {
            match (word.as_str(), section) {
                ("type" | "net", _) => section = word,
                ("*", "type") => all.0 = true,
                ("*", "net") => all.1 = true,
                (word, "type") => rule.types.push(qtype(word, o)?),
                (word, "net") => {
                    let net = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
                    let wrong = || CorefileError::new(o.line, format!("acl: {word:?} is no address range"));
                    rule.sources.push(net.map_err(|_| wrong())?);
                }
                _ => return refuse(o, "is followed by type TYPES and net RANGES"),
            }
        }
        if all.0 {
            rule.types.clear();
        }
        if all.1 {
            rule.sources.clear();
        }
        b.block.acl.push(rule);
    }
    Ok(())
}

pub(super) fn qtype(text: &str, d: &Directive) -> Outcome<u16> {
    use std::str::FromStr;
    let known = hickory_proto::rr::RecordType::from_str(&text.to_ascii_uppercase()).ok().map(u16::from);
    let number = text.to_ascii_uppercase().strip_prefix("TYPE").and_then(|n| n.parse().ok());
    let wrong = || CorefileError::new(d.line, format!("{}: {text:?} is no record type", d.name));
    known.or(number).ok_or_else(wrong)
}

fn autopath(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let Some((how, _)) = d.args.split_last() else { return refuse(d, "needs @kubernetes or a resolv.conf") };
    let pods = match how.as_str() {
        "@kubernetes" => true,
        at if at.starts_with('@') => return refuse(d, "only @kubernetes knows search lists here"),
        _ => false,
    };
    let path = if pods || how == "/etc/resolv.conf" { &b.environment.resolv_conf } else { Path::new(how) };
    let search = crate::plan::read_search(path);
    if !pods && search.is_empty() {
        return refuse(d, &format!("{how}: no search list is in it"));
    }
    b.block.autopath = Some(Autopath { pods, search, careful: false });
    Ok(())
}

fn cache(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let mut limits = CacheLimits {
        positive: 3600,
        positive_min: 5,
        negative: 1800,
        negative_min: 5,
        failure: 5,
        stale: None,
        ..CacheLimits::default()
    };
    let mut args = &d.args[..];
    if let Some(ttl) = args.first().and_then(|a| a.parse::<u32>().ok()) {
        (limits.positive, limits.negative) = (ttl, ttl);
        args = &args[1..];
    }
    whole(b, d, args)?;
    for o in &d.block {
        match o.name.as_str() {
            "success" | "denial" => {
                let (most, least) = match o.name.as_str() {
                    "success" => (&mut limits.positive, &mut limits.positive_min),
                    _ => (&mut limits.negative, &mut limits.negative_min),
                };
                // The first is a number of entries: what bounds this cache is memory.
                let _: u64 = o.args.first().map_or(refuse(o, "needs a capacity"), |c| number(o, c))?;
                if let Some(ttl) = o.args.get(1) {
                    *most = number(o, ttl)?;
                }
                if let Some(ttl) = o.args.get(2) {
                    *least = number(o, ttl)?;
                }
            }
            "prefetch" => {
                let hits = number(
                    o,
                    one("cache", &Directive { args: o.args.iter().take(1).cloned().collect(), ..o.clone() })?,
                )?;
                o.args.get(1).map(|t| duration(t, o.line)).transpose()?;
                let percent = o.args.get(2).map(|p| number::<u32>(o, p.trim_end_matches('%'))).transpose()?;
                let percent = percent.unwrap_or(10);
                if !(10..=90).contains(&percent) {
                    return refuse(o, "the percentage is 10% to 90%");
                }
                limits.prefetch = Some(Prefetch { hits, percent });
            }
            "serve_stale" => {
                let longest =
                    o.args.first().map_or(Ok(Duration::from_secs(3600)), |t| duration(t, o.line))?;
                let verify = match o.args.get(1).map(String::as_str) {
                    None | Some("immediate") => false,
                    Some("verify") => true,
                    Some(_) => return refuse(o, "the refresh mode is immediate or verify"),
                };
                limits.stale = Some(Stale { longest: longest.as_secs().min(604_800) as u32, verify });
            }
            "servfail" => {
                let t = duration(one("cache", o)?, o.line)?;
                if t > Duration::from_secs(300) {
                    return refuse(o, "is at most 5m (RFC 9520)");
                }
                limits.failure = t.as_secs() as u32;
            }
            "disable" => {
                let Some((what, zones)) = o.args.split_first() else {
                    return refuse(o, "needs success or denial");
                };
                let names = super::build::zones(zones, &b.block.zones, o.line)?;
                match what.as_str() {
                    "success" => b.uncached.0.extend(names),
                    "denial" => b.uncached.1.extend(names),
                    _ => return refuse(o, "is success or denial"),
                }
            }
            "keepttl" => limits.keep_ttl = true,
            _ => return unknown("cache", o),
        }
    }
    limits.positive_min = limits.positive_min.min(limits.positive);
    limits.negative_min = limits.negative_min.min(limits.negative);
    b.cache = limits;
    Ok(())
}

/// A cache is for the whole block: zones may be named, but all of them must be.
fn whole(b: &Building<'_>, d: &Directive, given: &[String]) -> Outcome<()> {
    let given = zones(given, &b.block.zones, d.line)?;
    match b.block.zones.iter().all(|z| given.iter().any(|g| z.below(g).is_some())) {
        true => Ok(()),
        false => refuse(d, "holds for the whole block; give those zones a server block of their own"),
    }
}

fn dns64(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let mut dns64 = Dns64 {
        prefix: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        translate_all: false,
        allow_ipv4: false,
    };
    let mut prefix = |text: &str| match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) if net.prefix_len() == 96 => {
            dns64.prefix = net.trunc().addr();
            Ok(())
        }
        _ => refuse(d, &format!("{text:?}: the prefix is IPv6 and of length 96")),
    };
    match &d.args[..] {
        [] => {}
        [text] => prefix(text)?,
        _ => return refuse(d, "takes one prefix"),
    }
    for o in d.block.iter().filter(|o| o.name == "prefix") {
        prefix(one("dns64", o)?)?;
    }
    for o in d.block.iter().filter(|o| o.name != "prefix") {
        match o.name.as_str() {
            "translate_all" => dns64.translate_all = true,
            "allow_ipv4" => dns64.allow_ipv4 = true,
            _ => return unknown("dns64", o),
        }
    }
    b.block.dns64 = Some(dns64);
    Ok(())
}

fn header(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    for o in &d.block {
        // `response set aa`; the older form leaves `response` out.
        let words: Vec<&str> =
            std::iter::once(o.name.as_str()).chain(o.args.iter().map(String::as_str)).collect();
        let (set, flags) = match words[..] {
            ["response" | "set" | "clear", ..] if words.len() < 2 => return unknown("header", o),
            ["response", "set", ..] => (true, &words[2..]),
            ["response", "clear", ..] => (false, &words[2..]),
            ["set", ..] => (true, &words[1..]),
            ["clear", ..] => (false, &words[1..]),
            ["query", ..] => return refuse(o, "only responses are changed"),
            _ => return unknown("header", o),
        };
        for flag in flags {
            let (byte, bit) = match *flag {
                "aa" => (2, 4),
                "rd" => (2, 1),
                "ra" => (3, 0x80),
                _ => return refuse(o, "flags are aa, ra and rd"),
            };
            b.block.header.push(HeaderRule { set, byte, bit });
        }
    }
    Ok(())
}

/// Zones in which others may know; all, when none is named.
pub(super) fn fallthrough(o: &Directive) -> Outcome<Vec<Name>> {
    zones(&o.args, &[Name::root()], o.line)
}

fn kubernetes(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let given = if d.args.is_empty() { b.zones.clone() } else { d.args.clone() };
    let mut all: Vec<String> = Vec::new();
    for zone in &given {
        match zone.parse::<IpNet>() {
            Ok(range) => all.extend(super::build::reverse_zones(range)),
            Err(_) => all.push(zone.clone()),
        }
    }
    let is_reverse = |z: &String| {
        let z = z.trim_end_matches('.').to_ascii_lowercase();
        ["in-addr.arpa", "ip6.arpa"].iter().any(|a| z == *a || z.ends_with(&format!(".{a}")))
    };
    let (reverse, zones): (Vec<String>, Vec<String>) = all.into_iter().partition(is_reverse);
    let mut options = IndexOptions {
        zones,
        reverse,
        fallthrough: Vec::new(),
        ns_addresses: b.environment.ns_addresses.clone(),
        pods: PodMode::Disabled,
        ..IndexOptions::default()
    };
    for o in &d.block {
        match o.name.as_str() {
            "pods" => {
                options.pods = match one("kubernetes", o)? {
                    "disabled" => PodMode::Disabled,
                    "insecure" => PodMode::Insecure,
                    "verified" => PodMode::Verified,
                    _ => return refuse(o, "is disabled, insecure or verified"),
                };
            }
            // Looked at by Corefile::pod_names.
            "endpoint_pod_names" => {}
            "ttl" => {
                options.ttl = number(o, one("kubernetes", o)?)?;
                if options.ttl > 3600 {
                    return refuse(o, "is 0 to 3600");
                }
            }
            "namespaces" => options.namespaces.extend(o.args.iter().cloned()),
            "fallthrough" if o.args.is_empty() => options.fallthrough.push(".".into()),
            "fallthrough" => options.fallthrough.extend(o.args.iter().cloned()),
            "noendpoints" if o.args.is_empty() => options.no_endpoints = true,
            "ignore" if o.args == ["empty_service"] => options.ignore_empty = true,
            "endpoint" | "kubeconfig" | "tls" => {
                return refuse(
                    o,
                    "Services are learnt from eastwest's controller (--kubeconfig); remove the line",
                );
            }
            "labels" | "namespace_labels" => {
                return refuse(o, "Services are not chosen by labels; use namespaces");
            }
            "multicluster" => return refuse(o, "ServiceImports are not followed; remove the line"),
            "zonal" => {
                return refuse(o, "names do not depend on the zone; set trafficDistribution on the Service");
            }
            "startup_timeout" | "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" => {
                return refuse(o, "the agent does not watch the API server; remove the line");
            }
            _ => return unknown("kubernetes", o),
        }
    }
    b.block.kubernetes = true;
    match &mut *b.index {
        None => *b.index = Some(options),
        // As NodeLocal DNSCache's file has it: a block for each zone.
        Some(known) => {
            let same = known.ttl == options.ttl
                && known.pods == options.pods
                && known.namespaces == options.namespaces
                && known.ignore_empty == options.ignore_empty
                && known.no_endpoints == options.no_endpoints;
            if !same {
                return refuse(
                    d,
                    "stands in another block with other options: there is one cluster; make them the same",
                );
            }
            known.zones.extend(options.zones);
            known.reverse.extend(options.reverse);
            known.fallthrough.extend(options.fallthrough);
        }
    }
    Ok(())
}
