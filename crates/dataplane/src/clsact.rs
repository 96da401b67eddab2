//! tc programs where the kernel has no TCX (before 6.6): filters of a `clsact` qdisc.
//!
//! Such a filter belongs to its device, not to a file descriptor or a pin: it stays when the agent ends and goes with the
//! device. Ours is known by its priority and handle, so the next agent replaces the program behind it in one step of
//! the kernel's (`list_replace_rcu` in net/sched/cls_bpf.c: each packet meets the old one or the new one), and it can be
//! taken away without a look at others'. Its programs return `TC_ACT_UNSPEC` for what is not theirs, with which filters
//! of higher numbers follow.

use std::io;

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcError};

/// Lower numbers come first. Others' filters begin at 1 (Cilium) or at 49152 (the kernel's own choice).
const PRIORITY: u16 = 10;
/// Known by this among all filters: `ea5:7`.
const HANDLE: TcHandle = TcHandle::new(0x0ea5, 0x0007);

/// Puts the program in place of what an earlier agent left there, or adds it.
///
/// # Errors
/// As the kernel says. [`io::ErrorKind::NotFound`] or `ENODEV`: the device is gone. `EINVAL`: its ingress has another
/// qdisc than clsact.
pub fn attach(program: &mut SchedClassifier, device: &str, side: TcAttachType) -> io::Result<()> {
    let old = SchedClassifierLink::attached(device, side, PRIORITY, HANDLE, None)?;
    let id = match program.attach_to_link(old) {
        Ok(id) => id,
        // Nothing to replace; without the qdisc the kernel says EINVAL, without the filter ENOENT.
        Err(error) if matches!(code(&error), Some(libc::ENOENT | libc::EINVAL)) => {
            match tc::qdisc_add_clsact(device) {
                Err(error) if tc_code(&error) != Some(libc::EEXIST) => return Err(tc_io(error)),
                _ => {}
            }
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program.attach_with_options(device, side, TcAttachOptions::Netlink(options)).map_err(io_error)?
        }
        Err(error) => return Err(io_error(error)),
    };
    // The filter stays when this process ends: dropping the link would take it away.
    std::mem::forget(program.take_link(id).map_err(io_error)?);
    Ok(())
}

/// Takes our filter away; where there is none, or no device, nothing happens.
///
/// # Errors
/// As the kernel says.
pub fn detach(device: &str, side: TcAttachType) -> io::Result<()> {
    use aya::programs::Link as _;
    let Ok(link) = SchedClassifierLink::attached(device, side, PRIORITY, HANDLE, None) else { return Ok(()) };
    match link.detach() {
        Err(error) if !matches!(code(&error), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
            Err(io_error(error))
        }
        _ => Ok(()),
    }
}

fn tc_code(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn code(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::TcError(error) => tc_code(error),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn io_error(error: ProgramError) -> io::Error {
    code(&error).map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}

fn tc_io(error: TcError) -> io::Error {
    tc_code(&error).map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}
