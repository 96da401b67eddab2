//! From directives to a plan.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::syntax::{Block as Written, Directive};
use super::{CorefileError, Environment, forward, plugins};
use crate::access::Access;
use crate::plan::{Autopath, Block, Plan};
use crate::wire::Name;
use crate::{CacheLimits, IndexOptions};

pub(super) type Outcome<T> = Result<T, CorefileError>;

/// What is gathered of one server block, and of all.
pub(super) struct Building<'a> {
    pub(super) environment: &'a Environment,
    /// As written, for those plugins that take them over.
    pub(super) zones: Vec<String>,
    pub(super) block: Block,
    pub(super) cache: CacheLimits,
    /// Zones of which no records, and no denials, are kept.
    pub(super) uncached: (Vec<Name>, Vec<Name>),
    pub(super) forwards: Vec<forward::Forward>,
    pub(super) index: &'a mut Option<IndexOptions>,
    pub(super) lameduck: &'a mut Duration,
    /// Where relative paths begin.
    pub(super) root: std::path::PathBuf,
}

/// No answer is kept: a block without `cache`.
const UNCACHED: CacheLimits = CacheLimits {
    capacity: 0,
    positive: 0,
    positive_min: 0,
    negative: 0,
    negative_min: 0,
    failure: 1,
    keep_ttl: false,
    prefetch: None,
    stale: None,
};

pub(super) fn build(written: &[Written], environment: &Environment) -> Outcome<(Plan, Option<IndexOptions>)> {
    let mut index = None;
    let mut lameduck = Duration::ZERO;
    let mut blocks: Vec<Arc<Block>> = Vec::new();
    for w in written {
        let zones = w.keys.iter().map(|k| zone_of_key(k, w.line)).collect::<Outcome<Vec<_>>>()?.concat();
        let names = zones.iter().map(|z| name(z, w.line)).collect::<Outcome<Vec<_>>>()?;
        let twice = names.iter().find(|n| blocks.iter().any(|b| b.zones.contains(n)));
        if let Some(twice) = twice {
            let text = format!("zone {twice:?} has a server block already: put both into one");
            return Err(CorefileError::new(w.line, text));
        }
        let mut building = Building {
            environment,
            zones,
            block: Block { zones: names, ..Block::default() },
            cache: UNCACHED,
            uncached: (Vec::new(), Vec::new()),
            forwards: Vec::new(),
            index: &mut index,
            lameduck: &mut lameduck,
            root: "/".into(),
        };
        let mut seen: Vec<(&str, usize)> = Vec::new();
        for directive in &w.directives {
            let name = directive.name.as_str();
            if let Some((_, line)) = seen.iter().find(|(n, _)| *n == name && !plugins::may_repeat(n)) {
                let text = format!("{name} stands in this block already, in line {line}");
                return Err(CorefileError::new(directive.line, text));
            }
            seen.push((name, directive.line));
            plugins::plugin(&mut building, directive)?;
        }
        blocks.push(Arc::new(building.finish()?));
    }
    let plan = Plan {
        access: Access::open(),
        version: concat!("eastwest-", env!("CARGO_PKG_VERSION")).to_owned(),
        node: environment.node.clone(),
        blocks,
        lameduck,
    };
    Ok((plan, index))
}

impl Building<'_> {
    fn finish(self) -> Outcome<Block> {
        let Self { environment, mut block, cache, uncached, forwards, .. } = self;
        for f in forwards {
            block.groups.push(f.group(cache, uncached.clone())?);
        }
        if block.kubernetes && block.autopath.is_none() && environment.autopath {
            let search = crate::plan::read_search(&environment.resolv_conf);
            block.autopath = Some(Autopath { pods: true, search, careful: true });
        }
        Ok(block)
    }
}

