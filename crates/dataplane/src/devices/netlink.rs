//! As much of rtnetlink as following devices takes: one socket with events and listings on it, so that nothing falls
//! between the two. Layouts: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h.
//!
//! Parsed here rather than by a library, as one attribute that a library does not know must not cost a pod its hook.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;

const HEADER: usize = 16;

/// Something about devices, addresses or routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Link(Link),
    LinkGone {
        index: u32,
    },
    Address {
        index: u32,
        addr: IpAddr,
    },
    AddressGone {
        index: u32,
        addr: IpAddr,
    },
    /// A default route of the main table, and by which devices it leads.
    DefaultRoute {
        indexes: Vec<u32>,
    },
    DefaultRouteGone,
    /// End of a listing; not `whole` when it changed under our hands.
    Done {
        sequence: u32,
        whole: bool,
    },
    /// The kernel refused a request.
    Refused {
        sequence: u32,
        code: i32,
    },
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, …; empty for hardware.
    pub kind: String,
    /// Its packets have an Ethernet header, which the programs expect.
    pub ethernet: bool,
    /// The other end is in another network namespace.
    pub peer_elsewhere: bool,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    Links,
    Addresses,
    Routes,
}

/// An rtnetlink socket of this thread's network namespace.
pub(super) struct Netlink {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        // Thousands of pods may come at once; without room the kernel drops events and we list again.
        if setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &(1 << 20))?;
        }
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
        // SAFETY: the registration owns the file descriptor and nothing else closes or replaces it.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket, buffer: vec![0; 64 << 10], sequence: 0 })
    }

    /// Asks for a listing; its parts come as events, and then [`Event::Done`] with the sequence returned here. One at
    /// a time.
    pub fn list(&mut self, listing: Listing) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let (kind, body) = match listing {
            Listing::Links => (libc::RTM_GETLINK, 16),
            Listing::Addresses => (libc::RTM_GETADDR, 8),
            Listing::Routes => (libc::RTM_GETROUTE, 12),
        };
        let mut message = vec![0; HEADER + body];
        message[0..4].copy_from_slice(&((HEADER + body) as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    /// The next events and when they were received.
    ///
    /// # Errors
    /// `ENOBUFS`: events were lost, list again.
    pub async fn receive(&mut self) -> io::Result<(Instant, Vec<Event>)> {
        loop {
            let mut guard = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            let received = guard.try_io(|socket| Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?));
            match received {
                Ok(Ok(length)) => return Ok((Instant::now(), parse(&self.buffer[..length]))),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Events of a datagram. Whatever is cut short or unknown is left out.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let (Some(length), Some(kind), Some(flags), Some(sequence)) =
        (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6), u32_at(bytes, 8))
    {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        events.extend(event(kind, flags, sequence, body));
        let Some(rest) = bytes.get(length.next_multiple_of(4)..) else { break };
        bytes = rest;
    }
    events
}

fn event(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Option<Event> {
    let whole = flags & libc::NLM_F_DUMP_INTR as u16 == 0;
    if kind == libc::NLMSG_DONE as u16 {
        return Some(Event::Done { sequence, whole });
    }
    if kind == libc::NLMSG_ERROR as u16 {
        let code = u32_at(body, 0)? as i32;
        return (code != 0).then_some(Event::Refused { sequence, code: -code });
    }
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            // Of another family it is about a bridge port, not about the device.
            if *body.first()? != libc::AF_UNSPEC as u8 {
                return None;
            }
            let index = u32_at(body, 4)?;
            if kind == libc::RTM_DELLINK {
                return Some(Event::LinkGone { index });
            }
            let ethernet = u16_at(body, 2)? == libc::ARPHRD_ETHER;
            Some(Event::Link(link(index, ethernet, body.get(16..)?)))
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let index = u32_at(body, 4)?;
            let (mut local, mut address) = (None, None);
            for (kind, value) in attributes(body.get(8..)?) {
                match kind {
                    libc::IFA_LOCAL => local = ip(value),
                    libc::IFA_ADDRESS => address = ip(value),
                    _ => {}
                }
            }
            let addr = local.or(address)?;
            Some(if kind == libc::RTM_NEWADDR {
                Event::Address { index, addr }
            } else {
                Event::AddressGone { index, addr }
            })
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route(kind, body),
        _ => None,
    }
}

fn link(index: u32, ethernet: bool, rest: &[u8]) -> Link {
    let mut link = Link { index, ethernet, ..Link::default() };
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_LINK_NETNSID => link.peer_elsewhere = true,
            libc::IFLA_LINKINFO => {
                if let Some((_, kind)) = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND) {
                    link.kind = text(kind);
                }
            }
            _ => {}
        }
    }
    link
}

