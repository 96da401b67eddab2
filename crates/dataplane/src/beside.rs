//! Whether kube-proxy's rules are in this network namespace. While they are, connections that it has opened are left to
//! it (`config_flags::KUBE_PROXY`): nf_conntrack translates them for as long as there are rules of NAT.
//!
//! Asked are nf_tables for the tables of its nftables mode and for the chain that its iptables mode begins with, as
//! iptables-nft writes it, and the older x_tables for that chain.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// The table of kube-proxy's nftables mode, in each family.
const TABLE: &str = "kube-proxy";
/// The chain of its iptables and IPVS modes that all others hang on.
const CHAIN: &str = "KUBE-SERVICES";

/// Numbers of include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h.
const SUBSYSTEM: u16 = 10;
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const FAMILIES: [u8; 2] = [libc::NFPROTO_IPV4 as u8, libc::NFPROTO_IPV6 as u8];

/// Length of a netlink header, and of that with nfnetlink's behind it.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// Looks for them, in the network namespace of this thread.
///
/// # Errors
/// When the kernel does not answer: without `CAP_NET_ADMIN` for one.
pub fn has_rules() -> io::Result<bool> {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
    match fd {
        Ok(fd) => {
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
            for family in FAMILIES {
                if is_there(&fd, GET_TABLE, family, &[(TABLE_NAME, TABLE)])?
                    || is_there(&fd, GET_CHAIN, family, &[(CHAIN_TABLE, "nat"), (CHAIN_NAME, CHAIN)])?
                {
                    return Ok(true);
                }
            }
        }
        // A kernel without netfilter.
        Err(nix::errno::Errno::EPROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(legacy("/proc/thread-self/net/ip_tables_names", libc::AF_INET, libc::SOL_IP)?
        || legacy("/proc/thread-self/net/ip6_tables_names", libc::AF_INET6, libc::SOL_IPV6)?)
}

/// A request for one object of nf_tables.
fn request(kind: u16, family: u8, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut message = vec![0; HEADERS];
    message[4..6].copy_from_slice(&(SUBSYSTEM << 8 | kind).to_ne_bytes());
    message[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message[HEADER] = family;
    for (attribute, text) in attributes {
        let length = 4 + text.len() as u16 + 1;
        message.extend(length.to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(text.as_bytes());
        message.push(0);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// What an answer says: that it is there, that it is not, or an error.
fn said(answer: &[u8]) -> io::Result<bool> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "an answer of nf_tables is cut");
    let kind = answer.get(4..6).ok_or_else(cut)?;
    if u16::from_ne_bytes([kind[0], kind[1]]) != libc::NLMSG_ERROR as u16 {
        return Ok(true);
    }
    let code = answer.get(HEADER..HEADERS).ok_or_else(cut)?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]).wrapping_neg() {
        // No such table or chain; a kernel without nf_tables.
        libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP => Ok(false),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn is_there(fd: &OwnedFd, kind: u16, family: u8, attributes: &[(u16, &str)]) -> io::Result<bool> {
    send(fd.as_raw_fd(), &request(kind, family, attributes), MsgFlags::empty())?;
    let mut answer = [0; 8192];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    said(&answer[..length])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_aligned_and_says_its_length() {
        let message = request(GET_CHAIN, 2, &[(CHAIN_TABLE, "nat"), (CHAIN_NAME, CHAIN)]);
        assert_eq!(message.len(), HEADERS + 8 + 20);
        assert_eq!(message[..8], [48, 0, 0, 0, 4, 10, 1, 0]);
        assert_eq!(message[HEADER..HEADERS + 8], [2, 0, 0, 0, 8, 0, 1, 0, b'n', b'a', b't', 0]);
    }

    #[test]
    fn answers() {
        let error = |code: i32| {
            let mut answer = vec![0; HEADERS];
            answer[4] = libc::NLMSG_ERROR as u8;
            answer[HEADER..].copy_from_slice(&(-code).to_ne_bytes());
            said(&answer)
        };
        assert!(!error(libc::ENOENT).unwrap());
        assert!(!error(libc::EOPNOTSUPP).unwrap());
        assert_eq!(error(libc::EPERM).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(said(&[0; 5]).is_err());
        assert!(said(&[20, 0, 0, 0, 0, 10, 0, 0]).unwrap());
    }
}
