//! Follows devices by netlink and hooks them: pods' veths and the node's NICs, as they come, change and go.
//!
//! A hook is a pinned link (or, before Linux 6.6, a clsact filter): it stays when the agent ends, and the next agent
//! takes it over by replacing the program behind it.

mod glob;
mod hooks;
mod netlink;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use eastwest_model::DeviceState;
use tokio::sync::{oneshot, watch};

use crate::address::DEVICE;
use crate::{Error, Programs};
use hooks::Hooks;
use netlink::{Event, Link, Listing, Netlink};
use worker::{Job, Worker};

pub use hooks::{NicMode, PodHook};

/// First wait before a failed hook is tried again; doubled each time up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Which devices, and how.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// As in [`Options`](crate::Options).
    pub pin_dir: PathBuf,
    pub pod_hook: PodHook,
    /// Globs (`*` and `?`) for host sides of pods' veths.
    pub pod_devices: Vec<String>,
    pub nic_mode: NicMode,
    /// Globs for NICs; empty: devices with a default route or one of `node_addresses`.
    pub nic_devices: Vec<String>,
    pub node_addresses: Vec<IpAddr>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            pin_dir: PathBuf::from("/sys/fs/bpf/eastwest"),
            pod_hook: PodHook::default(),
            pod_devices: ["veth*", "cali*", "lxc*", "eni*"].map(String::from).to_vec(),
            nic_mode: NicMode::default(),
            nic_devices: Vec::new(),
            node_addresses: Vec::new(),
        }
    }
}

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Pod,
    Nic,
    /// Leads to other nodes' pods. What comes out of it has met their own node's hooks; answers to those who came by a NIC
    /// may leave by it.
    Tunnel,
}

/// The kernel's words for tunnels that carry Ethernet.
const TUNNELS: [&str; 4] = ["vxlan", "geneve", "gretap", "ip6gretap"];

#[derive(Debug)]
struct Device {
    link: Link,
    role: Option<Role>,
    state: DeviceState,
    /// When the hook that is being attached was asked for.
    asked: Option<Instant>,
    retry: Option<(Instant, Duration)>,
}

impl DeviceOptions {
    /// Loads the programs that these hooks take: most of a start's time. [`Follower::start`] does it where it has not been done.
    ///
    /// # Errors
    /// When the kernel does not take a program.
    pub fn load(&self, programs: &Programs) -> Result<(), Error> {
        programs.load(&hooks::needed(self.pod_hook, self.nic_mode))
    }
}

/// The follower. [`start`](Self::start) hooks what is there, [`run`](Self::run) goes on.
pub struct Follower {
    options: DeviceOptions,
    netlink: Netlink,
    worker: Worker,
    devices: BTreeMap<u32, Device>,
    addresses: HashSet<(u32, IpAddr)>,
    default_routes: HashSet<u32>,
    listings: VecDeque<Listing>,
    /// The listing under way: its sequence, what it lists, and what it has shown so far.
    current: Option<(u32, Listing, Shown)>,
    states: watch::Sender<Vec<DeviceState>>,
    changed: bool,
    /// `addresses` without devices, for others to follow.
    shown_addresses: watch::Sender<Vec<IpAddr>>,
}

#[derive(Debug, Default)]
struct Shown {
    links: HashSet<u32>,
    addresses: HashSet<(u32, IpAddr)>,
    default_routes: HashSet<u32>,
}

impl Follower {
    /// Hooks the devices of this thread's network namespace, taking over hooks of an earlier run, and returns when all
    /// that are there have been seen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When netlink or a program cannot be had. That a device cannot be hooked is told in its state instead.
    pub async fn start(
        programs: Programs,
        options: DeviceOptions,
    ) -> Result<(Self, watch::Receiver<Vec<DeviceState>>), Error> {
        let netlink = Netlink::open().map_err(|source| Error::system("open netlink", source))?;
        let hooks = Hooks::new(programs, &options.pin_dir, options.pod_hook, options.nic_mode)?;
        let worker = Worker::start(hooks).map_err(|source| Error::system("start a thread", source))?;
        let (states, receiver) = watch::channel(Vec::new());
        let mut follower = Self {
            options,
            netlink,
            worker,
            devices: BTreeMap::new(),
            addresses: HashSet::new(),
            default_routes: HashSet::new(),
            listings: VecDeque::new(),
            current: None,
            states,
            changed: true,
            shown_addresses: watch::channel(Vec::new()).0,
        };
        follower.list_again();
        while follower.busy() {
            follower.step().await?;
        }
        let (swept, done) = oneshot::channel();
        follower.worker.send(Job::Sweep { present: follower.devices.keys().copied().collect(), swept });
        done.await.map_err(|_| ended())?;
        Ok((follower, receiver))
    }

    /// All addresses of the network namespace, sorted, as they come and go.
    pub fn addresses(&self) -> watch::Receiver<Vec<IpAddr>> {
        self.shown_addresses.subscribe()
    }

