//! Programming one Service: stage what it needs without a write, then write in the order that keeps every read whole.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use eastwest_abi as abi;
use eastwest_compile::{Frontend, ServiceKey};

use super::{
    Backend, BackendKey, ENDPOINTS, FRONTENDS, Installed, Plan, Service, Shared, Tables, Tuple, family,
};
use crate::extent::Extent;
use crate::{Applied, Error};

/// What a change needs that is not there yet.
#[derive(Default)]
struct Stage {
    /// Values for frontends, in order.
    frontends: Vec<(Tuple, abi::Frontend)>,
    new_backends: Vec<u32>,
    new_extents: Vec<Extent>,
    new_endpoints: Vec<Tuple>,
    new_ports: Vec<u32>,
    changed_flags: HashMap<u32, u32>,
}

impl Plan {
    /// Programs `wanted` for `key`; when `complete`, everything else it owns goes.
    pub(super) fn program<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        key: &ServiceKey,
        wanted: &[Frontend],
        complete: bool,
    ) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        let mut service = self.services.remove(key).unwrap_or_default();
        let result = self.program_service(tables, now, key, &mut service, wanted, complete, &mut applied);
        if !service.frontends.is_empty() || !service.waiting.is_empty() {
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
        wanted: &[Frontend],
        complete: bool,
        applied: &mut Applied,
    ) -> Result<Vec<Tuple>, Error> {
        let mut names = HashSet::with_capacity(wanted.len());
        let mut mine = Vec::with_capacity(wanted.len());
        let mut blocked = Vec::new();
        for frontend in wanted {
            let tuple = Tuple::of(frontend);
            if self.rules.skip.contains(&tuple.addr) || !names.insert(tuple) {
                continue;
            }
            match self.frontends.get(&tuple) {
                Some(Installed { owner: Some(owner), .. }) if owner != key => blocked.push((tuple, frontend)),
                _ => mine.push((tuple, frontend)),
            }
        }

        let mut stage = Stage::default();
        if let Err(error) = self.stage(&mut stage, now, service, &mine, applied) {
            self.unstage(stage, service);
            return Err(error);
        }
        let mut dead = Vec::new();
        let mut outcome = self.commit(tables, key, service, &stage, &mut dead, applied);

        if complete {
            self.settle_waiting(key, service, blocked, applied);
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
            let ports: HashSet<_> =
                mine.iter().map(|(tuple, frontend)| (tuple.protocol, frontend.port_name.clone())).collect();
            service.ports.retain(|port, id| {
                let keep = ports.contains(port);
                if !keep {
                    self.port_ids.remove(id);
                }
                keep
            });
        }
        let released = self.release(tables, now, dead, applied);
        outcome.and(released).map(|()| handed_over)
    }

    /// Allocates what `mine` needs. Nothing is written; `unstage` takes all of it back.
    fn stage(
        &mut self,
        stage: &mut Stage,
        now: Duration,
        service: &mut Service,
        mine: &[(Tuple, &Frontend)],
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut needed = [0u32; 2];
        let mut new_addresses = HashSet::new();
        // What this Service has, to share among its frontends.
        let mut candidates: Vec<Extent> = Vec::new();
        let theirs = mine.iter().map(|(tuple, _)| tuple).filter(|tuple| !service.frontends.contains(tuple));
        for installed in service.frontends.iter().chain(theirs).filter_map(|tuple| self.frontends.get(tuple))
        {
            if let Some(extent) = Self::extent_of(&installed.value)
                && !candidates.contains(&extent)
            {
                candidates.push(extent);
            }
        }
        for (tuple, _) in mine.iter().filter(|(tuple, _)| !self.frontends.contains_key(tuple)) {
            needed[family(tuple.addr)] += 1;
            if self.in_ranges(tuple.addr)
                && !self.addresses.get(&tuple.addr).is_some_and(|address| address.written)
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
            let ids = self.stage_backends(stage, now, id, *tuple, frontend, applied)?;
            let extent = if ids.is_empty() {
                Extent { offset: 0, len: 0 }
            } else {
                // Its own first, so that what is as wanted is not written again.
                let own = self.frontends.get(tuple).and_then(|installed| Self::extent_of(&installed.value));
                let same = own.into_iter().chain(candidates.iter().copied()).find(|extent| {
                    self.extents
                        .get(&extent.offset)
                        .is_some_and(|shared| shared.service == id && *shared.ids == *ids)
                });
                match same {
                    Some(extent) => extent,
                    None => {
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
                        self.extents.insert(
                            extent.offset,
                            Shared { service: id, ids: ids.into_boxed_slice(), refs: 0 },
                        );
                        extent
                    }
                }
            };
            let value = abi::Frontend {
                service: id,
                // Beside backends, programs would drop all the same.
                flags: if frontend.inside.drop && extent.len == 0 { abi::frontend_flags::DROP } else { 0 },
                slots: extent.offset,
                count: extent.len,
                affinity: frontend.affinity_seconds,
                pad: 0,
            };
            stage.frontends.push((*tuple, value));
        }
        Ok(())
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
                let id = self.next_port_id;
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

    fn stage_backends(
        &mut self,
        stage: &mut Stage,
        now: Duration,
        service: u32,
        tuple: Tuple,
        frontend: &Frontend,
        applied: &mut Applied,
    ) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(frontend.inside.backends.len());
        for wanted in frontend.inside.backends.iter() {
            if wanted.addr.is_ipv4() != tuple.addr.is_ipv4() {
                applied
                    .problems
                    .push(format!("{tuple}: backend {} is of another address family", wanted.addr));
                continue;
            }
            let flags = abi::backend_flags::LIVE
                | abi::backend_flags::USABLE
                | if wanted.local { abi::backend_flags::LOCAL } else { 0 };
            let key = BackendKey { service, addr: wanted.addr, port: wanted.port };
            if let Some(&id) = self.backend_ids.get(&key) {
                if self.backend(id).is_some_and(|backend| backend.flags != flags) {
                    stage.changed_flags.insert(id, flags);
                }
                ids.push(id);
                continue;
            }
            let (id, generation) = self
                .ids
                .allocate(now)
                .ok_or_else(|| Error::full(abi::maps::BACKENDS, self.ids.capacity()))?;
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
            ids.push(id);
        }
        Ok(ids)
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
        for (tuple, value) in &stage.frontends {
            if let Err(error) = self.put_frontend(tables, key, service, *tuple, *value, dead, applied) {
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
        dead: &mut Vec<Extent>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let old = self.frontends.get(&tuple).map(|installed| installed.value);
        if old != Some(value) {
            applied.writes += 1;
            tables.put_frontend(tuple, &value)?;
            applied.frontends += 1;
            if let Some(extent) = Self::extent_of(&value)
                && let Some(shared) = self.extents.get_mut(&extent.offset)
            {
                shared.refs += 1;
            }
            if let Some(old) = old {
                self.unref(&old, dead);
            }
        }
        self.frontends.insert(tuple, Installed { owner: Some(key.clone()), value });
        service.frontends.insert(tuple);
        if old.is_none() {
            self.frontend_count[family(tuple.addr)] += 1;
            let in_ranges = self.in_ranges(tuple.addr);
            let address = self.addresses.entry(tuple.addr).or_default();
            address.refs += 1;
            if in_ranges && !address.written {
                applied.writes += 1;
                tables.put_frontend(Tuple::address(tuple.addr), &ADDRESS)?;
                address.written = true;
                self.frontend_count[family(tuple.addr)] += 1;
            }
        }
        Ok(())
    }

    /// One frontend less at the extent of `old`.
    fn unref(&mut self, old: &abi::Frontend, dead: &mut Vec<Extent>) {
        if let Some(extent) = Self::extent_of(old)
            && let Some(shared) = self.extents.get_mut(&extent.offset)
            && shared.service == old.service
            && shared.ids.len() == extent.len as usize
        {
            shared.refs -= 1;
            if shared.refs == 0 {
                dead.push(extent);
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
        let Some(value) = self.frontends.get(&tuple).map(|installed| installed.value) else { return Ok(()) };
        applied.writes += 1;
        tables.remove_frontend(tuple)?;
        applied.frontends += 1;
        self.frontends.remove(&tuple);
        self.frontend_count[family(tuple.addr)] -= 1;
        self.unref(&value, dead);
        if let Some(address) = self.addresses.get_mut(&tuple.addr) {
            address.refs -= 1;
            if address.refs == 0 {
                let written = address.written;
                self.addresses.remove(&tuple.addr);
                if written {
                    self.frontend_count[family(tuple.addr)] -= 1;
                    applied.writes += 1;
                    tables.remove_frontend(Tuple::address(tuple.addr))?;
                }
            }
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
            match self.program(tables, now, &heir, std::slice::from_ref(&frontend), false) {
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

/// The value of an address entry.
pub(super) const ADDRESS: abi::Frontend = abi::Frontend {
    service: 0,
    flags: abi::frontend_flags::ADDRESS,
    slots: 0,
    count: 0,
    affinity: 0,
    pad: 0,
};
