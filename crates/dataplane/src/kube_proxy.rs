//! What a kube-proxy left on a node, whichever mode it ran in: taken away by netlink, as there need be no `nft` or
//! `iptables` where the agent runs. Names: pkg/proxy/{nftables,iptables,ipvs} of Kubernetes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use futures::TryStreamExt;
use nix::sys::socket::SockProtocol;

use crate::Error;
use crate::netlink::{Netlink, attribute, attributes, put_attribute, text};

/// Tables of the nftables mode, one a family.
const TABLE: &str = "kube-proxy";
/// How chains begin that the other modes make, by `iptables`.
const CHAIN: &str = "KUBE-";
/// The device on which the IPVS mode puts virtual addresses.
const IPVS_DEVICE: &str = "kube-ipvs0";
/// Where `iptables` of the nf_tables kind keeps its chains.
const IPTABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// Attributes of include/uapi/linux/netfilter/nf_tables.h.
mod nft {
    pub const TABLE_NAME: u16 = 1;
    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_HANDLE: u16 = 3;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;
    pub const IMMEDIATE_DATA: u16 = 2;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CHAIN: u16 = 2;
}

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const FAMILIES: [(u8, &str); 2] = [(libc::NFPROTO_IPV4 as u8, "ip"), (libc::NFPROTO_IPV6 as u8, "ip6")];

/// Removes it. What was removed, and what had to be left, each as a line.
///
/// # Errors
/// When the kernel refuses; what can be removed is removed all the same.
pub async fn remove() -> Result<Removed, Error> {
    let mut removed = Removed::default();
    let mut result = nf_tables(&mut removed);
    for (family, binary, names) in [
        ("IPv4", "iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
        ("IPv6", "ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
    ] {
        if std::fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty()) {
            legacy(family, binary, &mut removed);
        }
    }
    result = result.and(ipvs(&mut removed).await);
    result.map(|()| removed)
}

/// What [`remove`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub removed: Vec<String>,
    /// With what can be done about it.
    pub left: Vec<String>,
}

fn error(action: &str) -> impl FnOnce(io::Error) -> Error + use<'_> {
    move |source| Error::system(action, source)
}

fn nf_tables(removed: &mut Removed) -> Result<(), Error> {
    let mut netlink = match Netlink::open(SockProtocol::NetlinkNetFilter) {
        Ok(netlink) => netlink,
        // A kernel without netfilter has no rules.
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(()),
        Err(e) => return Err(error("open netlink of netfilter")(e)),
    };
    let mut result = Ok(());
    for (family, word) in FAMILIES {
        let tables = match tables(&mut netlink, family) {
            // A kernel without nf_tables does not know the subsystem.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => continue,
            tables => tables.map_err(error("list tables of nf_tables"))?,
        };
        if tables.iter().any(|name| name == TABLE) {
            let message = with_names(family, &[(nft::TABLE_NAME, TABLE)]);
            let gone = batch(&mut netlink, vec![(libc::NFT_MSG_DELTABLE as u16, message)]);
            match gone {
                Ok(()) => removed.removed.push(format!("table {word} {TABLE}")),
                Err(e) => result = result.and(Err(error("delete the table of kube-proxy")(e))),
            }
        }
        for table in IPTABLES.into_iter().filter(|table| tables.iter().any(|name| name == table)) {
            match chains(&mut netlink, family, table) {
                Ok(0) => {}
                Ok(n) => removed.removed.push(format!("{n} chains of table {word} {table}")),
                Err(e) => result = result.and(Err(error("delete the chains of kube-proxy")(e))),
            }
        }
    }
    result
}

/// `struct nfgenmsg`, and names.
fn with_names(family: u8, names: &[(u16, &str)]) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0];
    for (kind, name) in names {
        put_attribute(&mut body, *kind, &[name.as_bytes(), &[0]].concat());
    }
    body
}

