//! The plan's tables on the kernel's maps.

use std::borrow::BorrowMut;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use eastwest_abi as abi;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use memmap2::{MmapOptions, MmapRaw};

use super::stale::Gone;
use crate::Error;
use crate::plan::{ENDPOINTS, FRONTENDS, Held, Limits, SOURCES, Tables, Tuple};

/// A value of a map as aya takes it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub T);

// SAFETY: the ABI's types are `repr(C)`, `Copy`, without padding and without invalid bit patterns (asserted there).
unsafe impl Pod for Wire<abi::FrontendKey4> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::FrontendKey6> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Frontend> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::EndpointKey4> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::EndpointKey6> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Config> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::SocketKey> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Socket> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Source4> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Source6> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::ConntrackKey4> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::ConntrackKey6> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Conntrack4> {}
// SAFETY: as above.
unsafe impl Pod for Wire<abi::Conntrack6> {}

/// `before`, if it took UDP flows and its successor in the place `id` does not.
fn loses_udp(id: u32, before: &abi::Backend, after: &abi::Backend) -> Option<Gone> {
    const WANTED: u32 = abi::backend_flags::LIVE | abi::backend_flags::USABLE;
    let took = before.flags & WANTED == WANTED && i32::from(before.protocol) == libc::IPPROTO_UDP;
    let same = (before.addr, before.port, before.generation) == (after.addr, after.port, after.generation);
    let takes = after.flags & WANTED == WANTED && same;
    if !took || takes {
        return None;
    }
    Some(Gone { addr: before.addr, port: before.port, id, generation: before.generation })
}

/// A memory-mapped array map. The kernel spaces its elements by the value size rounded up to 8 (kernel/bpf/arraymap.c).
///
/// Mapped in pieces, as they are used: the kernel puts all pages of a mapping in place at once, and a table is as large as a node
/// may ever need it.
pub(super) struct Mapped {
    map: Arc<OwnedFd>,
    pieces: Box<[OnceLock<MmapRaw>]>,
    stride: usize,
    entries: u32,
}

/// Elements of a piece: whole pages, whatever the stride.
const PIECE: usize = 1 << 14;

impl Mapped {
    pub fn new(name: &'static str, map: &MapData, value_size: usize) -> Result<Self, Error> {
        let entries = map.info().map_err(|error| failed(name, "read info", error))?.max_entries();
        let fd = map.fd().as_fd().try_clone_to_owned().map_err(|source| Error::system("dup", source))?;
        let mapped = Self::of(Arc::new(fd), value_size.next_multiple_of(8), entries);
        // What stands against it is seen at the start.
        mapped.map_piece(0).map_err(|source| Error::Map { map: name, action: "mmap", source })?;
        Ok(mapped)
    }

    fn of(map: Arc<OwnedFd>, stride: usize, entries: u32) -> Self {
        let pieces = (entries as usize).div_ceil(PIECE);
        Self { map, pieces: std::iter::repeat_with(OnceLock::new).take(pieces).collect(), stride, entries }
    }

    /// The same map with nothing of it mapped yet.
    fn anew(&self) -> Self {
        Self::of(self.map.clone(), self.stride, self.entries)
    }

    fn map_piece(&self, piece: usize) -> io::Result<MmapRaw> {
        let first = piece * PIECE;
        let elements = PIECE.min((self.entries as usize).saturating_sub(first));
        let mut options = MmapOptions::new();
        options.offset((first * self.stride) as u64).len(elements * self.stride);
        options.map_raw(self.map.as_raw_fd())
    }

    /// A number that the kernel side counts up.
    pub fn load_u64(&self, index: u32) -> Option<u64> {
        // SAFETY: an element inside the mapping, aligned to 8; it may change while it is read.
        self.at(index).map(|at| unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::Relaxed))
    }

    /// Address of an element; `None` outside.
    fn at(&self, index: u32) -> Option<*mut u8> {
        if index >= self.entries {
            return None;
        }
        let index = index as usize;
        let piece = self.pieces.get(index / PIECE)?.get_or_init(|| {
            self.map_piece(index / PIECE).unwrap_or_else(|error| {
                // As any other memory that cannot be had; the kernel goes on with what is programmed.
                tracing::error!(%error, "no memory for a part of a map");
                std::process::abort()
            })
        });
        Some(piece.as_mut_ptr().wrapping_add(index % PIECE * self.stride))
    }
}

fn read_backend(backends: &Mapped, id: u32) -> Option<abi::Backend> {
    // SAFETY: `at` gives an element inside the mapping, which is at least as large as the value and aligned to 8.
    // Only this process writes backends.
    backends.at(id).map(|at| unsafe { at.cast::<abi::Backend>().read_volatile() })
}