fn route(kind: u16, body: &[u8]) -> Option<Event> {
    let (&destination_length, &table, &route_type) = (body.get(1)?, body.get(4)?, body.get(7)?);
    if destination_length != 0 || table != libc::RT_TABLE_MAIN || route_type != libc::RTN_UNICAST {
        return None;
    }
    if kind == libc::RTM_DELROUTE {
        return Some(Event::DefaultRouteGone);
    }
    let mut indexes = Vec::new();
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            libc::RTA_OIF => indexes.extend(u32_at(value, 0)),
            libc::RTA_MULTIPATH => {
                // struct rtnexthop: length, flags, hops, interface index.
                let mut rest = value;
                while let (Some(length), Some(index)) = (u16_at(rest, 0), u32_at(rest, 4)) {
                    indexes.push(index);
                    let Some(next) = rest.get((length as usize).max(8).next_multiple_of(4)..) else { break };
                    rest = next;
                }
            }
            _ => {}
        }
    }
    Some(Event::DefaultRoute { indexes })
}

/// (type, value) of each attribute; nested and byte-order bits taken off.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (u16_at(bytes, 0)? as usize, u16_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((body.len() + HEADER) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    fn veth() -> Vec<u8> {
        let mut body = vec![0; 16];
        body[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        body[4..8].copy_from_slice(&42u32.to_ne_bytes());
        body.extend(attribute(libc::IFLA_IFNAME, b"veth1\0"));
        body.extend(attribute(60_000 & 0x3fff, &[1, 2, 3]));
        body.extend(attribute(libc::IFLA_LINKINFO | 0x8000, &attribute(libc::IFLA_INFO_KIND, b"veth")));
        body.extend(attribute(libc::IFLA_LINK_NETNSID, &0u32.to_ne_bytes()));
        message(libc::RTM_NEWLINK, &body)
    }

    #[test]
    fn reads_links_addresses_and_routes() {
        let mut bytes = veth();
        let mut address = vec![libc::AF_INET as u8, 24, 0, 0, 2, 0, 0, 0];
        address.extend(attribute(libc::IFA_ADDRESS, &[192, 0, 2, 9]));
        address.extend(attribute(libc::IFA_LOCAL, &[192, 0, 2, 1]));
        bytes.extend(message(libc::RTM_NEWADDR, &address));
        let mut default =
            vec![libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_MAIN, 0, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        default.extend(attribute(libc::RTA_OIF, &3u32.to_ne_bytes()));
        bytes.extend(message(libc::RTM_NEWROUTE, &default));
        default[1] = 8;
        bytes.extend(message(libc::RTM_NEWROUTE, &default));
        bytes.extend(message(libc::NLMSG_DONE as u16, &[0; 4]));
        let expected = [
            Event::Link(Link {
                index: 42,
                name: "veth1".into(),
                kind: "veth".into(),
                ethernet: true,
                peer_elsewhere: true,
            }),
            Event::Address { index: 2, addr: IpAddr::from([192, 0, 2, 1]) },
            Event::DefaultRoute { indexes: vec![3] },
            Event::Done { sequence: 7, whole: true },
        ];
        assert_eq!(parse(&bytes), expected);
    }

    #[test]
    fn a_bridge_port_leaving_is_not_a_device_going() {
        let mut body = vec![0; 16];
        body[0] = libc::AF_BRIDGE as u8;
        assert_eq!(parse(&message(libc::RTM_DELLINK, &body)), []);
    }

    proptest! {
        #[test]
        fn never_reads_past_the_end(mut bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            parse(&bytes);
            bytes = veth();
            bytes.truncate(cut);
            parse(&bytes);
        }
    }
}