/// All of it, or nothing.
fn batch(netlink: &mut Netlink, messages: Vec<(u16, Vec<u8>)>) -> io::Result<()> {
    let end = [libc::AF_UNSPEC as u8, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8].to_vec();
    let mut all = vec![(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, end.clone())];
    let last = messages.len().saturating_sub(1);
    for (i, (kind, body)) in messages.into_iter().enumerate() {
        // The whole batch is done when its last message is acknowledged; an error comes whether asked for or not.
        let flags = if i == last { libc::NLM_F_ACK as u16 } else { 0 };
        all.push((SUBSYSTEM | kind, flags, body));
    }
    all.push((libc::NFNL_MSG_BATCH_END as u16, 0, end));
    netlink.ask(&all)
}

fn dump(netlink: &mut Netlink, kind: i32, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let found = netlink.dump(SUBSYSTEM | kind as u16, body)?;
    Ok(found.into_iter().filter_map(|(_, body)| body.get(4..).map(<[u8]>::to_vec)).collect())
}

fn tables(netlink: &mut Netlink, family: u8) -> io::Result<Vec<String>> {
    let found = dump(netlink, libc::NFT_MSG_GETTABLE, &with_names(family, &[]))?;
    Ok(found.iter().filter_map(|table| text(table, nft::TABLE_NAME)).collect())
}

/// Removes kube-proxy's chains from one table of `iptables`, and whatever leads to them. How many.
fn chains(netlink: &mut Netlink, family: u8, table: &str) -> io::Result<usize> {
    let found = dump(netlink, libc::NFT_MSG_GETCHAIN, &with_names(family, &[]))?;
    let ours: Vec<String> = found
        .iter()
        .filter(|chain| text(chain, nft::CHAIN_TABLE).as_deref() == Some(table))
        .filter_map(|chain| text(chain, nft::CHAIN_NAME))
        .filter(|name| name.starts_with(CHAIN))
        .collect();
    if ours.is_empty() {
        return Ok(0);
    }
    let mut messages = Vec::new();
    for rule in dump(netlink, libc::NFT_MSG_GETRULE, &with_names(family, &[(nft::RULE_TABLE, table)]))? {
        let (Some(chain), Some(handle)) = (text(&rule, nft::RULE_CHAIN), attribute(&rule, nft::RULE_HANDLE))
        else {
            continue;
        };
        if text(&rule, nft::RULE_TABLE).as_deref() != Some(table) {
            continue;
        }
        if ours.contains(&chain) || leads_to(&rule).is_some_and(|to| to.starts_with(CHAIN)) {
            let mut body = with_names(family, &[(nft::RULE_TABLE, table), (nft::RULE_CHAIN, &chain)]);
            put_attribute(&mut body, nft::RULE_HANDLE, handle);
            messages.push((libc::NFT_MSG_DELRULE as u16, body));
        }
    }
    messages.extend(ours.iter().map(|chain| {
        (
            libc::NFT_MSG_DELCHAIN as u16,
            with_names(family, &[(nft::CHAIN_TABLE, table), (nft::CHAIN_NAME, chain)]),
        )
    }));
    batch(netlink, messages)?;
    Ok(ours.len())
}

/// The chain that a rule jumps to or goes on in.
fn leads_to(rule: &[u8]) -> Option<String> {
    let expressions = attribute(rule, nft::RULE_EXPRESSIONS)?;
    attributes(expressions).find_map(|(_, expression)| {
        let name = text(expression, nft::EXPR_NAME)?;
        let data = attribute(expression, nft::EXPR_DATA).filter(|_| name == "immediate")?;
        let value = attribute(data, nft::IMMEDIATE_DATA)?;
        let verdict = attribute(value, nft::DATA_VERDICT)?;
        text(verdict, nft::VERDICT_CHAIN)
    })
}

