//! Connected UDP sockets of host processes whose backend takes no more flows: nothing would tell them, since their packets
//! are not looked at any more. They are closed (`ECONNABORTED`), so that the process asks for the Service again.
//!
//! Only sockets of this network namespace that our programs connected to such a backend: what the kernel lists is looked
//! up in the programs' own table by the socket's cookie. Layouts: include/uapi/linux/inet_diag.h.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{self, Sender};

use aya::maps::{HashMap, Map, MapData};
use eastwest_abi::{self as abi, direction};
use nix::sys::socket::SockProtocol;

use super::tables::{Wire, failed};
use crate::Error;
use crate::netlink::Netlink;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `struct inet_diag_req_v2`, and where in `struct inet_diag_msg` the same socket is named.
const REQUEST: usize = 8 + ID;
const ID: usize = 48;
const ID_IN_MESSAGE: usize = 4;
/// States whose sockets are listed: `TCP_ESTABLISHED`, a connected one's.
const CONNECTED: u32 = 1 << 1;

type Sockets = HashMap<MapData, Wire<abi::SocketKey>, Wire<abi::Socket>>;

/// A backend that takes no more flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// As the table has it: IPv4 in the first 4 bytes.
    pub addr: [u8; 16],
    /// Network order.
    pub port: [u8; 2],
    pub id: u32,
    pub generation: u32,
}

/// Closes sockets, on a thread of its own: a node may have many, and nobody waits for it. It ends when the sender is
/// dropped.
pub(super) fn start(sockets: Map) -> Result<Sender<Vec<Gone>>, Error> {
    let sockets = Sockets::try_from(sockets).map_err(|error| failed(abi::maps::SOCKETS, "open", error))?;
    let (sender, receiver) = mpsc::channel::<Vec<Gone>>();
    let work = move || {
        let mut told = false;
        while let Ok(mut gone) = receiver.recv() {
            gone.extend(receiver.try_iter().flatten());
            match close(&sockets, &gone) {
                Ok(0) => {}
                Ok(closed) => tracing::info!(closed, "UDP sockets of processes whose backend is gone"),
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "UDP sockets whose backend is gone stay connected to it: it takes \
                                            CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY");
                }
                Err(error) => tracing::debug!(%error, "UDP sockets whose backend is gone"),
            }
        }
    };
    std::thread::Builder::new()
        .name("sockets".into())
        .spawn(work)
        .map_err(|source| Error::system("start a thread", source))?;
    Ok(sender)
}

fn close(sockets: &Sockets, gone: &[Gone]) -> io::Result<usize> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkSockDiag)?;
    let mut closed = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let list = request(family, CONNECTED, &[0; ID]);
        for (_, message) in netlink.dump(SOCK_DIAG_BY_FAMILY, &list)? {
            let Some(socket) = Connected::read(&message) else { continue };
            if gone.iter().any(|gone| socket.leads_to(sockets, gone)) {
                let destroy = request(family, u32::MAX, &socket.id);
                match netlink.ask(&[(SOCK_DESTROY, libc::NLM_F_ACK as u16, destroy)]) {
                    Ok(()) => closed += 1,
                    // It was closed in between.
                    Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }
    Ok(closed)
}

fn request(family: i32, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut body = Vec::with_capacity(REQUEST);
    body.extend([family as u8, libc::IPPROTO_UDP as u8, 0, 0]);
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

/// A socket as the kernel lists it.
struct Connected {
    /// `struct inet_diag_sockid`.
    id: [u8; ID],
    /// As in [`Gone`].
    addr: [u8; 16],
    port: [u8; 2],
    cookie: u64,
}

impl Connected {
    fn read(message: &[u8]) -> Option<Self> {
        let family = i32::from(*message.first()?);
        let id: [u8; ID] = message.get(ID_IN_MESSAGE..)?.first_chunk().copied()?;
        let at = |at: usize| -> [u8; 4] { std::array::from_fn(|i| id[at + i]) };
        let six = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| id[20 + i]));
        let four = match family {
            libc::AF_INET => Some(Ipv4Addr::from(at(20))),
            _ => six.to_ipv4_mapped(),
        };
        let addr = four.map_or(six.octets(), |four| {
            let mut all = [0; 16];
            all[..4].copy_from_slice(&four.octets());
            all
        });
        let [low, high] = [at(40), at(44)].map(u32::from_ne_bytes);
        Some(Self { id, addr, port: [id[2], id[3]], cookie: u64::from(high) << 32 | u64::from(low) })
    }

    fn leads_to(&self, sockets: &Sockets, gone: &Gone) -> bool {
        if (self.addr, self.port) != (gone.addr, gone.port) {
            return false;
        }
        let (addr, port) = (self.addr, self.port);
        // By the backend: which virtual address it asked for. By that: which backend it was given last.
        let key = |addr, port, direction| {
            let protocol = libc::IPPROTO_UDP as u8;
            Wire(abi::SocketKey { cookie: self.cookie, addr, port, protocol, direction, pad: [0; 4] })
        };
        let Ok(Wire(asked)) = sockets.get(&key(addr, port, direction::REVERSE), 0) else { return false };
        let given = sockets.get(&key(asked.addr, asked.port, direction::FORWARD), 0);
        given.is_ok_and(|Wire(given)| {
            (given.addr, given.port) == (addr, port)
                && (given.backend, given.generation) == (gone.id, gone.generation)
        })
    }
}
