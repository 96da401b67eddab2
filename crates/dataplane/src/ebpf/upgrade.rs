//! Taking over from an agent of another ABI, whose pins lie in another folder.
//!
//! From ABI 1 everything is carried over: the maps whose layout is the same change folders, with their connections in
//! them, and the frontends are written in the new layout. Then each pinned link gets the new program in one step, as at
//! any restart, so no packet meets a hook that knows nothing. From an ABI that is not known only the links are taken:
//! the programs behind them go on until the first full list has been programmed and others take their place;
//! connections through virtual IPs choose anew then.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData, MapInfo};
use eastwest_abi::{self as abi, frontend_flags};

use super::tables::{KernelTables, failed};
use super::{MAPS, Programs};
use crate::plan::{FRONTENDS, Tables, Tuple};
use crate::{Error, pins, sys};

/// Programs that hooks of other versions may run.
const PROGRAMS: [&str; 16] = [
    abi::programs::POD_INGRESS_XDP,
    abi::programs::POD_INGRESS_TC,
    abi::programs::POD_EGRESS_TC,
    abi::programs::POD_HANDOVER_TC,
    abi::programs::NIC_INGRESS_XDP,
    abi::programs::NIC_INGRESS_TC,
    abi::programs::NIC_EGRESS_TC,
    abi::programs::NIC_HANDOVER_TC,
    abi::programs::CONNECT4,
    abi::programs::CONNECT6,
    abi::programs::SENDMSG4,
    abi::programs::SENDMSG6,
    abi::programs::RECVMSG4,
    abi::programs::RECVMSG6,
    abi::programs::GETPEERNAME4,
    abi::programs::GETPEERNAME6,
];

/// The ABI that can be carried over.
const KNOWN: u32 = 1;

/// Maps that are the same in both.
const SAME: [&str; 9] = [
    abi::maps::BACKENDS,
    abi::maps::SLOTS,
    abi::maps::ENDPOINTS4,
    abi::maps::ENDPOINTS6,
    abi::maps::CONNTRACK4,
    abi::maps::CONNTRACK6,
    abi::maps::SOCKETS,
    abi::maps::AFFINITY4,
    abi::maps::AFFINITY6,
];

/// `Frontend` of ABI 1: service, flags, first slot, number of slots, seconds of affinity, padding; each 4 bytes.
type Old = [u8; 24];

/// Pins of other versions.
pub(super) struct Upgrade {
    pin_dir: PathBuf,
    others: Vec<u32>,
}

impl Upgrade {
    /// Looks for them, and takes the maps that can be kept. To be called before any map is made.
    pub(super) fn find(pin_dir: &Path) -> Result<Self, Error> {
        let upgrade = Self { pin_dir: pin_dir.to_owned(), others: pins::other_versions(pin_dir)? };
        if upgrade.is_known() {
            for name in SAME {
                let (from, to) = (upgrade.folder(KNOWN).join(name), pins::maps_dir(pin_dir).join(name));
                if from.exists() && !to.exists() && has_our_layout(name, &from) {
                    move_pin(&from, &to)?;
                }
            }
        }
        Ok(upgrade)
    }

    /// Whether there are pins whose maps could not be kept.
    pub(super) fn is_unknown(&self) -> bool {
        self.others.iter().any(|version| *version != KNOWN)
    }

    fn is_known(&self) -> bool {
        self.others.contains(&KNOWN)
    }

    fn folder(&self, version: u32) -> PathBuf {
        pins::version_dir(&self.pin_dir, version)
    }

    /// Writes the old frontends into the new maps.
    pub(super) fn convert(&self, tables: &mut KernelTables) -> Result<(), Error> {
        if !self.is_known() {
            return Ok(());
        }
        let paths = FRONTENDS.map(|name| self.folder(KNOWN).join(name));
        for (key, value) in read::<8>(FRONTENDS[0], &paths[0])? {
            let [a, b, c, d, port @ .., protocol, _] = key;
            tables.put_frontend(tuple([a, b, c, d].into(), port, protocol), &converted(&value))?;
        }
        for (key, value) in read::<20>(FRONTENDS[1], &paths[1])? {
            let (addr, rest) = key.split_at(16);
            let addr: [u8; 16] = std::array::from_fn(|i| addr[i]);
            tables.put_frontend(tuple(addr.into(), [rest[0], rest[1]], rest[2]), &converted(&value))?;
        }
        Ok(())
    }

