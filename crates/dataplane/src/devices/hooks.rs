//! The programs on one device: which, in what order, under which pins.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::HashMap as BpfHashMap;
use aya::programs::tc::TcAttachType;
use aya::programs::{Program, SchedClassifier};
use aya::util::KernelVersion;
use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type};
use eastwest_abi::{maps, programs};

use super::Role;
use crate::sys::{self, Target};
use crate::{Error, Programs, clsact, pins};

/// Where pods' packets are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodHook {
    /// tc on the host side of the pod's veth.
    #[default]
    Tc,
    /// Generic XDP there; tc for the way back.
    Xdp,
}

/// Where packets from outside are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NicMode {
    /// Native XDP, or generic XDP where the driver has none.
    #[default]
    Auto,
    XdpNative,
    XdpGeneric,
    Tc,
}

/// Where on a device a program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    XdpNative,
    XdpGeneric,
    Ingress,
    Egress,
}

impl Place {
    fn pin_suffix(self) -> &'static str {
        match self {
            Self::XdpNative => "-native",
            Self::XdpGeneric => "-generic",
            Self::Ingress | Self::Egress => "",
        }
    }

    fn attach_type(self) -> bpf_attach_type {
        match self {
            Self::XdpNative | Self::XdpGeneric => bpf_attach_type::BPF_XDP,
            Self::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
            Self::Egress => bpf_attach_type::BPF_TCX_EGRESS,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::XdpNative => XDP_FLAGS_DRV_MODE,
            Self::XdpGeneric => XDP_FLAGS_SKB_MODE,
            Self::Ingress | Self::Egress => 0,
        }
    }

    fn is(self, target: Target, index: u32) -> bool {
        match self {
            Self::XdpNative | Self::XdpGeneric => target == Target::Xdp(index),
            Self::Ingress | Self::Egress => target == Target::Tcx(index, self.attach_type() as u32),
        }
    }

    fn clsact_side(self) -> Option<TcAttachType> {
        match self {
            Self::Ingress => Some(TcAttachType::Ingress),
            Self::Egress => Some(TcAttachType::Egress),
            Self::XdpNative | Self::XdpGeneric => None,
        }
    }
}

type Hook = (&'static str, Place);

/// The way back comes first: a packet must not be translated before its answer can be.
const POD_TC: &[Hook] =
    &[(programs::POD_EGRESS_TC, Place::Egress), (programs::POD_INGRESS_TC, Place::Ingress)];
/// What XDP hands over must be met, so the handover comes before it.
const POD_XDP: &[Hook] = &[
    (programs::POD_EGRESS_TC, Place::Egress),
    (programs::POD_HANDOVER_TC, Place::Ingress),
    (programs::POD_INGRESS_XDP, Place::XdpGeneric),
];
const TUNNEL: &[Hook] = &[(programs::NIC_EGRESS_TC, Place::Egress)];
const NIC_TC: &[Hook] =
    &[(programs::NIC_EGRESS_TC, Place::Egress), (programs::NIC_INGRESS_TC, Place::Ingress)];
const NIC_NATIVE: &[Hook] = &[
    (programs::NIC_EGRESS_TC, Place::Egress),
    (programs::NIC_HANDOVER_TC, Place::Ingress),
    (programs::NIC_INGRESS_XDP, Place::XdpNative),
];
const NIC_GENERIC: &[Hook] = &[
    (programs::NIC_EGRESS_TC, Place::Egress),
    (programs::NIC_HANDOVER_TC, Place::Ingress),
    (programs::NIC_INGRESS_XDP, Place::XdpGeneric),
];

/// Names of the programs that hooks of these kinds take.
pub(super) fn needed(pod_hook: PodHook, nic_mode: NicMode) -> Vec<&'static str> {
    let pod = match pod_hook {
        PodHook::Tc => POD_TC,
        PodHook::Xdp => POD_XDP,
    };
    let nic = match nic_mode {
        NicMode::Tc => NIC_TC,
        // The generic mode has the same programs.
        NicMode::XdpNative | NicMode::XdpGeneric | NicMode::Auto => NIC_NATIVE,
    };
    [pod, nic].concat().into_iter().map(|(name, _)| name).collect()
}