/// Rules of the older `iptables`: its kernel interface takes whole tables, as that program alone knows how to write them.
fn legacy(family: &str, binary: &str, removed: &mut Removed) {
    let by_hand = format!("{binary}-save | grep -v {CHAIN} | {binary}-restore");
    let saved = Command::new(format!("{binary}-save")).stdin(Stdio::null()).output();
    let Ok(saved) = saved else {
        removed.left.push(format!(
            "{family} tables of {binary} are in use and may have chains of kube-proxy: there is no {binary} here to \
             look; where there is one: {by_hand}"
        ));
        return;
    };
    let saved = String::from_utf8_lossy(&saved.stdout).into_owned();
    let count = saved.lines().filter(|line| line.starts_with(&format!(":{CHAIN}"))).count();
    if count == 0 {
        return;
    }
    let kept: String = saved.lines().filter(|line| !is_ours(line)).flat_map(|line| [line, "\n"]).collect();
    match restore(&format!("{binary}-restore"), &kept) {
        Ok(()) => removed.removed.push(format!("{count} chains of {binary}")),
        Err(e) => removed.left.push(format!("{count} chains of {binary} ({e}); to remove them: {by_hand}")),
    }
}

/// Whether a line of what `iptables-save` prints is a chain of kube-proxy, a rule in one, or a rule that leads to one.
fn is_ours(line: &str) -> bool {
    let begins =
        [":", "-A "].iter().any(|what| line.strip_prefix(what).is_some_and(|l| l.starts_with(CHAIN)));
    begins || [" -j ", " -g "].iter().any(|what| line.contains(&format!("{what}{CHAIN}")))
}

fn restore(program: &str, rules: &str) -> io::Result<()> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        io::Write::write_all(&mut input, rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

async fn ipvs(removed: &mut Removed) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(error("open netlink"))?;
    let connection = tokio::spawn(connection);
    let found = handle.link().get().match_name(IPVS_DEVICE.to_owned()).execute().try_next().await;
    let mut result = Ok(());
    if let Ok(Some(link)) = found {
        match handle.link().del(link.header.index).execute().await {
            Ok(()) => removed.removed.push(format!("device {IPVS_DEVICE}")),
            Err(source) => {
                let action = format!("delete device {IPVS_DEVICE}");
                result = Err(Error::Netlink { action, source: Box::new(source) });
            }
        }
    }
    connection.abort();
    // Three lines of headings, then a line for each virtual service.
    if let Some(n) = virtual_services(Path::new("/proc/thread-self/net/ip_vs")) {
        removed.left.push(format!(
            "{n} virtual services of IPVS, which may be others' too; to remove them: ipvsadm --clear"
        ));
    }
    result
}

fn virtual_services(path: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    let kinds: BTreeMap<&str, usize> =
        text.lines().filter_map(|l| l.split(' ').next()).fold(BTreeMap::new(), |mut all, kind| {
            *all.entry(kind).or_default() += 1;
            all
        });
    let count = ["TCP", "UDP", "SCTP"].iter().filter_map(|kind| kinds.get(kind)).sum();
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_kube_proxy() {
        for (line, ours) in [
            (":KUBE-SERVICES - [0:0]", true),
            ("-A KUBE-SVC-X -m statistic --mode random --probability 0.5 -j RETURN", true),
            ("-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES", true),
            ("-A POSTROUTING -g KUBE-POSTROUTING", true),
            (":OUTPUT ACCEPT [0:0]", false),
            ("-A OUTPUT -m comment --comment \"not KUBE-SERVICES\" -j ACCEPT", false),
            ("COMMIT", false),
        ] {
            assert_eq!(is_ours(line), ours, "{line}");
        }
    }

    #[test]
    fn services_of_ipvs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n\
                    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr\n  \
                    -> AC120002:192B      Masq    1      0          0\nUDP  0A60000A:0035 rr\n";
        assert_eq!(virtual_services(file.path()), None);
        std::fs::write(file.path(), text).unwrap();
        assert_eq!(virtual_services(file.path()), Some(2));
    }
}
