//! At the sockets of processes on the host.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

/// Go on with the system call.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn connect4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(_ctx: SockAddrContext) -> i32 {
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(_ctx: SockAddrContext) -> i32 {
    ALLOW
}
