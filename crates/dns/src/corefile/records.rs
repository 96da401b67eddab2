//! Plugins that make answers themselves: `hosts`, `rewrite`, `template`.

use std::net::IpAddr;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use regex::Regex;

use super::build::{Building, Outcome, duration, number, zones};
use super::plugins::{fallthrough, one, qtype, refuse, unknown};
use super::{CorefileError, Directive};
use crate::hosts::{Hosts, Table};
use crate::rewrite::{Matcher, Rewrite, What};
use crate::template::{Template, Text};
use crate::wire::encode_name;

pub(super) fn hosts(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let mut hosts = Hosts {
        zones: zones(d.args.get(1..).unwrap_or_default(), &b.block.zones, d.line)?,
        file: d.args.first().map(|f| b.root.join(f)),
        inline: String::new(),
        ttl: 3600,
        reverse: true,
        fallthrough: Vec::new(),
        table: ArcSwap::default(),
    };
    for o in &d.block {
        match o.name.as_str() {
            "ttl" => hosts.ttl = number(o, one("hosts", o)?)?,
            "no_reverse" => hosts.reverse = false,
            "reload" => drop(duration(one("hosts", o)?, o.line)?),
            "fallthrough" => hosts.fallthrough = fallthrough(o)?,
            address if address.parse::<IpAddr>().is_ok() && !o.args.is_empty() => {
                hosts.inline.push_str(&format!("{address} {}\n", o.args.join(" ")));
            }
            _ => return unknown("hosts", o),
        }
    }
    if hosts.file.is_none() && hosts.inline.is_empty() {
        hosts.file = Some("/etc/hosts".into());
    }
    hosts.table = ArcSwap::from_pointee(Table::parse([hosts.inline.as_str()]));
    hosts.load();
    b.block.hosts.push(hosts);
    Ok(())
}

fn regex(text: &str, d: &Directive) -> Outcome<Regex> {
    Regex::new(text).map_err(|e| {
        let e = e.to_string();
        let last = e.lines().last().unwrap_or_default().to_owned();
        CorefileError::new(d.line, format!("{}: {text:?}: {last}", d.name))
    })
}

fn matcher(kind: &str, from: &str, d: &Directive) -> Outcome<Matcher> {
    let dotted = |text: &str| format!("{}.", text.trim_end_matches('.')).to_ascii_lowercase();
    Ok(match kind {
        "exact" => Matcher::Exact(dotted(from)),
        "prefix" => Matcher::Prefix(from.to_ascii_lowercase()),
        "suffix" => Matcher::Suffix(dotted(from)),
        "substring" => Matcher::Substring(from.to_ascii_lowercase()),
        _ => Matcher::Regex(regex(from, d)?),
    })
}

