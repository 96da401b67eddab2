//! Makes a veth pair behave as a NIC on a wire does, for XDP programs that send packets out of the NIC again.
//!
//! On a wire a packet has its checksum, and whatever is sent arrives. A veth passes a packet on with the checksum still
//! to be computed, which an XDP program that transmits it can no longer say; and it drops, or leaves lying in its ring,
//! what XDP transmits to a peer that has no NAPI (`veth_xdp_xmit`) or no XDP program (`veth_xdp_flush`,
//! drivers/net/veth.c).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;
use crate::error::Doing;
use crate::netns::Batch;

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_SGRO: u32 = 0x2c;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Turns GRO on, and with it NAPI. To be called inside the device's namespace.
pub(crate) fn gro_on(device: &str) -> Result<(), Error> {
    ethtool(device, ETHTOOL_SGRO, 1).doing(|| format!("turn on GRO of {device}"))
}

/// Lets the stack compute checksums before a packet leaves. To be called inside the device's namespace.
pub(crate) fn checksums_by_stack(device: &str) -> Result<(), Error> {
    ethtool(device, ETHTOOL_STXCSUM, 0).doing(|| format!("turn off checksum offload of {device}"))
}

fn ethtool(device: &str, cmd: u32, data: u32) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if device.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut name = [0 as libc::c_char; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    let mut value = EthtoolValue { cmd, data };
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: the request's name ends with a zero byte and its pointer is to an `ethtool_value` that outlives the call,
    // which is what SIOCETHTOOL reads with these commands (net/ethtool/ioctl.c).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches an XDP program that passes every packet to these devices of a namespace. `dir` is on a BPF file system.
pub(crate) fn attach_pass(netns: &str, devices: &[&str], dir: &Path) -> Result<(), Error> {
    let pin = dir.join("pass");
    fs::create_dir_all(dir).doing(|| format!("make {}", dir.display()))?;
    load_pass()
        .and_then(|program| pin_program(&program, &pin))
        .doing(|| format!("load an XDP program and pin it at {}", pin.display()))?;
    let mut batch = Batch::default();
    for device in devices {
        batch.add(format!("link set dev {device} xdpdrv pinned {}", pin.display()));
    }
    let attached = batch.run(Some(netns));
    // The devices hold the program from now on.
    remove(&pin)?;
    attached
}

fn remove(pin: &PathBuf) -> Result<(), Error> {
    fs::remove_file(pin).doing(|| format!("remove {}", pin.display()))
}

/// The part of `union bpf_attr` (linux/bpf.h) that loading a program takes.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part for pinning.
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// Packets larger than a page stay possible.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

fn load_pass() -> io::Result<OwnedFd> {
    // r0 = XDP_PASS; exit
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let license = c"GPL";
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: BPF_F_XDP_HAS_FRAGS,
    };
    // SAFETY: the attributes are of the size given, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<ProgLoad>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn pin_program(program: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjPin { pathname: path.as_ptr() as u64, bpf_fd: program.as_raw_fd() as u32, file_flags: 0 };
    // SAFETY: the attributes are of the size given, and the path outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const attr, size_of::<ObjPin>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
