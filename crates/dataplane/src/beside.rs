//! Whether kube-proxy's rules are in this network namespace. While they are, connections that it has opened are left to
//! it (`config_flags::KUBE_PROXY`): nf_conntrack translates them for as long as there are rules of NAT.
//!
//! Asked are nf_tables for the tables of its nftables mode and for the chain that its iptables mode begins with, as
//! iptables-nft writes it, and the older x_tables for that chain.

pub(crate) mod left;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::SockProtocol;

use crate::netlink::{Netlink, put_attribute};

/// The table of kube-proxy's nftables mode, in each family.
const TABLE: &str = "kube-proxy";
/// The chain of its iptables and IPVS modes that all others hang on.
const CHAIN: &str = "KUBE-SERVICES";

/// Attributes of include/uapi/linux/netfilter/nf_tables.h.
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const FAMILIES: [u8; 2] = [libc::NFPROTO_IPV4 as u8, libc::NFPROTO_IPV6 as u8];

/// Looks for them, in the network namespace of this thread.
///
/// # Errors
/// When the kernel does not answer: without `CAP_NET_ADMIN` for one.
pub fn has_rules() -> io::Result<bool> {
    match Netlink::open(SockProtocol::NetlinkNetFilter) {
        Ok(mut netlink) => {
            for family in FAMILIES {
                let table = [(TABLE_NAME, TABLE)];
                let chain = [(CHAIN_TABLE, "nat"), (CHAIN_NAME, CHAIN)];
                if is_there(&mut netlink, libc::NFT_MSG_GETTABLE as u16, family, &table)?
                    || is_there(&mut netlink, libc::NFT_MSG_GETCHAIN as u16, family, &chain)?
                {
                    return Ok(true);
                }
            }
        }
        // A kernel without netfilter.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(legacy("/proc/thread-self/net/ip_tables_names", libc::AF_INET, libc::SOL_IP)?
        || legacy("/proc/thread-self/net/ip6_tables_names", libc::AF_INET6, libc::SOL_IPV6)?)
}

/// Asks nf_tables for one object.
fn is_there(netlink: &mut Netlink, kind: u16, family: u8, names: &[(u16, &str)]) -> io::Result<bool> {
    let mut body = vec![family, 0, 0, 0];
    for (attribute, name) in names {
        put_attribute(&mut body, *attribute, &[name.as_bytes(), &[0]].concat());
    }
    let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind;
    match netlink.ask(&[(kind, libc::NLM_F_ACK as u16, body)]) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            // No such table or chain; a kernel without nf_tables.
            Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP) => Ok(false),
            _ => Err(error),
        },
    }
}

/// `struct ipt_getinfo` of include/uapi/linux/netfilter_ipv4/ip_tables.h; that of IPv6 is the same.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of IPv6 are the same.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// Before the entries: the table's name and their size, aligned to 8.
const ENTRIES: usize = 40;

/// Whether the table `nat` of x_tables has the chain. The names of tables in use are looked at first: to ask for a table makes it.
fn legacy(names: &str, family: libc::c_int, level: libc::c_int) -> io::Result<bool> {
    match std::fs::read_to_string(names) {
        Ok(text) if text.lines().any(|name| name == "nat") => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // SAFETY: takes no memory; the result is looked at.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut name = [0; 32];
    name[..3].copy_from_slice(b"nat");
    let mut info = Info { name, valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], entries: 0, size: 0 };
    let mut length = size_of::<Info>() as libc::socklen_t;
    // SAFETY: `info` is as long as told, and any bytes are a value of it.
    let got =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut table = vec![0u8; ENTRIES + info.size as usize];
    table[..32].copy_from_slice(&name);
    table[32..36].copy_from_slice(&info.size.to_ne_bytes());
    let mut length = table.len() as libc::socklen_t;
    // SAFETY: `table` is as long as told.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, GET_ENTRIES, table.as_mut_ptr().cast(), &raw mut length)
    };
    if got != 0 {
        let error = io::Error::last_os_error();
        // It has changed in between: the next look tells.
        return if error.raw_os_error() == Some(libc::EAGAIN) { Ok(false) } else { Err(error) };
    }
    // A chain's name stands in the entry that it begins with, with zeros behind it.
    let wanted: Vec<u8> = CHAIN.bytes().chain([0]).collect();
    Ok(table.windows(wanted.len()).any(|window| window == wanted))
}
