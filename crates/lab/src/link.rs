//! The one device setting that `ip` does not know.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;
use crate::error::Doing;

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

const ETHTOOL_SGRO: u32 = 0x2c;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Turns GRO on, and with it NAPI, without which a veth drops what XDP transmits or redirects to its peer. To be called
/// inside the device's namespace.
pub(crate) fn gro_on(device: &str) -> Result<(), Error> {
    set_gro(device).doing(|| format!("turn on GRO of {device}"))
}

fn set_gro(device: &str) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if device.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut name = [0 as libc::c_char; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    let mut value = EthtoolValue { cmd: ETHTOOL_SGRO, data: 1 };
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: the request's name ends with a zero byte and its pointer is to an `ethtool_value` that outlives the call,
    // which is what SIOCETHTOOL with ETHTOOL_SGRO reads (net/ethtool/ioctl.c).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