pub(super) fn rewrite(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let mut words: Vec<&str> = d.args.iter().map(String::as_str).collect();
    let mut answers = Vec::new();
    for o in &d.block {
        let mut own: Vec<&str> = vec![&o.name];
        own.extend(o.args.iter().map(String::as_str));
        match own[..] {
            ["answer", ..] => answers.push(own),
            _ => words.extend(own),
        }
    }
    let goes_on = words.first() == Some(&"continue");
    if matches!(words.first(), Some(&("continue" | "stop"))) {
        words.remove(0);
    }
    const KINDS: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];
    let what = match words[..] {
        ["type", from, to] => What::Type { from: qtype(from, d)?, to: qtype(to, d)? },
        ["class", from, to] => {
            if !(from.eq_ignore_ascii_case("IN") && to.eq_ignore_ascii_case("IN")) {
                return refuse(d, "only class IN is served; remove the rule");
            }
            What::Class { from: 1, to: 1 }
        }
        ["ttl", ..] => {
            let rest = &words[1..];
            let (kind, rest) = match rest.split_first() {
                Some((kind, more)) if KINDS.contains(kind) => (*kind, more),
                _ => ("exact", rest),
            };
            let [from, ttl] = rest else {
                return refuse(d, "ttl needs a name and seconds, or a range of them");
            };
            let (least, most) = ttl.split_once('-').unwrap_or((ttl, ttl));
            let least = if least.is_empty() { 0 } else { number(d, least)? };
            let most = if most.is_empty() { u32::MAX >> 1 } else { number(d, most)? };
            if least > most {
                return refuse(d, "the least TTL comes first");
            }
            What::Ttl { matcher: matcher(kind, from, d)?, from: least, to: most }
        }
        ["name", ..] => {
            let rest = &words[1..];
            let (kind, rest) = match rest.split_first() {
                Some((kind, more)) if KINDS.contains(kind) => (*kind, more),
                _ => ("exact", rest),
            };
            let Some(([from, to], more)) = rest.split_first_chunk::<2>() else {
                return refuse(d, "name needs what is asked and what it becomes");
            };
            if !more.is_empty() {
                answers.push(more.to_vec());
            }
            let to = match kind {
                "exact" | "suffix" => format!("{}.", to.trim_end_matches('.')),
                _ => (*to).to_owned(),
            };
            if kind == "exact" && encode_name(&to).is_none() {
                return refuse(d, &format!("{to:?} is not a DNS name"));
            }
            let mut rules = Vec::new();
            for answer in answers {
                match answer[..] {
                    // The answer is under the name that was asked in any case.
                    ["answer", "auto"] => {}
                    ["answer", "name", from, to] => rules.push((regex(from, d)?, to.to_owned())),
                    ["answer", "value", ..] => {
                        return refuse(d, "answer value is not done: names within records stay");
                    }
                    _ => return refuse(d, "after the names comes answer auto, or answer name REGEX NAME"),
                }
            }
            What::Name { matcher: matcher(kind, from, d)?, to: to.to_ascii_lowercase(), answers: rules }
        }
        ["edns0" | "cname" | "rcode", ..] => {
            return refuse(d, "name, type, class and ttl are rewritten; use template for an alias");
        }
        _ => return refuse(d, "is followed by name, type, class or ttl"),
    };
    b.block.rewrite.push(Rewrite { what, goes_on });
    Ok(())
}

pub(super) fn template(b: &mut Building<'_>, d: &Directive) -> Outcome<()> {
    let Some(([class, kind], given)) = d.args.split_first_chunk::<2>() else {
        return refuse(d, "needs a class and a type: template IN A");
    };
    if !matches!(class.to_ascii_uppercase().as_str(), "IN" | "ANY") {
        return refuse(d, "only class IN is served");
    }
    let any = kind.eq_ignore_ascii_case("ANY");
    let mut t = Template {
        zones: zones(given, &b.block.zones, d.line)?,
        qtype: if any { None } else { Some(qtype(kind, d)?) },
        matches: Vec::new(),
        answer: Vec::new(),
        additional: Vec::new(),
        authority: Vec::new(),
        rcode: ResponseCode::NoError,
        fallthrough: Vec::new(),
    };
    for o in &d.block {
        let texts = || {
            let parse =
                |a: &String| Text::parse(a).map_err(|e| CorefileError::new(o.line, format!("template: {e}")));
            o.args.iter().map(parse).collect::<Outcome<Vec<_>>>()
        };
        match o.name.as_str() {
            "match" => {
                for pattern in &o.args {
                    t.matches.push(regex(pattern, o)?);
                }
            }
            "answer" => t.answer.extend(texts()?),
            "additional" => t.additional.extend(texts()?),
            "authority" => t.authority.extend(texts()?),
            "rcode" => {
                t.rcode = match one("template", o)?.to_ascii_uppercase().as_str() {
                    "NOERROR" => ResponseCode::NoError,
                    "NXDOMAIN" => ResponseCode::NXDomain,
                    "SERVFAIL" => ResponseCode::ServFail,
                    "REFUSED" => ResponseCode::Refused,
                    "NOTIMP" => ResponseCode::NotImp,
                    "FORMERR" => ResponseCode::FormErr,
                    _ => return refuse(o, "is NOERROR, NXDOMAIN, SERVFAIL, REFUSED, NOTIMP or FORMERR"),
                };
            }
            "fallthrough" => t.fallthrough = fallthrough(o)?,
            "ederror" => return refuse(o, "extended errors of one's own are not done; remove the line"),
            _ => return unknown("template", o),
        }
    }
    // Names are compared as they are on the wire: with the final dot, in lower case.
    b.block.templates.push(t);
    Ok(())
}
