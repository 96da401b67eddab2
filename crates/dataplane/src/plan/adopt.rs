//! Taking up what pinned maps hold, so that ids, generations and extents carry over a restart and connections with them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eastwest_abi as abi;
use ipnet::IpNet;

use super::{Backend, BackendKey, Endpoint, Installed, Limits, Plan, Rules, Shared, Tables, Tuple, family};
use crate::extent::{Extent, Extents};
use crate::ids::Ids;
use crate::{Applied, Error};

/// What the tables hold, as read.
#[derive(Debug, Default)]
pub struct Held {
    /// All entries, address entries included.
    pub frontends: Vec<(Tuple, abi::Frontend)>,
    pub endpoints: Vec<(Tuple, u32)>,
    /// By id from 0; may end after the last one that was ever used.
    pub backends: Vec<abi::Backend>,
    /// By slot; may end after the last one in use.
    pub slots: Vec<u32>,
    /// Lists with their ranges.
    pub sources: Vec<(u32, IpNet)>,
}

impl Plan {
    /// Starts from what the tables hold. What is not whole (a crash in mid-write, another's scribbling) is cleared at
    /// once or marked to be rewritten; frontends that are whole stay until [`Plan::reconcile`] decides.
    ///
    /// # Errors
    /// When the kernel refuses a clean-up.
    pub fn adopt<T: Tables>(tables: &mut T, limits: Limits, rules: Rules, held: Held) -> Result<Self, Error> {
        let mut plan = Self::new(limits, rules);
        plan.slots = Extents::new(limits.slots);
        let mut address_entries = Vec::new();
        let mut highest = 0;
        for (tuple, value) in held.frontends {
            if tuple.is_address() {
                address_entries.push((tuple, value));
                continue;
            }
            highest = highest.max(value.service);
            let whole = plan.adopt_extents(tuple, &value, &held.backends, &held.slots);
            // Service 0 is nobody's: such a frontend is rewritten by whoever claims it.
            let value = if whole { value } else { abi::Frontend::default() };
            plan.frontend_count[family(tuple.addr)] += 1;
            plan.frontends.insert(tuple, Installed { owner: None, value, virtual_ip: false });
        }
        plan.next_port_id = highest.wrapping_add(1).max(1);
        plan.adopt_addresses(tables, address_entries)?;
        plan.adopt_backends(tables, &held.backends);
        plan.adopt_endpoints(tables, held.endpoints)?;
        for (list, range) in held.sources {
            plan.source_count[family(range.addr())] += 1;
            plan.sources.entry(list).or_default().insert(range);
        }
        Ok(plan)
    }

    /// Takes up the extents of one frontend with their backends; false when they do not hold together.
    fn adopt_extents(
        &mut self,
        tuple: Tuple,
        value: &abi::Frontend,
        backends: &[abi::Backend],
        slots: &[u32],
    ) -> bool {
        if value.service == 0 {
            return false;
        }
        let mut adopted = Vec::new();
        for extent in Self::extents_of(value) {
            if !self.adopt_extent(tuple, value.service, extent, backends, slots) {
                self.forget_extents(&adopted);
                return false;
            }
            adopted.push(extent);
        }
        true
    }

    /// Takes back what `adopt_extent` did, for a frontend whose other extent is not whole.
    fn forget_extents(&mut self, adopted: &[Extent]) {
        for extent in adopted {
            let Some(shared) = self.extents.get_mut(&extent.offset) else { continue };
            shared.refs -= 1;
            if shared.refs > 0 {
                continue;
            }
            let ids = self.extents.remove(&extent.offset).map(|shared| shared.ids).unwrap_or_default();
            for id in ids {
                let Some(backend) = self.backends[id as usize].as_mut() else { continue };
                backend.refs -= 1;
                if backend.refs == 0 {
                    let key = backend.key;
                    self.backends[id as usize] = None;
                    self.backend_ids.remove(&key);
                }
            }
            self.slots.give_back(*extent);
        }
    }

    fn adopt_extent(
        &mut self,
        tuple: Tuple,
        service: u32,
        extent: Extent,
        backends: &[abi::Backend],
        slots: &[u32],
    ) -> bool {
        if let Some(shared) = self.extents.get_mut(&extent.offset) {
            let same = shared.service == service && shared.ids.len() == extent.len as usize;
            shared.refs += u32::from(same);
            return same;
        }
        let Some(end) = extent.offset.checked_add(extent.len) else { return false };
        let Some(ids) = slots.get(extent.offset as usize..end as usize) else { return false };
        let found: Option<Vec<Backend>> =
            ids.iter().map(|id| adopt_backend(*id, tuple, service, backends)).collect();
        let Some(found) = found else { return false };
        let clash = ids.iter().zip(&found).any(|(id, backend)| {
            self.backend(*id).is_some_and(|other| other.key != backend.key)
                || self.backend_ids.get(&backend.key).is_some_and(|other| other != id)
        });
        if clash || !self.slots.reserve(extent) {
            return false;
        }
        for (id, backend) in ids.iter().zip(found) {
            let refs = self.backend(*id).map_or(0, |backend| backend.refs);
            self.set_backend(*id, Some(Backend { refs: refs + 1, ..backend }));
            self.backend_ids.insert(backend.key, *id);
        }
        self.extents.insert(extent.offset, Shared { service, ids: ids.into(), refs: 1 });
        true
    }