    fn busy(&self) -> bool {
        self.current.is_some()
            || !self.listings.is_empty()
            || self.devices.values().any(|device| device.asked.is_some())
    }

    /// Follows devices until dropped or until netlink fails.
    ///
    /// # Errors
    /// When netlink fails for another reason than lost events.
    pub async fn run(mut self) -> Result<Infallible, Error> {
        loop {
            self.step().await?;
        }
    }

    /// Waits for something to happen and deals with it.
    async fn step(&mut self) -> Result<(), Error> {
        self.next_listing()?;
        self.publish();
        let retry = self.devices.values().filter_map(|device| device.retry).map(|(at, _)| at).min();
        let until_retry = async {
            match retry {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = self.netlink.receive() => match received {
                Ok((at, events)) => {
                    for event in events {
                        self.handle(at, event);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::warn!("netlink lost events: listing devices again");
                    self.list_again();
                }
                Err(source) => return Err(Error::system("receive from netlink", source)),
            },
            done = self.worker.done() => match done {
                Some((index, result)) => self.hooked(index, result),
                None => return Err(ended()),
            },
            () = until_retry => self.retry(),
        }
        self.publish();
        Ok(())
    }

    fn list_again(&mut self) {
        // Routes and addresses first: they say which devices are NICs. The end of a listing under way may be lost.
        self.current = None;
        self.listings = VecDeque::from([Listing::Routes, Listing::Addresses, Listing::Links]);
    }

    fn next_listing(&mut self) -> Result<(), Error> {
        if self.current.is_none()
            && let Some(listing) = self.listings.pop_front()
        {
            let sequence =
                self.netlink.list(listing).map_err(|source| Error::system("send to netlink", source))?;
            self.current = Some((sequence, listing, Shown::default()));
        }
        Ok(())
    }

    fn handle(&mut self, at: Instant, event: Event) {
        match event {
            Event::Link(link) => {
                if let Some((.., shown)) = &mut self.current {
                    shown.links.insert(link.index);
                }
                self.see(at, link);
            }
            Event::LinkGone { index } => {
                if let Some((.., shown)) = &mut self.current {
                    shown.links.remove(&index);
                }
                self.forget(index);
            }
            Event::Address { index, addr } => {
                if let Some((.., shown)) = &mut self.current {
                    shown.addresses.insert((index, addr));
                }
                if self.addresses.insert((index, addr)) {
                    self.review(at);
                }
            }
            Event::AddressGone { index, addr } => {
                if let Some((.., shown)) = &mut self.current {
                    shown.addresses.remove(&(index, addr));
                }
                if self.addresses.remove(&(index, addr)) {
                    self.review(at);
                }
            }
            Event::DefaultRoute { indexes } => {
                if let Some((_, Listing::Routes, shown)) = &mut self.current {
                    shown.default_routes.extend(&indexes);
                }
                let before = self.default_routes.len();
                self.default_routes.extend(indexes);
                if self.default_routes.len() != before {
                    self.review(at);
                }
            }
            // There may be another by the same device: list.
            Event::DefaultRouteGone => {
                if !self.listings.contains(&Listing::Routes) {
                    self.listings.push_back(Listing::Routes);
                }
            }
            Event::Done { sequence, whole } => self.listed(at, sequence, whole),
            Event::Refused { sequence, code } => {
                if self.current.as_ref().is_some_and(|(current, ..)| *current == sequence) {
                    let error = std::io::Error::from_raw_os_error(code);
                    tracing::warn!(%error, "netlink refused a listing: asking again");
                    self.listed(at, sequence, false);
                }
            }
        }
    }

    /// A listing has ended: what it did not show is gone.
    fn listed(&mut self, at: Instant, sequence: u32, whole: bool) {
        let Some((_, listing, shown)) = self.current.take_if(|(current, ..)| *current == sequence) else {
            return;
        };
        if !whole {
            self.listings.push_front(listing);
            return;
        }
        match listing {
            Listing::Links => {
                let gone: Vec<u32> =
                    self.devices.keys().copied().filter(|index| !shown.links.contains(index)).collect();
                for index in gone {
                    self.forget(index);
                }
            }
            Listing::Addresses => {
                self.addresses = shown.addresses;
                self.review(at);
            }
            Listing::Routes => {
                self.default_routes = shown.default_routes;
                self.review(at);
            }
        }
    }

    fn role(&self, link: &Link) -> Option<Role> {
        if link.name == DEVICE || !link.ethernet {
            return None;
        }
        let nic = if self.options.nic_devices.is_empty() {
            self.default_routes.contains(&link.index)
                || self
                    .options
                    .node_addresses
                    .iter()
                    .any(|addr| self.addresses.contains(&(link.index, *addr)))
        } else {
            glob::any(&self.options.nic_devices, &link.name)
        };
        if nic {
            return Some(Role::Nic);
        }
        if TUNNELS.contains(&link.kind.as_str()) {
            return Some(Role::Tunnel);
        }
        let pod =
            link.kind == "veth" && link.peer_elsewhere && glob::any(&self.options.pod_devices, &link.name);
        pod.then_some(Role::Pod)
    }

    /// A device is there, or has changed.
    fn see(&mut self, at: Instant, link: Link) {
        let role = self.role(&link);
        let index = link.index;
        match self.devices.get_mut(&index) {
            Some(device) if device.role == role => {
                if device.link.name != link.name && role.is_some() {
                    tracing::info!(index, from = device.link.name, to = link.name, "device renamed");
                    device.state.name.clone_from(&link.name);
                    self.changed = true;
                }
                device.link = link;
            }
            _ => {
                let state = DeviceState { name: link.name.clone(), index, ..DeviceState::default() };
                let old = self.devices.insert(index, Device { link, role, state, asked: None, retry: None });
                if old.is_some_and(|device| device.role.is_some()) {
                    self.worker.send(Job::Remove { index });
                    self.changed = true;
                }
                self.hook(at, index);
            }
        }
    }

    fn hook(&mut self, at: Instant, index: u32) {
        let Some(device) = self.devices.get_mut(&index) else { return };
        let Some(role) = device.role else { return };
        self.changed = true;
        device.state.role = match role {
            Role::Pod => "pod",
            Role::Nic => "nic",
            Role::Tunnel => "tunnel",
        }
        .to_owned();
        device.asked = Some(at);
        device.retry = device.retry.map(|(_, wait)| (at + RETRY_MOST, wait));
        let (name, kind) = (device.link.name.clone(), device.link.kind.clone());
        self.worker.send(Job::Attach { role, index, name, kind });
    }

    /// The worker is through with a device. An answer about one that has gone since says nothing.
    fn hooked(&mut self, index: u32, result: Result<&'static str, Error>) {
        let Some(device) = self.devices.get_mut(&index) else { return };
        let Some(at) = device.asked.take() else { return };
        self.changed = true;
        match result {
            Ok(mode) => {
                device.state.mode = mode.to_owned();
                device.state.hook_latency_us = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
                device.state.error = None;
                device.retry = None;
                let DeviceState { name, role, mode, hook_latency_us, .. } = &device.state;
                tracing::info!(index, name, role, mode, hook_latency_us, "device hooked");
            }
            Err(error) => {
                let wait = device.retry.map_or(RETRY_FIRST, |(_, wait)| (wait * 2).min(RETRY_MOST));
                device.retry = Some((Instant::now() + wait, wait));
                tracing::warn!(index, name = device.link.name, %error, "device not hooked");
                device.state.error = Some(error.to_string());
            }
        }
    }

    fn forget(&mut self, index: u32) {
        self.addresses.retain(|(other, _)| *other != index);
        if let Some(device) = self.devices.remove(&index)
            && device.role.is_some()
        {
            self.worker.send(Job::Remove { index });
            self.changed = true;
            tracing::info!(index, name = device.link.name, "device gone");
        }
    }

    /// Addresses or default routes have changed: other devices may be NICs now.
    fn review(&mut self, at: Instant) {
        if !self.options.nic_devices.is_empty() {
            return;
        }
        let links: Vec<Link> = self
            .devices
            .values()
            .filter(|device| self.role(&device.link) != device.role)
            .map(|device| device.link.clone())
            .collect();
        for link in links {
            self.see(at, link);
        }
    }

    fn retry(&mut self) {
        let now = Instant::now();
        let due: Vec<u32> = self
            .devices
            .iter()
            .filter(|(_, device)| device.retry.is_some_and(|(at, _)| at <= now))
            .map(|(index, _)| *index)
            .collect();
        for index in due {
            self.hook(now, index);
        }
    }

    fn publish(&mut self) {
        let addresses: BTreeSet<IpAddr> = self.addresses.iter().map(|(_, addr)| *addr).collect();
        // Not in the middle of a listing, which begins with nothing.
        if self.current.is_none() && self.listings.is_empty() {
            self.shown_addresses.send_if_modified(|shown| {
                let changed = !shown.iter().eq(&addresses);
                *shown = addresses.into_iter().collect();
                changed
            });
        }
        if std::mem::take(&mut self.changed) {
            self.states.send_replace(
                self.devices
                    .values()
                    .filter(|device| device.role.is_some())
                    .map(|device| device.state.clone())
                    .collect(),
            );
        }
    }
}

fn ended() -> Error {
    Error::system("hook devices", std::io::Error::other("the thread that attaches programs has ended"))
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("devices", &self.devices).finish_non_exhaustive()
    }
}

/// Takes our hooks off all devices of this thread's network namespace that a pin does not hold: clsact filters of
/// kernels without TCX. Pinned hooks go with [`pins::remove_all`](crate::pins::remove_all).
///
/// # Errors
/// When a filter cannot be removed.
pub fn remove_filters() -> Result<(), Error> {
    hooks::remove_filters()
}