/// The maps that a plan writes.
pub struct KernelTables {
    frontends4: HashMap<MapData, Wire<abi::FrontendKey4>, Wire<abi::Frontend>>,
    frontends6: HashMap<MapData, Wire<abi::FrontendKey6>, Wire<abi::Frontend>>,
    endpoints4: HashMap<MapData, Wire<abi::EndpointKey4>, u32>,
    endpoints6: HashMap<MapData, Wire<abi::EndpointKey6>, u32>,
    sources4: LpmTrie<MapData, Wire<abi::Source4>, u32>,
    sources6: LpmTrie<MapData, Wire<abi::Source6>, u32>,
    backends: Mapped,
    slots: Mapped,
    limits: Limits,
    /// UDP backends that take no more flows, since they were asked for last.
    gone: Vec<Gone>,
}

/// A map error with the operating system's reason in it.
pub(crate) fn failed(map: &'static str, action: &'static str, error: MapError) -> Error {
    let source = match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::KeyNotFound => io::Error::from(io::ErrorKind::NotFound),
        other => io::Error::other(other.to_string()),
    };
    Error::Map { map, action, source }
}

/// A hash map and how many entries it can hold.
fn hash<K: Pod, V: Pod>(name: &'static str, map: Map) -> Result<(HashMap<MapData, K, V>, u32), Error> {
    let Map::HashMap(data) = &map else { return Err(Error::Missing(name)) };
    let entries = data.info().map_err(|error| failed(name, "read info", error))?.max_entries();
    Ok((HashMap::try_from(map).map_err(|error| failed(name, "open", error))?, entries))
}

/// A trie and how many entries it can hold.
fn trie<K: Pod>(name: &'static str, map: Map) -> Result<(LpmTrie<MapData, K, u32>, u32), Error> {
    let Map::LpmTrie(data) = &map else { return Err(Error::Missing(name)) };
    let entries = data.info().map_err(|error| failed(name, "read info", error))?.max_entries();
    Ok((LpmTrie::try_from(map).map_err(|error| failed(name, "open", error))?, entries))
}

/// Bits of `abi::Source::list`, which a prefix counts too.
const LIST_BITS: u32 = 32;

fn source4(list: u32, range: Ipv4Net) -> Key<Wire<abi::Source4>> {
    let addr = abi::Addr4(u32::from_ne_bytes(range.network().octets()));
    Key::new(LIST_BITS + u32::from(range.prefix_len()), Wire(abi::Source { list, addr }))
}

fn source6(list: u32, range: Ipv6Net) -> Key<Wire<abi::Source6>> {
    let octets = range.network().octets();
    let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    let addr = abi::Addr6([word(0), word(4), word(8), word(12)]);
    Key::new(LIST_BITS + u32::from(range.prefix_len()), Wire(abi::Source { list, addr }))
}

/// The range that a key stands for; `None`: not one that we write.
fn range(prefix: u32, addr: IpAddr) -> Option<IpNet> {
    IpNet::new(addr, u8::try_from(prefix.checked_sub(LIST_BITS)?).ok()?).ok()
}

fn key4(key: Tuple, addr: [u8; 4]) -> Wire<abi::FrontendKey4> {
    Wire(abi::FrontendKey4 { addr, port: key.port.to_be_bytes(), protocol: key.protocol, pad: 0 })
}

fn key6(key: Tuple, addr: [u8; 16]) -> Wire<abi::FrontendKey6> {
    Wire(abi::FrontendKey6 { addr, port: key.port.to_be_bytes(), protocol: key.protocol, pad: 0 })
}

fn endpoint4(key: Tuple, addr: [u8; 4]) -> Wire<abi::EndpointKey4> {
    Wire(abi::EndpointKey4 { addr, port: key.port.to_be_bytes(), protocol: key.protocol, pad: 0 })
}

fn endpoint6(key: Tuple, addr: [u8; 16]) -> Wire<abi::EndpointKey6> {
    Wire(abi::EndpointKey6 { addr, port: key.port.to_be_bytes(), protocol: key.protocol, pad: 0 })
}

fn tuple(addr: impl Into<IpAddr>, port: [u8; 2], protocol: u8) -> Tuple {
    Tuple { addr: addr.into(), port: u16::from_be_bytes(port), protocol }
}

fn put<K: Pod, V: Pod>(
    name: &'static str,
    map: &mut HashMap<impl BorrowMut<MapData>, K, V>,
    key: K,
    value: V,
) -> Result<(), Error> {
    map.insert(key, value, 0).map_err(|error| failed(name, "update", error))
}