    /// Takes up entries for addresses, with the frontends for which they stand; and has the node's own left alone. Entries
    /// that nothing stands for yet stay, as frontends do.
    fn adopt_addresses<T: Tables>(
        &mut self,
        tables: &mut T,
        entries: Vec<(Tuple, abi::Frontend)>,
    ) -> Result<(), Error> {
        let skip: Vec<IpAddr> = self.rules.skip.iter().copied().collect();
        for addr in &skip {
            self.addresses.entry(*addr).or_default().left_alone += 1;
        }
        for (tuple, value) in entries {
            if !matches!(value.flags, abi::frontend_flags::ADDRESS | abi::frontend_flags::NODE) {
                tables.remove_frontend(tuple)?;
                continue;
            }
            self.addresses.entry(tuple.addr).or_default().written = value.flags;
            self.frontend_count[family(tuple.addr)] += 1;
        }
        for (tuple, installed) in &mut self.frontends {
            if let Some(address) = self.addresses.get_mut(&tuple.addr)
                && address.written == abi::frontend_flags::ADDRESS
            {
                address.refs += 1;
                installed.virtual_ip = true;
            }
        }
        for addr in skip {
            self.settle_address(tables, addr, &mut Applied::default())?;
        }
        Ok(())
    }

    /// Clears backends that no frontend reaches, and takes up all generations.
    fn adopt_backends<T: Tables>(&mut self, tables: &mut T, held: &[abi::Backend]) {
        for (id, backend) in (0..).zip(held).skip(1) {
            if backend.flags != 0 && self.backend(id).is_none() {
                tables.write_backend(id, &abi::Backend { flags: 0, ..*backend });
            }
        }
        let ever_used = held
            .iter()
            .rposition(|backend| backend.generation != 0 || backend.flags != 0)
            .map_or(0, |last| last + 1);
        let generations: Vec<(u32, bool)> = (0..)
            .zip(&held[..ever_used])
            .skip(1)
            .map(|(id, backend)| (backend.generation, self.backend(id).is_some()))
            .collect();
        self.ids = Ids::adopt(self.limits.backends, generations.into_iter());
    }

    fn adopt_endpoints<T: Tables>(&mut self, tables: &mut T, held: Vec<(Tuple, u32)>) -> Result<(), Error> {
        let mut endpoints: HashMap<Tuple, Endpoint> = HashMap::new();
        for (id, backend) in (0..).zip(&self.backends) {
            if let Some(backend) = backend {
                endpoints.entry(backend.tuple()).or_default().ids.push(id);
            }
        }
        for (tuple, id) in held {
            match endpoints.get_mut(&tuple) {
                Some(endpoint) if endpoint.ids.contains(&id) => endpoint.written = id,
                Some(_) => {}
                None => tables.remove_endpoint(tuple)?,
            }
        }
        for (tuple, endpoint) in &mut endpoints {
            if endpoint.written == 0 {
                tables.put_endpoint(*tuple, endpoint.ids[0])?;
                endpoint.written = endpoint.ids[0];
            }
            self.endpoint_count[family(tuple.addr)] += 1;
        }
        self.endpoints = endpoints;
        Ok(())
    }
}

/// What backend `id` is, if it can be a backend of a frontend like `tuple`.
fn adopt_backend(id: u32, tuple: Tuple, service: u32, backends: &[abi::Backend]) -> Option<Backend> {
    let held = backends.get(id as usize)?;
    if id == 0 || held.flags & abi::backend_flags::LIVE == 0 || held.protocol != tuple.protocol {
        return None;
    }
    let addr = match tuple.addr {
        IpAddr::V4(_) => {
            let [a, b, c, d, rest @ ..] = held.addr;
            if rest != [0; 12] {
                return None;
            }
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(held.addr)),
    };
    Some(Backend {
        key: BackendKey { service, addr, port: u16::from_be_bytes(held.port) },
        protocol: held.protocol,
        flags: held.flags,
        generation: held.generation,
        refs: 0,
    })
}
