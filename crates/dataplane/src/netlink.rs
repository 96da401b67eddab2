//! Netlink requests that are asked and answered one after the other, for what no library that fits does: nf_tables and
//! sock_diag. Layouts: include/uapi/linux/netlink.h. Everything is of this thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// Longest message that is received; the kernel's dumps come in pieces of at most 32 KiB.
const RECEIVE: usize = 64 << 10;

pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A message: its type and what follows its header.
pub(crate) type Message = (u16, Vec<u8>);

impl Netlink {
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // The kernel answers at once; this is against waiting for ever for an answer that was lost.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends messages as one, each with an acknowledgement asked for, and waits for them. The first error ends it.
    pub fn ask(&mut self, messages: &[(u16, u16, Vec<u8>)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut waiting = 0;
        for (kind, flags, body) in messages {
            self.sequence = self.sequence.wrapping_add(1);
            put_message(&mut bytes, *kind, *flags, self.sequence, body);
            waiting += usize::from(flags & libc::NLM_F_ACK as u16 != 0);
        }
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        while waiting > 0 {
            for (kind, body) in self.receive()? {
                if i32::from(kind) == libc::NLMSG_ERROR {
                    waiting = waiting.saturating_sub(1);
                    // A batch that the kernel refuses as a whole is answered once.
                    error_of(&body)?;
                }
            }
        }
        Ok(())
    }

    /// Everything that a dump shows.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        put_message(&mut bytes, kind, flags, self.sequence, body);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut all = Vec::new();
        loop {
            for (kind, body) in self.receive()? {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(all),
                    libc::NLMSG_ERROR => return error_of(&body).map(|()| all),
                    _ => all.push((kind, body)),
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<Message>> {
        let mut buffer = vec![0; RECEIVE];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while rest.len() >= HEADER {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if !(HEADER..=rest.len()).contains(&size) {
                break;
            }
            messages.push((u16::from_ne_bytes([rest[4], rest[5]]), rest[HEADER..size].to_vec()));
            rest = &rest[aligned(size).min(rest.len())..];
        }
        Ok(messages)
    }
}

fn error_of(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

const fn aligned(size: usize) -> usize {
    size.next_multiple_of(4)
}

fn put_message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let length = (HEADER + body.len()) as u32;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(aligned(bytes.len()), 0);
}

/// Appends an attribute.
pub(crate) fn put_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (ATTRIBUTE + value.len()) as u16;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// The attributes in `bytes`, whatever their flags.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & libc::NLA_TYPE_MASK as u16;
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An attribute's value.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text attribute without the zero at its end.
pub(crate) fn text(bytes: &[u8], kind: u16) -> Option<String> {
    let value = attribute(bytes, kind)?;
    Some(String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_there_and_back() {
        let mut bytes = Vec::new();
        put_attribute(&mut bytes, 1, b"abc\0");
        put_attribute(&mut bytes, 2 | libc::NLA_F_NESTED as u16, &[1, 2, 3]);
        put_attribute(&mut bytes, 3, &[]);
        assert_eq!(bytes.len(), 8 + 8 + 4);
        let all: Vec<_> = attributes(&bytes).collect();
        assert_eq!(all, [(1, &b"abc\0"[..]), (2, &[1, 2, 3][..]), (3, &[][..])]);
        assert_eq!(text(&bytes, 1).as_deref(), Some("abc"));
        assert_eq!(attribute(&bytes, 9), None);
        // What is cut off, or says a length that cannot be, ends it.
        assert_eq!(attributes(&bytes[..9]).count(), 1);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