fn remove<K: Pod, V: Pod>(
    name: &'static str,
    map: &mut HashMap<impl BorrowMut<MapData>, K, V>,
    key: K,
) -> Result<(), Error> {
    match map.remove(&key).map_err(|error| failed(name, "delete", error)) {
        Err(Error::Map { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl KernelTables {
    /// Takes the maps out of a loaded object.
    pub(super) fn new(mut take: impl FnMut(&'static str) -> Result<Map, Error>) -> Result<Self, Error> {
        let (frontends4, a) = hash(FRONTENDS[0], take(FRONTENDS[0])?)?;
        let (frontends6, b) = hash(FRONTENDS[1], take(FRONTENDS[1])?)?;
        let (endpoints4, c) = hash(ENDPOINTS[0], take(ENDPOINTS[0])?)?;
        let (endpoints6, d) = hash(ENDPOINTS[1], take(ENDPOINTS[1])?)?;
        let (sources4, e) = trie(SOURCES[0], take(SOURCES[0])?)?;
        let (sources6, f) = trie(SOURCES[1], take(SOURCES[1])?)?;
        let mut array = |name, value_size| match take(name)? {
            Map::Array(data) => Mapped::new(name, &data, value_size),
            _ => Err(Error::Missing(name)),
        };
        let backends = array(abi::maps::BACKENDS, size_of::<abi::Backend>())?;
        let slots = array(abi::maps::SLOTS, size_of::<u32>())?;
        let limits = Limits {
            frontends: a.min(b),
            endpoints: c.min(d),
            backends: backends.entries,
            slots: slots.entries,
            sources: e.min(f),
        };
        Ok(Self {
            frontends4,
            frontends6,
            endpoints4,
            endpoints6,
            sources4,
            sources6,
            backends,
            slots,
            limits,
            gone: Vec::new(),
        })
    }

    /// Sizes of the maps as they are, whatever was asked for.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// UDP backends that took new flows at the last call of this and take none now.
    pub(super) fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    fn read_backend(&self, id: u32) -> Option<abi::Backend> {
        read_backend(&self.backends, id)
    }

    fn slot_cell(&self, slot: u32) -> Option<&AtomicU32> {
        // SAFETY: `at` gives an element inside the mapping, aligned to 8; the mapping lives as long as `self`.
        self.slots.at(slot).map(|at| unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// Everything the maps hold.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn held(&self) -> Result<Held, Error> {
        let mut held = Held::default();
        for entry in self.frontends4.iter() {
            let (Wire(key), Wire(value)) = entry.map_err(|error| failed(FRONTENDS[0], "read", error))?;
            held.frontends.push((tuple(key.addr, key.port, key.protocol), value));
        }
        for entry in self.frontends6.iter() {
            let (Wire(key), Wire(value)) = entry.map_err(|error| failed(FRONTENDS[1], "read", error))?;
            held.frontends.push((tuple(key.addr, key.port, key.protocol), value));
        }
        for entry in self.endpoints4.iter() {
            let (Wire(key), value) = entry.map_err(|error| failed(ENDPOINTS[0], "read", error))?;
            held.endpoints.push((tuple(key.addr, key.port, key.protocol), value));
        }
        for entry in self.endpoints6.iter() {
            let (Wire(key), value) = entry.map_err(|error| failed(ENDPOINTS[1], "read", error))?;
            held.endpoints.push((tuple(key.addr, key.port, key.protocol), value));
        }
        for entry in self.sources4.iter() {
            let (key, _) = entry.map_err(|error| failed(SOURCES[0], "read", error))?;
            let Wire(abi::Source { list, addr }) = key.data();
            held.sources
                .extend(range(key.prefix_len(), addr.0.to_ne_bytes().into()).map(|range| (list, range)));
        }
        for entry in self.sources6.iter() {
            let (key, _) = entry.map_err(|error| failed(SOURCES[1], "read", error))?;
            let Wire(abi::Source { list, addr }) = key.data();
            let [a, b, c, d] = addr.0.map(u32::to_ne_bytes);
            let octets: [u8; 16] = std::array::from_fn(|i| [a, b, c, d][i / 4][i % 4]);
            held.sources.extend(range(key.prefix_len(), octets.into()).map(|range| (list, range)));
        }
        let slots = held
            .frontends
            .iter()
            .flat_map(|(_, value)| [value.inside, value.outside])
            .map(|extent| extent.slots.saturating_add(extent.count))
            .max()
            .unwrap_or(0)
            .min(self.slots.entries);
        held.slots = (0..slots)
            .filter_map(|slot| self.slot_cell(slot))
            .map(|cell| cell.load(Ordering::Relaxed))
            .collect();
        // Looked through to the end, which stays mapped no longer than that.
        let all = self.backends.anew();
        let backends = (0..all.entries)
            .rev()
            .find(|id| {
                read_backend(&all, *id).is_some_and(|backend| backend.generation != 0 || backend.flags != 0)
            })
            .map_or(0, |last| last + 1);
        held.backends = (0..backends).filter_map(|id| read_backend(&all, id)).collect();
        Ok(held)
    }
}

impl Tables for KernelTables {
    fn write_backend(&mut self, id: u32, backend: &abi::Backend) {
        if let Some(before) = self.read_backend(id) {
            self.gone.extend(loses_udp(id, &before, backend));
        }
        let Some(at) = self.backends.at(id) else { return };
        let at = at.cast::<abi::Backend>();
        // SAFETY: `at` is inside the mapping and aligned; the kernel side only reads, and what it may read of a
        // backend that changes hands is kept whole by the order of the writes: the id is free (flags 0) before, and
        // its flags come last.
        let flags = unsafe { AtomicU32::from_ptr(&raw mut (*at).flags) };
        if backend.flags != 0 {
            // SAFETY: as above; each field is written where it lies.
            unsafe {
                (&raw mut (*at).addr).write_volatile(backend.addr);
                (&raw mut (*at).port).write_volatile(backend.port);
                (&raw mut (*at).protocol).write_volatile(backend.protocol);
                (&raw mut (*at).generation).write_volatile(backend.generation);
            }
            fence(Ordering::Release);
        }
        flags.store(backend.flags, Ordering::Release);
    }

    fn write_slot(&mut self, slot: u32, backend: u32) {
        if let Some(cell) = self.slot_cell(slot) {
            cell.store(backend, Ordering::Release);
        }
    }

    fn put_frontend(&mut self, key: Tuple, value: &abi::Frontend) -> Result<(), Error> {
        match key.addr {
            IpAddr::V4(addr) => {
                put(FRONTENDS[0], &mut self.frontends4, key4(key, addr.octets()), Wire(*value))
            }
            IpAddr::V6(addr) => {
                put(FRONTENDS[1], &mut self.frontends6, key6(key, addr.octets()), Wire(*value))
            }
        }
    }

    fn remove_frontend(&mut self, key: Tuple) -> Result<(), Error> {
        match key.addr {
            IpAddr::V4(addr) => remove(FRONTENDS[0], &mut self.frontends4, key4(key, addr.octets())),
            IpAddr::V6(addr) => remove(FRONTENDS[1], &mut self.frontends6, key6(key, addr.octets())),
        }
    }

    fn put_endpoint(&mut self, key: Tuple, backend: u32) -> Result<(), Error> {
        match key.addr {
            IpAddr::V4(addr) => {
                put(ENDPOINTS[0], &mut self.endpoints4, endpoint4(key, addr.octets()), backend)
            }
            IpAddr::V6(addr) => {
                put(ENDPOINTS[1], &mut self.endpoints6, endpoint6(key, addr.octets()), backend)
            }
        }
    }

    fn remove_endpoint(&mut self, key: Tuple) -> Result<(), Error> {
        match key.addr {
            IpAddr::V4(addr) => remove(ENDPOINTS[0], &mut self.endpoints4, endpoint4(key, addr.octets())),
            IpAddr::V6(addr) => remove(ENDPOINTS[1], &mut self.endpoints6, endpoint6(key, addr.octets())),
        }
    }

    fn put_source(&mut self, list: u32, range: IpNet) -> Result<(), Error> {
        match range {
            IpNet::V4(range) => {
                self.sources4.insert(&source4(list, range), 1, 0).map_err(|e| (SOURCES[0], e))
            }
            IpNet::V6(range) => {
                self.sources6.insert(&source6(list, range), 1, 0).map_err(|e| (SOURCES[1], e))
            }
        }
        .map_err(|(name, error)| failed(name, "update", error))
    }

    fn remove_source(&mut self, list: u32, range: IpNet) -> Result<(), Error> {
        let removed = match range {
            IpNet::V4(range) => self.sources4.remove(&source4(list, range)).map_err(|e| (SOURCES[0], e)),
            IpNet::V6(range) => self.sources6.remove(&source6(list, range)).map_err(|e| (SOURCES[1], e)),
        };
        match removed.map_err(|(name, error)| failed(name, "delete", error)) {
            Err(Error::Map { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
