//! Entries of nf_conntrack that kube-proxy's rules have left behind. One whose connection has ended stays for two minutes (a
//! datagram's for half of one), and answers of its backend to the client's port are its own meanwhile: a new connection
//! from the same port to that backend, which is not translated by netfilter any more, would find the tuple taken, and
//! netfilter drops what finds that. Layouts: include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::FAMILIES;
use crate::netlink::{Netlink, attribute, put_attribute};

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_DESTINATION: u16 = 4;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION_PORT: u16 = 3;
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;

/// Bits of `enum ip_conntrack_status`.
const ASSURED: u32 = 1 << 2;
const DESTINATION_NAT: u32 = 1 << 5;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: the states of connections that have ended.
const ENDED: [u8; 2] = [7, 8];

/// Destination that a client asked for: address, port, protocol number.
pub(crate) type Asked = (IpAddr, u16, u8);

/// Removes the entries of connections that have ended and were opened to something that is `ours`. How many of such
/// connections go on.
///
/// # Errors
/// When netfilter refuses. A kernel without connection tracking has no entries.
pub(crate) fn forget(ours: impl Fn(Asked) -> bool) -> io::Result<usize> {
    let mut netlink = match Netlink::open(SockProtocol::NetlinkNetFilter) {
        Ok(netlink) => netlink,
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut left = 0;
    for family in FAMILIES {
        let header = [family, 0, 0, 0];
        let entries = match netlink.dump(GET, &header) {
            Ok(entries) => entries,
            // A kernel without conntrack's netlink.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => continue,
            Err(error) => return Err(error),
        };
        for (_, message) in entries {
            let Some(entry) = message.get(header.len()..).and_then(Entry::read) else { continue };
            if !ours(entry.asked) {
                continue;
            }
            if !entry.ended {
                left += 1;
                continue;
            }
            let mut body = header.to_vec();
            put_attribute(&mut body, TUPLE_ORIGINAL | libc::NLA_F_NESTED as u16, entry.tuple);
            put_attribute(&mut body, ID, entry.id);
            match netlink.ask(&[(DELETE, libc::NLM_F_ACK as u16, body)]) {
                Ok(()) => {}
                // It went by itself.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(left)
}

/// An entry whose destination was translated.
struct Entry<'a> {
    tuple: &'a [u8],
    id: &'a [u8],
    asked: Asked,
    ended: bool,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let status = u32::from_be_bytes(*attribute(bytes, STATUS)?.first_chunk()?);
        if status & DESTINATION_NAT == 0 {
            return None;
        }
        let tuple = attribute(bytes, TUPLE_ORIGINAL)?;
        let (ip, proto) = (attribute(tuple, TUPLE_IP)?, attribute(tuple, TUPLE_PROTO)?);
        let v4 = attribute(ip, IP_V4_DESTINATION).and_then(|ip| ip.first_chunk::<4>());
        let addr = match v4 {
            Some(ip) => IpAddr::V4(Ipv4Addr::from(*ip)),
            None => Ipv6Addr::from(*attribute(ip, IP_V6_DESTINATION)?.first_chunk::<16>()?).into(),
        };
        let port = u16::from_be_bytes(*attribute(proto, PROTO_DESTINATION_PORT)?.first_chunk()?);
        let protocol = *attribute(proto, PROTO_NUMBER)?.first()?;
        let tcp = attribute(bytes, PROTOINFO).and_then(|info| attribute(info, PROTOINFO_TCP));
        let state = tcp.and_then(|tcp| attribute(tcp, TCP_STATE)?.first());
        let ended = match state {
            Some(state) => ENDED.contains(state),
            // A datagram and its answer, and no more.
            None => status & ASSURED == 0,
        };
        Some(Self { tuple, id: attribute(bytes, ID)?, asked: (addr, port, protocol), ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in parts {
            put_attribute(&mut bytes, *kind, value);
        }
        bytes
    }

    #[test]
    fn which_entries_are_in_the_way() {
        let four = nested(&[(1, &[10, 244, 1, 2]), (IP_V4_DESTINATION, &[10, 96, 0, 1])]);
        let six = nested(&[(3, &[1; 16]), (IP_V6_DESTINATION, &[2; 16])]);
        let tuple = |ip: &[u8], protocol: u8| {
            let proto =
                nested(&[(PROTO_NUMBER, &[protocol]), (2, &[1, 2]), (PROTO_DESTINATION_PORT, &[0, 80])]);
            nested(&[(TUPLE_IP, ip), (TUPLE_PROTO, &proto)])
        };
        let entry = |tuple: &[u8], status: u32, state: Option<u8>| {
            let status = status.to_be_bytes();
            let tcp = state.map(|s| nested(&[(PROTOINFO_TCP, &nested(&[(TCP_STATE, &[s])]))]));
            let mut parts: Vec<(u16, &[u8])> =
                vec![(TUPLE_ORIGINAL, tuple), (STATUS, &status), (ID, &[0, 0, 0, 9])];
            parts.extend(tcp.as_deref().map(|tcp| (PROTOINFO, tcp)));
            nested(&parts)
        };
        let (tcp4, udp4, udp6) = (tuple(&four, 6), tuple(&four, 17), tuple(&six, 17));
        let at4 = |protocol| Some((IpAddr::from([10, 96, 0, 1]), 80, protocol));
        for (name, bytes, asked, ended) in [
            ("not translated", entry(&tcp4, ASSURED, Some(7)), None, false),
            ("open", entry(&tcp4, DESTINATION_NAT | ASSURED, Some(3)), at4(6), false),
            ("half closed", entry(&tcp4, DESTINATION_NAT | ASSURED, Some(4)), at4(6), false),
            ("closed", entry(&tcp4, DESTINATION_NAT | ASSURED, Some(7)), at4(6), true),
            ("reset", entry(&tcp4, DESTINATION_NAT, Some(8)), at4(6), true),
            ("a datagram", entry(&udp4, DESTINATION_NAT, None), at4(17), true),
            ("a stream", entry(&udp4, DESTINATION_NAT | ASSURED, None), at4(17), false),
            ("IPv6", entry(&udp6, DESTINATION_NAT, None), Some((IpAddr::from([2; 16]), 80, 17)), true),
            ("cut off", entry(&udp6, DESTINATION_NAT, None)[..20].to_vec(), None, false),
        ] {
            let read = Entry::read(&bytes);
            assert_eq!(read.as_ref().map(|e| e.asked), asked, "{name}");
            assert_eq!(read.is_some_and(|e| e.ended), ended, "{name}");
        }
    }
}
