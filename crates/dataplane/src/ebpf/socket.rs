//! The socket programs on a cgroup, as pinned links.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya_obj::generated::bpf_attach_type;
use eastwest_abi::programs;

use super::Programs;
use crate::sys::{self, Target};
use crate::{Error, pins};

const HOOKS: [(&str, bpf_attach_type); 8] = [
    // Those that answer come first, so that no socket is translated one way only.
    (programs::GETPEERNAME4, bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME),
    (programs::GETPEERNAME6, bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME),
    (programs::RECVMSG4, bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG),
    (programs::RECVMSG6, bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG),
    (programs::SENDMSG4, bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    (programs::SENDMSG6, bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    (programs::CONNECT4, bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    (programs::CONNECT6, bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
];

/// Attaches all socket programs to `cgroup`, each in place of the one that an earlier run left there. `None`: takes
/// away what an earlier run left.
pub(super) fn attach(programs: &Programs, pin_dir: &Path, cgroup: Option<&Path>) -> Result<(), Error> {
    let dir = pins::links_dir(pin_dir);
    let pin_error = |what| move |source| Error::Pin { path: pins::links_dir(pin_dir), what, source };
    let Some(cgroup) = cgroup else {
        for (name, _) in HOOKS {
            pins::remove(&dir.join(format!("cgroup-{name}"))).map_err(pin_error("remove a link"))?;
        }
        return Ok(());
    };
    programs.load(&HOOKS.map(|(name, _)| name))?;
    let error = |source| Error::Cgroup { path: cgroup.to_owned(), source };
    let folder = sys::open_folder(cgroup).map_err(error)?;
    let id = std::fs::metadata(cgroup).map_err(error)?.ino();
    for (name, kind) in HOOKS {
        let path = dir.join(format!("cgroup-{name}"));
        let program = programs.fd(name)?;
        let failed = |source| Error::Attach { program: name, target: cgroup.display().to_string(), source };
        let old = pins::open_link(&path).map_err(pin_error("open a link"))?;
        if let Some(link) = old {
            if sys::link_target(link.as_fd()).map_err(failed)? == Target::Cgroup(id) {
                sys::update_link(link.as_fd(), program.as_fd()).map_err(failed)?;
                continue;
            }
            pins::remove(&path).map_err(pin_error("remove a link"))?;
        }
        let link = sys::attach_cgroup(program.as_fd(), folder.as_fd(), kind).map_err(failed)?;
        sys::pin(link.as_fd(), &path).map_err(pin_error("pin a link"))?;
    }
    Ok(())
}
