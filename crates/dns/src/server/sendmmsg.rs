//! The one call that no safe wrapper makes: nix has `sendmmsg`, but reads addresses that it never wrote when asked how
//! many messages went out.

use std::io;
use std::os::fd::AsRawFd;

use socket2::SockAddr;

use super::batch::BATCH;

/// Sends each of `messages` to the peer at its place, [`BATCH`] at most, without waiting; says how many went out.
///
/// # Errors
/// Why the first did not.
pub(super) fn sendmmsg(socket: &impl AsRawFd, messages: &[Vec<u8>], peers: &[SockAddr]) -> io::Result<usize> {
    let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: mmsghdr is made of integers and pointers, for which all zeros are valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    for (((message, peer), slice), header) in messages.iter().zip(peers).zip(&mut slices).zip(&mut headers) {
        // The kernel only reads through both pointers: they are mutable by the C type alone.
        *slice = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = peer.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = peer.len();
        count += 1;
    }
    // SAFETY: the first `count` headers point to a slice in `slices`, to a message and to an address that all outlive
    // the call, with their true lengths; the descriptor is open as long as `socket` is borrowed.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