    /// Takes over the links, and removes what is left of the other versions.
    pub(super) fn finish(&self, programs: &Programs) -> Result<(), Error> {
        let links = pins::links_dir(&self.pin_dir);
        for version in &self.others {
            let folder = self.folder(*version);
            for from in pins::entries(&folder.join("links"))? {
                let Some(name) = from.file_name().and_then(|name| name.to_str()) else { continue };
                let Some(program) = program_of(name) else { continue };
                if *version == KNOWN {
                    let link = pins::open_link(&from).map_err(|source| pin_error(&from, "open", source))?;
                    programs.load(&[program])?;
                    let fd = programs.fd(program)?;
                    if let Some(link) = link {
                        // A device that is gone keeps its link until somebody removes the pin.
                        if let Err(source) = sys::update_link(link.as_fd(), fd.as_fd()) {
                            tracing::debug!(link = name, %source, "not taken over");
                            continue;
                        }
                    }
                }
                move_pin(&from, &links.join(name))?;
            }
            pins::remove_version(&folder)?;
            if *version == KNOWN {
                tracing::info!(
                    from = version,
                    to = abi::VERSION,
                    "pins of an older ABI taken over, with connections"
                );
            } else {
                tracing::warn!(
                    from = version,
                    to = abi::VERSION,
                    "pins of an unknown ABI replaced: connections through virtual IPs choose anew"
                );
            }
        }
        Ok(())
    }
}

fn pin_error(path: &Path, what: &'static str, source: io::Error) -> Error {
    Error::Pin { path: path.to_owned(), what, source }
}

fn move_pin(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(|source| pin_error(from, "move", source))
}

fn has_our_layout(name: &str, path: &Path) -> bool {
    let wanted = MAPS.iter().find(|(map, ..)| *map == name).map(|(_, key, value)| (*key, *value));
    let found =
        MapInfo::from_pin(path).ok().map(|info| (info.key_size() as usize, info.value_size() as usize));
    wanted.is_some() && found == wanted
}

/// The program behind a link by the name of its pin: `cgroup-PROGRAM`, or `INDEX-PROGRAM` with a mode behind it.
fn program_of(pin: &str) -> Option<&'static str> {
    let (_, rest) = pin.split_once('-')?;
    let rest = rest.strip_suffix("-native").or(rest.strip_suffix("-generic")).unwrap_or(rest);
    PROGRAMS.into_iter().find(|program| *program == rest)
}

fn tuple(addr: IpAddr, port: [u8; 2], protocol: u8) -> Tuple {
    Tuple { addr, port: u16::from_be_bytes(port), protocol }
}

fn read<const K: usize>(name: &'static str, path: &Path) -> Result<Vec<([u8; K], Old)>, Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let map = MapData::from_pin(path).map_err(|error| failed(name, "open", error))?;
    let map = HashMap::<_, [u8; K], Old>::try_from(Map::HashMap(map))
        .map_err(|error| failed(name, "open", error))?;
    map.iter().collect::<Result<_, _>>().map_err(|error| failed(name, "read", error))
}

fn converted(old: &Old) -> abi::Frontend {
    /// "The address itself", and "drop", of ABI 1.
    const ADDRESS: u32 = 1 << 0;
    const DROP: u32 = 1 << 1;
    let word = |at: usize| u32::from_ne_bytes([old[at], old[at + 1], old[at + 2], old[at + 3]]);
    let mut flags = 0;
    if word(4) & ADDRESS != 0 {
        flags |= frontend_flags::ADDRESS;
    }
    if word(4) & DROP != 0 {
        flags |= frontend_flags::DROP_INSIDE | frontend_flags::DROP_OUTSIDE;
    }
    let inside = abi::Extent { slots: word(8), count: word(12) };
    abi::Frontend { service: word(0), flags, affinity: word(16), pad: 0, inside, outside: inside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_behind_pins() {
        for (pin, program) in [
            ("cgroup-connect4", Some(abi::programs::CONNECT4)),
            ("17-pod_ingress_tc", Some(abi::programs::POD_INGRESS_TC)),
            ("3-nic_ingress_xdp-native", Some(abi::programs::NIC_INGRESS_XDP)),
            ("3-nic_ingress_xdp-generic", Some(abi::programs::NIC_INGRESS_XDP)),
            ("3-something_else", None),
            ("connect4", None),
        ] {
            assert_eq!(program_of(pin), program, "{pin}");
        }
    }

    #[test]
    fn frontends_of_abi_1() {
        let words = |words: [u32; 6]| {
            let mut old = [0; 24];
            for (bytes, word) in old.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
            converted(&old)
        };
        let extent = abi::Extent { slots: 5, count: 2 };
        let both = frontend_flags::DROP_INSIDE | frontend_flags::DROP_OUTSIDE;
        let none = abi::Frontend::default();
        assert_eq!(
            words([9, 0, 5, 2, 600, 0]),
            abi::Frontend { service: 9, affinity: 600, inside: extent, outside: extent, ..none }
        );
        assert_eq!(words([9, 2, 0, 0, 0, 0]), abi::Frontend { service: 9, flags: both, ..none });
        assert_eq!(words([0, 1, 0, 0, 0, 0]), abi::Frontend { flags: frontend_flags::ADDRESS, ..none });
    }
}