/// The zones of a server block's key: `ZONE`, `ZONE:53`, `dns://ZONE`, or an address range for its reverse zones.
fn zone_of_key(key: &str, line: usize) -> Outcome<Vec<String>> {
    let error = |text: String| Err(CorefileError::new(line, text));
    let rest = match key.split_once("://") {
        None => key,
        Some(("dns", rest)) => rest,
        Some(("tls", _)) => {
            return error(format!("{key}: DNS over TLS is switched on by --dns-tls-cert and --dns-tls-key"));
        }
        Some((scheme, _)) => {
            return error(format!(
                "{key}: {scheme} is not served; pods ask by UDP and TCP, make it {:?}",
                "."
            ));
        }
    };
    if let Ok(range) = rest.parse::<IpNet>() {
        return Ok(reverse_zones(range));
    }
    let zone = match rest.rsplit_once(':') {
        None => rest,
        Some((zone, "53")) => zone,
        Some((_, port)) => {
            return error(format!(
                "{key}: port 53 is what is served here, not {port}; write {rest:?} without it"
            ));
        }
    };
    let zone = if zone.is_empty() { "." } else { zone };
    match zone.parse::<IpNet>() {
        Ok(range) => Ok(reverse_zones(range)),
        Err(_) => Ok(vec![zone.to_owned()]),
    }
}

/// Zones that hold the reverse names of `range`; cut at whole labels, several where the range ends within one.
pub(super) fn reverse_zones(range: IpNet) -> Vec<String> {
    let range = range.trunc();
    let (unit, suffix) = if range.addr().is_ipv4() { (8, "in-addr.arpa") } else { (4, "ip6.arpa") };
    let length = range.prefix_len().div_ceil(unit) * unit;
    // At most 2^7 subnets: a range that ends within an octet.
    let subnets = range.subnets(length).map(|s| s.take(128).collect::<Vec<_>>()).unwrap_or_default();
    let zone = |net: IpNet| {
        let labels = usize::from(net.prefix_len() / unit);
        let digits: Vec<String> = match net.addr() {
            IpAddr::V4(ip) => ip.octets().iter().map(ToString::to_string).collect(),
            IpAddr::V6(ip) => {
                let nibble = |i: u32| format!("{:x}", u128::from(ip) >> (124 - 4 * i) & 15);
                (0..32).map(nibble).collect()
            }
        };
        let mut labels: Vec<&str> = digits.iter().take(labels).rev().map(String::as_str).collect();
        labels.push(suffix);
        labels.join(".")
    };
    subnets.into_iter().map(zone).collect()
}

pub(super) fn name(text: &str, line: usize) -> Outcome<Name> {
    Name::parse(text).ok_or_else(|| CorefileError::new(line, format!("{text:?} is not a DNS name")))
}

/// Zones of a plugin: those given, else those of `default`; an address range means its reverse zones.
pub(super) fn zones(given: &[String], default: &[Name], line: usize) -> Outcome<Vec<Name>> {
    if given.is_empty() {
        return Ok(default.to_vec());
    }
    let texts = given.iter().flat_map(|z| match z.parse::<IpNet>() {
        Ok(range) => reverse_zones(range),
        Err(_) => vec![z.clone()],
    });
    texts.map(|z| name(&z, line)).collect()
}

/// Go's durations: `1m30s`, `500ms`; a number alone is seconds.
pub(super) fn duration(text: &str, line: usize) -> Outcome<Duration> {
    let wrong = || CorefileError::new(line, format!("{text:?} is not a duration such as 5s, 1m30s or 500ms"));
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        let value = number.parse::<f64>().map_err(|_| wrong())? * seconds;
        total =
            Duration::try_from_secs_f64(value).ok().and_then(|d| total.checked_add(d)).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

pub(super) fn number<T: std::str::FromStr>(directive: &Directive, text: &str) -> Outcome<T> {
    let wrong = || format!("{}: {text:?} is not a number that fits here", directive.name);
    text.parse().map_err(|_| CorefileError::new(directive.line, wrong()))
}
