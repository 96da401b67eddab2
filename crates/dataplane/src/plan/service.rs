//! Programming one Service: stage what it needs without a write, then write in the order that keeps every read whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use eastwest_abi::{self as abi, frontend_flags};
use eastwest_compile::{self as compile, Frontend, FrontendKind, ServiceKey, Targets, slots};
use ipnet::IpNet;

use super::{
    Backend, BackendKey, ENDPOINTS, FRONTENDS, Installed, Plan, SOURCES, Service, Shared, Tables, Tuple,
    Wanted, family,
};
use crate::extent::Extent;
use crate::{Applied, Error};

/// Slots as indices of backends.
type Table = fn(&[compile::Backend]) -> Vec<u32>;

/// What a change needs that is not there yet.
#[derive(Default)]
struct Stage {
    /// Values for frontends, in order, and whether their addresses are the Service's own.
    frontends: Vec<(Tuple, abi::Frontend, bool)>,
    /// By Service port id.
    sources: BTreeMap<u32, BTreeSet<IpNet>>,
    new_backends: Vec<u32>,
    new_extents: Vec<Extent>,
    new_endpoints: Vec<Tuple>,
    new_ports: Vec<u32>,
    changed_flags: HashMap<u32, u32>,
}

impl Plan {
    /// Programs `wanted` for `key`.
    pub(super) fn program<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        key: &ServiceKey,
        wanted: &Wanted<'_>,
    ) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        let mut service = self.services.remove(key).unwrap_or_default();
        let result = self.program_service(tables, now, key, &mut service, wanted, &mut applied);
        if !service.is_empty() {
            self.services.insert(key.clone(), service);
        } else {
            for id in service.ports.values() {
                self.port_ids.remove(id);
            }
        }
        let handed_over = result?;
        for tuple in handed_over {
            self.hand_over(tables, now, tuple, &mut applied)?;
        }
        Ok(applied)
    }

    /// Returns frontends that others wait for.
    #[allow(clippy::too_many_arguments)]
    fn program_service<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        key: &ServiceKey,
        service: &mut Service,
        wanted: &Wanted<'_>,
        applied: &mut Applied,
    ) -> Result<Vec<Tuple>, Error> {
        let complete = wanted.complete;
        let mut names = HashSet::with_capacity(wanted.frontends.len());
        let mut mine = Vec::with_capacity(wanted.frontends.len());
        let mut blocked = Vec::new();
        for frontend in wanted.frontends {
            let tuple = Tuple::of(frontend);
            let stood_in_for = self.stand_in && !frontend.inside.backends.is_empty();
            if self.rules.skip.contains(&tuple.addr) && !stood_in_for || !names.insert(tuple) {
                continue;
            }
            match self.frontends.get(&tuple) {
                Some(Installed { owner: Some(owner), .. }) if owner != key => blocked.push((tuple, frontend)),
                _ => mine.push((tuple, frontend)),
            }
        }

        let mut stage = Stage::default();
        let mut staged = self.stage(&mut stage, now, service, &mine, true, applied);
        if matches!(staged, Err(Error::Full { map: abi::maps::SLOTS, .. }))
            && mine.iter().any(|(_, frontend)| is_for_all_nodes(frontend))
        {
            // Any backend is better than none, or than those of before.
            self.unstage(std::mem::take(&mut stage), service);
            staged = self.stage(&mut stage, now, service, &mine, false, applied);
            applied.by_chance = staged.is_ok();
        }
        if let Err(error) = staged {
            self.unstage(stage, service);
            return Err(error);
        }
        let mut dead = Vec::new();
        let mut outcome = self.commit(tables, key, service, &stage, &mut dead, applied);

        if complete {
            self.settle_waiting(key, service, blocked, applied);
            outcome = outcome.and(self.leave_alone(tables, service, &wanted.left_alone, applied));
        }
        let mut handed_over = Vec::new();
        if complete && outcome.is_ok() {
            let old: Vec<Tuple> =
                service.frontends.iter().filter(|tuple| !names.contains(*tuple)).copied().collect();
            for tuple in old {
                if self.waiting.contains_key(&tuple) {
                    if let Some(installed) = self.frontends.get_mut(&tuple) {
                        installed.owner = None;
                    }
                    service.frontends.remove(&tuple);
                    handed_over.push(tuple);
                    continue;
                }
                match self.remove_frontend(tables, tuple, &mut dead, applied) {
                    Ok(()) => {
                        service.frontends.remove(&tuple);
                    }
                    Err(error) => outcome = Err(error),
                }
            }
            for (list, ranges) in &stage.sources {
                outcome = outcome.and(self.keep_sources(tables, *list, ranges, applied));
            }
            let ports: HashSet<_> =
                mine.iter().map(|(tuple, frontend)| (tuple.protocol, frontend.port_name.clone())).collect();
            let gone: Vec<(super::Port, u32)> = service
                .ports
                .iter()
                .filter(|(port, _)| !ports.contains(port))
                .map(|(port, id)| (port.clone(), *id))
                .collect();
            for (port, id) in gone {
                outcome = outcome.and(self.keep_sources(tables, id, &BTreeSet::new(), applied));
                service.ports.remove(&port);
                self.port_ids.remove(&id);
            }
        }
        let released = self.release(tables, now, dead, applied);
        outcome.and(released).map(|()| handed_over)
    }

    /// Allocates what `mine` needs; with `agree` Maglev tables where all nodes shall choose alike. Nothing is written; `unstage` takes all of it back.
    fn stage(
        &mut self,
        stage: &mut Stage,
        now: Duration,
        service: &mut Service,
        mine: &[(Tuple, &Frontend)],
        agree: bool,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut needed = [0u32; 2];
        let mut new_addresses = HashSet::new();
        // What this Service has, to share among its frontends.
        let mut candidates: Vec<Extent> = Vec::new();
        let theirs = mine.iter().map(|(tuple, _)| tuple).filter(|tuple| !service.frontends.contains(tuple));
        for installed in service.frontends.iter().chain(theirs).filter_map(|tuple| self.frontends.get(tuple))
        {
            for extent in Self::extents_of(&installed.value) {
                if !candidates.contains(&extent) {
                    candidates.push(extent);
                }
            }
        }
        for (tuple, frontend) in mine {
            needed[family(tuple.addr)] += u32::from(!self.frontends.contains_key(tuple));
            if frontend.kind == FrontendKind::ClusterIp
                && self.in_ranges(tuple.addr)
                && self.addresses.get(&tuple.addr).is_none_or(|address| address.written == 0)
                && new_addresses.insert(tuple.addr)
            {
                needed[family(tuple.addr)] += 1;
            }
        }
        for family in 0..2 {
            if needed[family] > self.limits.frontends.saturating_sub(self.frontend_count[family]) {
                return Err(Error::full(FRONTENDS[family], self.limits.frontends));
            }
        }
        for (tuple, frontend) in mine {
            let id = self.port_id(stage, service, *tuple, frontend);
            let held = self.frontends.get(tuple).map(|installed| installed.value);
            let held = |side: fn(&abi::Frontend) -> abi::Extent| {
                held.as_ref().map(side).filter(|extent| extent.count > 0)
            };
            let mut flags = 0;
            let weighted = |targets| (targets, slots::weighted as Table);
            let ids = self.stage_targets(stage, now, id, *tuple, weighted(&frontend.inside), applied)?;
            let inside =
                self.stage_extent(stage, now, id, ids, held(|value| value.inside), &mut candidates)?;
            let outside = if agree && is_for_all_nodes(frontend) {
                flags |= frontend_flags::MAGLEV;
                Some((&frontend.outside, slots::maglev as Table))
            } else {
                (frontend.outside != frontend.inside).then(|| weighted(&frontend.outside))
            };
            let outside = match outside {
                Some(outside) => {
                    let ids = self.stage_targets(stage, now, id, *tuple, outside, applied)?;
                    self.stage_extent(stage, now, id, ids, held(|value| value.outside), &mut candidates)?
                }
                None => inside,
            };
            // Beside backends, programs would drop all the same.
            if frontend.inside.drop && inside.count == 0 {
                flags |= frontend_flags::DROP_INSIDE;
            }
            if frontend.outside.drop && outside.count == 0 {
                flags |= frontend_flags::DROP_OUTSIDE;
            }
            if inside != outside || frontend.inside.drop != frontend.outside.drop {
                flags |= frontend_flags::SPLIT;
            }
            if self.rules.masquerade_all && frontend.kind == FrontendKind::ClusterIp {
                flags |= frontend_flags::MASQUERADE;
            }
            let sources = stage.sources.entry(id).or_default();
            if !frontend.source_ranges.is_empty() {
                flags |= frontend_flags::SOURCES;
                sources.extend(frontend.source_ranges.iter().map(IpNet::trunc));
            }
            let affinity = frontend.affinity_seconds;
            let value = abi::Frontend { service: id, flags, affinity, pad: 0, inside, outside };
            // An address of the node stays that while others stand in: a port that comes and goes is not refused.
            let virtual_ip =
                frontend.kind == FrontendKind::ClusterIp && !self.rules.skip.contains(&tuple.addr);
            stage.frontends.push((*tuple, value, virtual_ip));
        }
        let mut needed = [0u32; 2];
        for (list, ranges) in &stage.sources {
            let held = self.sources.get(list);
            for range in ranges.iter().filter(|range| !held.is_some_and(|held| held.contains(range))) {
                needed[family(range.addr())] += 1;
            }
        }
        for family in 0..2 {
            if needed[family] > self.limits.sources.saturating_sub(self.source_count[family]) {
                return Err(Error::full(SOURCES[family], self.limits.sources));
            }
        }
        Ok(())
    }

    /// The extent that holds these ids: one that there is, its own first, so that what is as wanted is not written again.
    fn stage_extent(
        &mut self,
        stage: &mut Stage,
        now: Duration,
        service: u32,
        ids: Vec<u32>,
        held: Option<abi::Extent>,
        candidates: &mut Vec<Extent>,
    ) -> Result<abi::Extent, Error> {
        if ids.is_empty() {
            return Ok(abi::Extent::default());
        }
        let own = held.and_then(super::extent);
        let same = own.into_iter().chain(candidates.iter().copied()).find(|extent| {
            self.extents
                .get(&extent.offset)
                .is_some_and(|shared| shared.service == service && *shared.ids == *ids)
        });
        if let Some(Extent { offset, len }) = same {
            return Ok(abi::Extent { slots: offset, count: len });
        }
        let extent = u32::try_from(ids.len())
            .ok()
            .and_then(|len| self.slots.allocate(len, now))
            .ok_or_else(|| Error::full(abi::maps::SLOTS, self.limits.slots))?;
        stage.new_extents.push(extent);
        candidates.push(extent);
        for id in &ids {
            if let Some(backend) = self.backends[*id as usize].as_mut() {
                backend.refs += 1;
            }
        }
        self.extents.insert(extent.offset, Shared { service, ids: ids.into_boxed_slice(), refs: 0 });
        Ok(abi::Extent { slots: extent.offset, count: extent.len })
    }

    /// The id of a Service port: the one it has, else the one that its frontend had in an adopted map, else a new one.
    fn port_id(
        &mut self,
        stage: &mut Stage,
        service: &mut Service,
        tuple: Tuple,
        frontend: &Frontend,
    ) -> u32 {
        let port = (tuple.protocol, frontend.port_name.clone());
        if let Some(id) = service.ports.get(&port) {
            return *id;
        }
        let adopted = self.frontends.get(&tuple).map(|installed| installed.value.service);
        let id = match adopted.filter(|id| *id != 0 && !self.port_ids.contains(id)) {
            Some(id) => id,
            None => loop {
                // Within the array that counts connections, as long as there is room; round and round, so that an id rests
                // long before it is another port's.
                let array = usize::try_from(self.limits.frontends).unwrap_or(usize::MAX);
                let most = if self.port_ids.len() + 2 < array { self.limits.frontends - 1 } else { u32::MAX };
                let id = if self.next_port_id > most { 1 } else { self.next_port_id };
                self.next_port_id = id.wrapping_add(1).max(1);
                if !self.port_ids.contains(&id) {
                    break id;
                }
            },
        };
        self.port_ids.insert(id);
        service.ports.insert(port, id);
        stage.new_ports.push(id);
        id
    }

    /// The backends of `targets`, as the table places them.
    fn stage_targets(
        &mut self,
        stage: &mut Stage,
        now: Duration,
        service: u32,
        tuple: Tuple,
        (targets, table): (&Targets, Table),
        applied: &mut Applied,
    ) -> Result<Vec<u32>, Error> {
        let (fit, misfit): (Vec<compile::Backend>, Vec<_>) =
            targets.backends.iter().partition(|backend| backend.addr.is_ipv4() == tuple.addr.is_ipv4());
        for backend in misfit {
            applied.problems.push(format!("{tuple}: backend {} is of another address family", backend.addr));
        }
        let ids = fit
            .iter()
            .map(|wanted| match wanted.weight {
                0 => Ok(0),
                _ => self.stage_backend(stage, now, service, tuple, wanted),
            })
            .collect::<Result<Vec<u32>, Error>>()?;
        Ok(table(&fit).into_iter().filter_map(|index| ids.get(index as usize).copied()).collect())
    }

    /// The id of a backend: the one it has, or a new one.
    fn stage_backend(
        &mut self,
        stage: &mut Stage,
        now: Duration,
        service: u32,
        tuple: Tuple,
        wanted: &compile::Backend,
    ) -> Result<u32, Error> {
        let flags = abi::backend_flags::LIVE
            | abi::backend_flags::USABLE
            | if wanted.local { abi::backend_flags::LOCAL } else { 0 };
        let key = BackendKey { service, addr: wanted.addr, port: wanted.port };
        if let Some(&id) = self.backend_ids.get(&key) {
            if self.backend(id).is_some_and(|backend| backend.flags != flags) {
                stage.changed_flags.insert(id, flags);
            }
            return Ok(id);
        }
        let (id, generation) =
            self.ids.allocate(now).ok_or_else(|| Error::full(abi::maps::BACKENDS, self.ids.capacity()))?;
        let backend = Backend { key, protocol: tuple.protocol, flags, generation, refs: 0 };
        self.set_backend(id, Some(backend));
        self.backend_ids.insert(key, id);
        stage.new_backends.push(id);
        let endpoint = backend.tuple();
        let entry = self.endpoints.entry(endpoint).or_default();
        let fresh = entry.ids.is_empty();
        entry.ids.push(id);
        if fresh {
            let family = family(endpoint.addr);
            self.endpoint_count[family] += 1;
            stage.new_endpoints.push(endpoint);
            if self.endpoint_count[family] > self.limits.endpoints {
                return Err(Error::full(ENDPOINTS[family], self.limits.endpoints));
            }
        }
        Ok(id)
    }

    fn unstage(&mut self, stage: Stage, service: &mut Service) {
        for extent in stage.new_extents {
            if let Some(shared) = self.extents.remove(&extent.offset) {
                for id in shared.ids {
                    if let Some(backend) = self.backends[id as usize].as_mut() {
                        backend.refs -= 1;
                    }
                }
            }
            self.slots.give_back(extent);
        }
        for id in stage.new_backends {
            let Some(backend) = self.backends[id as usize].take() else { continue };
            self.backend_ids.remove(&backend.key);
            if let Some(endpoint) = self.endpoints.get_mut(&backend.tuple()) {
                endpoint.ids.retain(|other| *other != id);
            }
            self.ids.give_back(id);
        }
        for tuple in stage.new_endpoints {
            self.endpoints.remove(&tuple);
            self.endpoint_count[family(tuple.addr)] -= 1;
        }
        for id in stage.new_ports {
            self.port_ids.remove(&id);
            service.ports.retain(|_, other| *other != id);
        }
    }

    /// Writes a stage. On an error each frontend is either as before or as wanted.
    #[allow(clippy::too_many_arguments)]
    fn commit<T: Tables>(
        &mut self,
        tables: &mut T,
        key: &ServiceKey,
        service: &mut Service,
        stage: &Stage,
        dead: &mut Vec<Extent>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        for &id in &stage.new_backends {
            if let Some(backend) = self.backend(id) {
                tables.write_backend(id, &backend.value());
                applied.writes += 1;
            }
        }
        for (&id, &flags) in &stage.changed_flags {
            if let Some(backend) = self.backends[id as usize].as_mut() {
                backend.flags = flags;
                let value = backend.value();
                tables.write_backend(id, &value);
                applied.writes += 1;
            }
        }
        for tuple in &stage.new_endpoints {
            if let Some(endpoint) = self.endpoints.get_mut(tuple) {
                match tables.put_endpoint(*tuple, endpoint.ids[0]) {
                    Ok(()) => endpoint.written = endpoint.ids[0],
                    Err(error) => outcome = Err(error),
                }
                applied.writes += 1;
            }
        }
        for extent in &stage.new_extents {
            if let Some(shared) = self.extents.get(&extent.offset) {
                for (slot, id) in (extent.offset..).zip(shared.ids.iter()) {
                    tables.write_slot(slot, *id);
                }
                applied.writes += u64::from(extent.len);
            }
        }
        for (list, ranges) in &stage.sources {
            if let Err(error) = self.add_sources(tables, *list, ranges, applied) {
                outcome = Err(error);
            }
        }
        for (tuple, value, virtual_ip) in &stage.frontends {
            let put = self.put_frontend(tables, key, service, *tuple, *value, *virtual_ip, dead, applied);
            if let Err(error) = put {
                outcome = Err(error);
            }
        }
        // An extent that no frontend came to use, as the write of it failed.
        for extent in &stage.new_extents {
            if self.extents.get(&extent.offset).is_some_and(|shared| shared.refs == 0) {
                dead.push(*extent);
            }
        }
        outcome
    }

    #[allow(clippy::too_many_arguments)]
    fn put_frontend<T: Tables>(
        &mut self,
        tables: &mut T,
        key: &ServiceKey,
        service: &mut Service,
        tuple: Tuple,
        value: abi::Frontend,
        virtual_ip: bool,
        dead: &mut Vec<Extent>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let old = self.frontends.get(&tuple).map(|installed| (installed.value, installed.virtual_ip));
        if old.is_none_or(|(old, _)| old != value) {
            applied.writes += 1;
            tables.put_frontend(tuple, &value)?;
            applied.frontends += 1;
            for extent in Self::extents_of(&value) {
                if let Some(shared) = self.extents.get_mut(&extent.offset) {
                    shared.refs += 1;
                }
            }
            if let Some((old, _)) = old {
                self.unref(&old, dead);
            }
        }
        self.frontends.insert(tuple, Installed { owner: Some(key.clone()), value, virtual_ip });
        service.frontends.insert(tuple);
        if old.is_none() {
            self.frontend_count[family(tuple.addr)] += 1;
        }
        match (old.is_some_and(|(_, before)| before), virtual_ip) {
            (false, true) => self.addresses.entry(tuple.addr).or_default().refs += 1,
            (true, false) => self.addresses.entry(tuple.addr).or_default().refs -= 1,
            _ => return Ok(()),
        }
        self.settle_address(tables, tuple.addr, applied)
    }

    /// Writes the entry for an address itself as it has to be, if at all.
    pub(super) fn settle_address<T: Tables>(
        &mut self,
        tables: &mut T,
        addr: IpAddr,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let in_ranges = self.in_ranges(addr);
        let Some(address) = self.addresses.get_mut(&addr) else { return Ok(()) };
        let wanted = if in_ranges { address.wanted() } else { 0 };
        if address.written != wanted {
            applied.writes += 1;
            if wanted == 0 {
                tables.remove_frontend(Tuple::address(addr))?;
                self.frontend_count[family(addr)] -= 1;
            } else {
                tables.put_frontend(Tuple::address(addr), &address_entry(wanted))?;
                self.frontend_count[family(addr)] += u32::from(address.written == 0);
            }
            address.written = wanted;
        }
        if address.refs == 0 && address.left_alone == 0 {
            self.addresses.remove(&addr);
        }
        Ok(())
    }

    /// Has the programs leave these addresses of a Service alone, and no others.
    fn leave_alone<T: Tables>(
        &mut self,
        tables: &mut T,
        service: &mut Service,
        wanted: &[IpAddr],
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let gone: Vec<IpAddr> =
            service.left_alone.iter().filter(|addr| !wanted.contains(addr)).copied().collect();
        for addr in gone {
            service.left_alone.remove(&addr);
            if let Some(address) = self.addresses.get_mut(&addr) {
                address.left_alone -= 1;
            }
            self.settle_address(tables, addr, applied)?;
        }
        for addr in wanted {
            if service.left_alone.insert(*addr) {
                self.addresses.entry(*addr).or_default().left_alone += 1;
            }
            self.settle_address(tables, *addr, applied)?;
        }
        Ok(())
    }

    /// Puts these ranges on a list.
    pub(super) fn add_sources<T: Tables>(
        &mut self,
        tables: &mut T,
        list: u32,
        ranges: &BTreeSet<IpNet>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        for range in ranges {
            if self.sources.get(&list).is_some_and(|held| held.contains(range)) {
                continue;
            }
            applied.writes += 1;
            tables.put_source(list, *range)?;
            self.sources.entry(list).or_default().insert(*range);
            self.source_count[family(range.addr())] += 1;
        }
        Ok(())
    }

    /// Takes all others off a list.
    pub(super) fn keep_sources<T: Tables>(
        &mut self,
        tables: &mut T,
        list: u32,
        ranges: &BTreeSet<IpNet>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let Some(held) = self.sources.get_mut(&list) else { return Ok(()) };
        let gone: Vec<IpNet> = held.difference(ranges).copied().collect();
        for range in gone {
            applied.writes += 1;
            tables.remove_source(list, range)?;
            held.remove(&range);
            self.source_count[family(range.addr())] -= 1;
        }
        if held.is_empty() {
            self.sources.remove(&list);
        }
        Ok(())
    }

    /// One frontend less at the extents of `old`.
    fn unref(&mut self, old: &abi::Frontend, dead: &mut Vec<Extent>) {
        for extent in Self::extents_of(old) {
            if let Some(shared) = self.extents.get_mut(&extent.offset)
                && shared.service == old.service
                && shared.ids.len() == extent.len as usize
            {
                shared.refs -= 1;
                if shared.refs == 0 {
                    dead.push(extent);
                }
            }
        }
    }

    pub(super) fn remove_frontend<T: Tables>(
        &mut self,
        tables: &mut T,
        tuple: Tuple,
        dead: &mut Vec<Extent>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let Some(installed) = self.frontends.get(&tuple) else { return Ok(()) };
        let (value, virtual_ip) = (installed.value, installed.virtual_ip);
        applied.writes += 1;
        tables.remove_frontend(tuple)?;
        applied.frontends += 1;
        self.frontends.remove(&tuple);
        self.frontend_count[family(tuple.addr)] -= 1;
        self.unref(&value, dead);
        if virtual_ip && let Some(address) = self.addresses.get_mut(&tuple.addr) {
            address.refs -= 1;
            self.settle_address(tables, tuple.addr, applied)?;
        }
        Ok(())
    }

    /// Gives back extents that no frontend uses, and backends that no extent holds.
    pub(super) fn release<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        dead: Vec<Extent>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        for extent in dead {
            // Another frontend of the same port may have taken it up since.
            if self.extents.get(&extent.offset).is_none_or(|shared| shared.refs > 0) {
                continue;
            }
            let Some(shared) = self.extents.remove(&extent.offset) else { continue };
            for id in shared.ids {
                let Some(backend) = self.backends[id as usize].as_mut() else { continue };
                backend.refs -= 1;
                if backend.refs == 0 {
                    let mut gone = *backend;
                    self.backends[id as usize] = None;
                    self.backend_ids.remove(&gone.key);
                    if let Err(error) = self.remove_endpoint(tables, gone.tuple(), id, applied) {
                        outcome = Err(error);
                    }
                    gone.flags = 0;
                    tables.write_backend(id, &gone.value());
                    applied.writes += 1;
                    self.ids.release(id, now);
                }
            }
            self.slots.release(extent, now);
            self.freed = Some(now);
        }
        outcome
    }

    fn remove_endpoint<T: Tables>(
        &mut self,
        tables: &mut T,
        tuple: Tuple,
        id: u32,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let Some(endpoint) = self.endpoints.get_mut(&tuple) else { return Ok(()) };
        endpoint.ids.retain(|other| *other != id);
        match endpoint.ids.first() {
            None => {
                self.endpoints.remove(&tuple);
                self.endpoint_count[family(tuple.addr)] -= 1;
                applied.writes += 1;
                tables.remove_endpoint(tuple)
            }
            Some(&other) if endpoint.written == id => {
                endpoint.written = other;
                applied.writes += 1;
                tables.put_endpoint(tuple, other)
            }
            Some(_) => Ok(()),
        }
    }

    /// Records which frontends `key` waits for, in place of what it waited for before.
    fn settle_waiting(
        &mut self,
        key: &ServiceKey,
        service: &mut Service,
        blocked: Vec<(Tuple, &Frontend)>,
        applied: &mut Applied,
    ) {
        for tuple in service.waiting.keys() {
            if !blocked.iter().any(|(other, _)| other == tuple)
                && let Some(waiters) = self.waiting.get_mut(tuple)
            {
                waiters.retain(|waiter| waiter != key);
                if waiters.is_empty() {
                    self.waiting.remove(tuple);
                }
            }
        }
        service.waiting = blocked.iter().map(|(tuple, frontend)| (*tuple, (*frontend).clone())).collect();
        for (tuple, _) in blocked {
            let waiters = self.waiting.entry(tuple).or_default();
            if !waiters.contains(key) {
                waiters.push(key.clone());
            }
            applied.problems.push(self.conflict(tuple, key));
        }
    }

    /// Gives a frontend whose owner left it to the first who waits for it; the write replaces the old value.
    fn hand_over<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        tuple: Tuple,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let heir = self.waiting.get_mut(&tuple).map(|waiters| waiters.remove(0));
        if self.waiting.get(&tuple).is_some_and(Vec::is_empty) {
            self.waiting.remove(&tuple);
        }
        let frontend = heir
            .as_ref()
            .and_then(|heir| self.services.get_mut(heir))
            .and_then(|service| service.waiting.remove(&tuple));
        if let (Some(heir), Some(frontend)) = (heir, frontend) {
            let frontends = std::slice::from_ref(&frontend);
            let wanted = Wanted { frontends, left_alone: Vec::new(), complete: false };
            match self.program(tables, now, &heir, &wanted) {
                Ok(one) => {
                    applied.merge(one);
                    return Ok(());
                }
                Err(error) => applied.failed.push((heir, error.to_string())),
            }
        }
        let mut dead = Vec::new();
        self.remove_frontend(tables, tuple, &mut dead, applied)?;
        self.release(tables, now, dead, applied)
    }
}

/// Whether clients outside shall find the same backend on whichever node they arrive: at addresses that are no node's own,
/// where there is a choice.
fn is_for_all_nodes(frontend: &Frontend) -> bool {
    let anywhere = matches!(frontend.kind, FrontendKind::ExternalIp | FrontendKind::LoadBalancer);
    anywhere && frontend.outside.backends.iter().filter(|backend| backend.weight > 0).count() > 1
}

/// The value of an address entry.
fn address_entry(flags: u32) -> abi::Frontend {
    abi::Frontend { flags, ..abi::Frontend::default() }
}
