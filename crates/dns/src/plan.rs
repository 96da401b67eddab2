//! What is done with a query besides looking it up: a Corefile in the form in which it is followed. Immutable; a new one
//! takes its place between two queries.

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{Access, Rule};
use crate::engine::Grant;
use crate::forward::Group;
use crate::hosts::Hosts;
use crate::rewrite::Rewrite;
use crate::template::Template;
use crate::wire::{Name, encode_name, rtype};

/// How queries are treated.
#[derive(Debug)]
pub struct Plan {
    pub(crate) access: Access,
    /// What `version.bind` says of us.
    pub(crate) version: String,
    /// This node's name: `hostname.bind`, NSID.
    pub(crate) node: String,
    /// Those with the longest zones first.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// How long health is still said to be good after the stop, as Corefile's `health { lameduck }`.
    pub lameduck: Duration,
}

/// A server block: zones that are treated alike.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) zones: Vec<Name>,
    pub(crate) acl: Vec<Rule>,
    /// Queries for ANY get a word of refusal (RFC 8482).
    pub(crate) any: bool,
    pub(crate) chaos: Option<(String, Vec<String>)>,
    pub(crate) nsid: Option<Vec<u8>>,
    /// The largest UDP answer, bytes.
    pub(crate) bufsize: Option<u16>,
    /// Names that never leave the node (`localhost`, reverse of the loopback).
    pub(crate) local: bool,
    pub(crate) dns64: Option<Dns64>,
    pub(crate) rewrite: Vec<Rewrite>,
    pub(crate) header: Vec<HeaderRule>,
    pub(crate) autopath: Option<Autopath>,
    pub(crate) minimal: bool,
    pub(crate) templates: Vec<Template>,
    pub(crate) hosts: Vec<Hosts>,
    /// The cluster's names are answered here.
    pub(crate) kubernetes: bool,
    pub(crate) groups: Vec<Arc<Group>>,
    pub(crate) whoami: bool,
    pub(crate) loadbalance: bool,
    pub(crate) log: Option<Log>,
    /// Who may have the cluster's zones whole.
    pub(crate) transfer: Vec<Grant>,
}

/// Which answers are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) success: bool,
    pub(crate) denial: bool,
    pub(crate) error: bool,
    /// Each how-many-th of them; 0 and 1: every one.
    pub(crate) sample: u32,
}

/// IPv6 addresses made of IPv4 ones (RFC 6147).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dns64 {
    /// The upper 96 bits.
    pub(crate) prefix: Ipv6Addr,
    /// Also where there are AAAA records.
    pub(crate) translate_all: bool,
    /// Also for those who ask by IPv4.
    pub(crate) allow_ipv4: bool,
}

/// The search list is walked here in place of the client.
#[derive(Clone, Debug)]
pub(crate) struct Autopath {
    /// By the pod's own namespace; else `search` alone.
    pub(crate) pods: bool,
    /// What comes after the cluster's own.
    pub(crate) search: Vec<Name>,
    /// Only what a pod's search list of ndots:5 may have made.
    pub(crate) careful: bool,
}

/// A line of `header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderRule {
    pub(crate) set: bool,
    /// Byte 2 or 3 of the message, and the bit.
    pub(crate) byte: usize,
    pub(crate) bit: u8,
}

impl Block {
    /// Whether records alone make the answer to this question, so that it is written straight to the wire.
    pub(crate) fn is_plain(&self, name: &Name, qtype: u16) -> bool {
        let Self { dns64, rewrite, header, minimal, templates, hosts, whoami, local, .. } = self;
        let within = |zones: &[Name]| zones.iter().any(|z| name.below(z).is_some());
        let last = name.count().checked_sub(1).map(|i| name.label(i));
        let by_template = |t: &Template| t.qtype.is_none_or(|q| q == qtype) && within(&t.zones);
        let by_hosts = |h: &Hosts| {
            let known = || qtype == rtype::PTR || h.table.load().addresses(name.wire()).is_some();
            within(&h.zones) && (!within(&h.fallthrough) || known())
        };
        header.is_empty()
            && !minimal
            && !whoami
            && (dns64.is_none() || qtype != rtype::AAAA)
            && !(*local && matches!(last, Some(b"localhost" | b"arpa")))
            && !templates.iter().any(by_template)
            && !hosts.iter().any(by_hosts)
            && (rewrite.is_empty() || crate::rewrite::apply(rewrite, name.wire(), qtype).is_none())
    }

    pub(crate) fn group(&self, name: &Name) -> Option<&Arc<Group>> {
        self.groups.iter().find(|g| g.takes(name))
    }
}

impl Plan {
    /// What is done without a Corefile: as kubeadm's.
    pub(crate) fn simple(group: Arc<Group>, autopath: Option<Autopath>) -> Self {
        let block = Block {
            zones: vec![Name::root()],
            kubernetes: true,
            groups: vec![group],
            autopath,
            loadbalance: true,
            ..Block::default()
        };
        Self {
            access: Access::open(),
            version: concat!("eastwest-", env!("CARGO_PKG_VERSION")).to_owned(),
            node: String::new(),
            blocks: vec![Arc::new(block)],
            lameduck: Duration::ZERO,
        }
    }

    /// The block for `name`: that of the longest zone.
    pub(crate) fn block(&self, name: &Name) -> Option<&Arc<Block>> {
        let depth =
            |b: &&Arc<Block>| b.zones.iter().filter(|z| name.below(z).is_some()).map(Name::count).max();
        match &self.blocks[..] {
            [only] => depth(&only).map(|_| only),
            blocks => blocks.iter().filter(|b| depth(b).is_some()).max_by_key(depth),
        }
    }

    /// Reads files that have changed: hosts, and upstreams of resolv.conf files. Says whether upstreams are others now.
    pub(crate) fn refresh(&self) -> bool {
        let mut others = false;
        for block in &self.blocks {
            block.hosts.iter().for_each(Hosts::load);
            for group in block.groups.iter().filter(|g| !g.options.files.is_empty()) {
                let servers = |p: &std::path::PathBuf| std::fs::read_to_string(p).ok();
                let texts: Option<Vec<String>> = group.options.files.iter().map(servers).collect();
                // A file that cannot be read for a moment changes nothing.
                let Some(texts) = texts else { continue };
                let addresses: Vec<_> = texts.iter().flat_map(|t| crate::parse_resolv_conf(t)).collect();
                others |= group.replace(&addresses);
            }
        }
        others
    }
}

/// The `search` (or `domain`) names of a resolv.conf, the last line of them.
pub(crate) fn search_of(text: &str) -> Vec<Name> {
    let mut search = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        if matches!(fields.next(), Some("search" | "domain")) {
            search =
                fields.filter(|f| *f != "." && encode_name(f).is_some()).filter_map(Name::parse).collect();
        }
    }
    search
}

pub(crate) fn read_search(path: &Path) -> Vec<Name> {
    std::fs::read_to_string(path).map_or_else(|_| Vec::new(), |text| search_of(&text))
}
