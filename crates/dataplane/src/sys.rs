//! The few `bpf(2)` commands that aya has no (or no suitable) face for: links by interface index, update of a cgroup
//! link, pins of links. Layouts are those of `union bpf_attr` in include/uapi/linux/bpf.h; the kernel takes a shorter
//! attribute as one that ends in zeros.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type};

#[repr(C)]
struct LinkCreate {
    program: u32,
    /// File descriptor or interface index.
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct LinkDetach {
    link: u32,
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    len: u32,
    info: u64,
}

/// `struct bpf_link_info` up to the largest member that is read here.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// tcx and xdp: interface index and, for tcx, attach type. cgroup: the cgroup's id.
    member: [u32; 4],
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Interface index; 0 when the device is gone.
    Xdp(u32),
    /// Interface index, 0 when the device is gone, and attach type.
    Tcx(u32, u32),
    /// Id of the cgroup, which is its inode number; 0 when the cgroup is gone.
    Cgroup(u64),
    Other,
}

fn bpf<T>(command: bpf_cmd, attribute: &T) -> io::Result<i64> {
    // SAFETY: `attribute` is a whole, initialised structure of the size told; pointers in it are to memory that
    // outlives the call, as each caller below sees to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command as i32),
            std::ptr::from_ref(attribute),
            size_of::<T>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A file descriptor is never negative.
    fd.as_raw_fd() as u32
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this file descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Attaches a program to an interface, as a link that goes with its last file descriptor or pin.
pub fn attach_device(
    program: BorrowedFd<'_>,
    index: u32,
    kind: bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let attribute = LinkCreate { program: raw(program), target: index, attach_type: kind as u32, flags };
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &attribute)?)
}

/// Attaches a program to a cgroup; others' programs there run too.
pub fn attach_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    kind: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let attribute =
        LinkCreate { program: raw(program), target: raw(cgroup), attach_type: kind as u32, flags: 0 };
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &attribute)?)
}

/// Replaces the program behind a link in one step.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attribute = LinkUpdate { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    bpf(bpf_cmd::BPF_LINK_UPDATE, &attribute).map(drop)
}

/// Detaches a link at once. One whose last holder goes is detached by the kernel in its own time.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(bpf_cmd::BPF_LINK_DETACH, &LinkDetach { link: raw(link) }).map(drop)
}

/// Pins an object.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let attribute = Object { path: path.as_ptr() as u64, fd: raw(object), flags: 0 };
    bpf(bpf_cmd::BPF_OBJ_PIN, &attribute).map(drop)
}

/// Opens a pinned object.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attribute = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    owned(bpf(bpf_cmd::BPF_OBJ_GET, &attribute)?)
}

/// What a link is attached to.
pub fn link_target(link: BorrowedFd<'_>) -> io::Result<Target> {
    let mut info = RawLinkInfo::default();
    let attribute = InfoByFd {
        fd: raw(link),
        len: size_of::<RawLinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &attribute)?;
    let [first, second, ..] = info.member;
    Ok(if info.kind == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        Target::Xdp(first)
    } else if info.kind == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        Target::Tcx(first, second)
    } else if info.kind == bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        let [a, b, c, d] = first.to_ne_bytes();
        let [e, f, g, h] = second.to_ne_bytes();
        Target::Cgroup(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    } else {
        Target::Other
    })
}

/// Opens a folder, as a cgroup is attached to.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
    file.as_fd().try_clone_to_owned()
}

/// Identity of this thread's network namespace, as `bpf_get_netns_cookie` tells it of a socket (Linux 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option's value is a u64, and `length` says that there is room for one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The clock that the programs read, `bpf_ktime_get_coarse_ns`.
pub(crate) fn coarse_clock() -> std::time::Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which lives as long as the call; of a clock that every kernel has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    std::time::Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