pub(super) struct Hooks {
    programs: Programs,
    fds: HashMap<&'static str, OwnedFd>,
    dir: PathBuf,
    pod_hook: PodHook,
    nic_mode: NicMode,
    /// The kernel has TCX. By its version at first, then by what it says.
    tcx: bool,
}

impl Hooks {
    pub fn new(
        programs: Programs,
        pin_dir: &Path,
        pod_hook: PodHook,
        nic_mode: NicMode,
    ) -> Result<Self, Error> {
        let names = needed(pod_hook, nic_mode);
        programs.load(&names)?;
        let fds =
            names.into_iter().map(|name| Ok((name, programs.fd(name)?))).collect::<Result<_, Error>>()?;
        let tcx = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0));
        Ok(Self { programs, fds, dir: pins::links_dir(pin_dir), pod_hook, nic_mode, tcx })
    }

    fn pin(&self, index: u32, (name, place): Hook) -> PathBuf {
        self.dir.join(format!("{index}-{name}{}", place.pin_suffix()))
    }

    /// Hooks a device, in place of what an earlier run left on it. Returns the mode. `kind` is the kernel's word for a device that
    /// is not hardware.
    pub fn attach(&mut self, role: Role, index: u32, name: &str, kind: &str) -> Result<&'static str, Error> {
        match role {
            Role::Pod => match self.pod_hook {
                PodHook::Tc => self.attach_all(index, name, POD_TC),
                PodHook::Xdp => self.attach_all(index, name, POD_XDP),
            },
            Role::Tunnel => self.attach_all(index, name, TUNNEL),
            Role::Nic => match self.nic_mode {
                NicMode::Tc => self.attach_all(index, name, NIC_TC),
                NicMode::XdpNative => self.attach_all(index, name, NIC_NATIVE),
                NicMode::XdpGeneric => self.attach_all(index, name, NIC_GENERIC),
                NicMode::Auto => {
                    // What native XDP sends out of a veth is lost unless the other end has XDP or NAPI, which is not to be seen
                    // from here (drivers/net/veth.c). And an earlier run that had to take generic mode: its hook blocks native
                    // mode, and works.
                    if kind == "veth"
                        || self.pin(index, (programs::NIC_INGRESS_XDP, Place::XdpGeneric)).exists()
                    {
                        return self.attach_all(index, name, NIC_GENERIC);
                    }
                    match self.attach_all(index, name, NIC_NATIVE) {
                        Err(reason) => {
                            let mode = self.attach_all(index, name, NIC_GENERIC)?;
                            tracing::warn!(
                                device = name,
                                kind,
                                %reason,
                                "no native XDP: generic XDP instead, which meets packets only after the kernel has made \
                                 them its own: about the cost of tc"
                            );
                            Ok(mode)
                        }
                        mode => mode,
                    }
                }
            },
        }
    }

    fn attach_all(&mut self, index: u32, name: &str, hooks: &'static [Hook]) -> Result<&'static str, Error> {
        // What another setting left there goes first: two translations of one packet are worse than none.
        let keep: Vec<PathBuf> = hooks.iter().map(|hook| self.pin(index, *hook)).collect();
        for path in self.pins_of(index) {
            if !keep.contains(&path) {
                self.remove_pin(&path);
            }
        }
        self.may_send(index, false);
        let mut mode = "tc";
        for (hook, path) in hooks.iter().zip(&keep) {
            let (program, place) = *hook;
            self.attach_one(index, name, *hook, path).map_err(|source| Error::Attach {
                program,
                target: format!("{name} ({place:?})"),
                source,
            })?;
            if place == Place::XdpNative {
                self.may_send(index, true);
            }
            match place {
                Place::XdpNative => mode = "xdp-native",
                Place::XdpGeneric => mode = "xdp-generic",
                Place::Ingress | Place::Egress if !self.tcx => mode = "clsact",
                Place::Ingress | Place::Egress => {}
            }
        }
        Ok(mode)
    }

    /// Lets XDP send out of a device what came in by another, or no more.
    fn may_send(&self, index: u32, may: bool) {
        let mut ebpf = self.programs.lock();
        let Some(map) = ebpf.map_mut(maps::NICS) else { return };
        let written = BpfHashMap::<_, u32, u32>::try_from(map)
            .and_then(|mut nics| if may { nics.insert(index, 1, 0) } else { nics.remove(&index) });
        if let Err(error) = written
            && may
        {
            tracing::warn!(index, %error, "packets for this device will not be sent by XDP");
        }
    }

    fn attach_one(&mut self, index: u32, name: &str, (program, place): Hook, path: &Path) -> io::Result<()> {
        let fd = self.fds.get(program).ok_or(io::ErrorKind::NotFound)?;
        if let Some(link) = pins::open_link(path)? {
            if place.is(sys::link_target(link.as_fd())?, index) {
                return sys::update_link(link.as_fd(), fd.as_fd());
            }
            // The device that had this index is gone.
            pins::remove(path)?;
        }
        if let Some(side) = place.clsact_side().filter(|_| !self.tcx) {
            return self.attach_filter(program, name, side);
        }
        match sys::attach_device(fd.as_fd(), index, place.attach_type(), place.flags()) {
            Ok(link) => sys::pin(link.as_fd(), path),
            Err(error) => match place.clsact_side() {
                // An attach type that the kernel does not know.
                Some(side) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.attach_filter(program, name, side)?;
                    tracing::warn!("the kernel has no TCX (Linux 6.6): clsact filters instead");
                    self.tcx = false;
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn attach_filter(&self, program: &'static str, name: &str, side: TcAttachType) -> io::Result<()> {
        let mut ebpf = self.programs.lock();
        let program: &mut SchedClassifier = match ebpf.program_mut(program) {
            Some(Program::SchedClassifier(program)) => program,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        clsact::attach(program, name, side)
    }

    /// Paths of all pins for a device.
    fn pins_of(&self, index: u32) -> Vec<PathBuf> {
        let all = [POD_TC, POD_XDP, NIC_TC, NIC_NATIVE, NIC_GENERIC].concat();
        all.into_iter().map(|hook| self.pin(index, hook)).filter(|path| path.exists()).collect()
    }

    fn remove_pin(&self, path: &Path) {
        if let Err(error) = pins::remove(path) {
            tracing::warn!(path = %path.display(), %error, "pin not removed");
        }
    }

    /// Takes our hooks off a device that is gone or not ours any more.
    pub fn remove(&self, index: u32) {
        self.may_send(index, false);
        for path in self.pins_of(index) {
            self.remove_pin(&path);
        }
        // A filter goes with its device; a device that stays must lose it.
        if !self.tcx
            && let Ok(name) = nix::net::if_::if_indextoname(index)
        {
            for side in [TcAttachType::Ingress, TcAttachType::Egress] {
                if let Err(error) = clsact::detach(&name.to_string_lossy(), side) {
                    tracing::warn!(index, %error, "clsact filter not removed");
                }
            }
        }
    }

    /// Removes pins of devices that are not there any more.
    pub fn sweep(&self, present: &HashSet<u32>) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let index =
                name.to_str().and_then(|name| name.split_once('-')).and_then(|(index, _)| index.parse().ok());
            if index.is_some_and(|index| !present.contains(&index)) {
                self.remove_pin(&entry.path());
            }
        }
        Ok(())
    }
}

/// Takes our clsact filters off all devices.
pub(super) fn remove_filters() -> Result<(), Error> {
    let names = nix::net::if_::if_nameindex().map_err(|errno| Error::system("list devices", errno.into()))?;
    for device in &names {
        let name = device.name().to_string_lossy();
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            clsact::detach(&name, side)
                .map_err(|source| Error::system(format!("remove the clsact filter of {name}"), source))?;
        }
    }
    Ok(())
}
