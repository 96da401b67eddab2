//! A node that is given back: new connections are left to others at once, and those that are open go on until they end. The
//! programs stay at their hooks, and flows that they know need no frontend any more.

use std::path::Path;
use std::time::Duration;

use std::net::IpAddr;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use eastwest_abi::{self as abi, config_flags, conntrack_state, direction, frontend_flags};

use super::tables::{Wire, failed};
use crate::beside::left;
use crate::{Error, address, pins, sys};

/// `Conntrack::seen` counts in this many nanoseconds, as a power of two.
const UNIT: u32 = 30;
/// Units after which the last packets of a connection that has ended have come. One that comes later than its entry went would
/// be a new connection to whoever serves now, which resets it.
const LAST: u32 = 2;
/// Silence after which a datagram's sender is taken to have had its answer.
const UDP_IDLE: Duration = Duration::from_secs(5);
/// IANA's number (RFC 9293).
const TCP: u8 = 6;

/// Makes the programs of `pin_dir` know no virtual address. No pins are no error. Must be called within a tokio runtime.
///
/// # Errors
/// When the kernel refuses.
pub async fn retire(pin_dir: &Path) -> Result<(), Error> {
    // What has no entry is nobody's from here on, instead of being dropped.
    address::remove().await?;
    let Some(map) = open(pin_dir, abi::maps::CONFIG)? else { return Ok(()) };
    let mut config =
        Array::<_, Wire<abi::Config>>::try_from(map).map_err(|e| failed(abi::maps::CONFIG, "open", e))?;
    let mut now = config.get(&0, 0).map_err(|e| failed(abi::maps::CONFIG, "read", e))?;
    now.0.flags &= !(config_flags::SERVICE_RANGES | config_flags::NAMES);
    config.set(0, now, 0).map_err(|e| failed(abi::maps::CONFIG, "write", e))?;
    // The tuples of these are free for what others open from here on.
    forget_ended_flows(pin_dir)?;
    forget::<Wire<abi::FrontendKey4>>(pin_dir, abi::maps::FRONTENDS4)?;
    forget::<Wire<abi::FrontendKey6>>(pin_dir, abi::maps::FRONTENDS6)?;
    forget_ended_flows(pin_dir).map(drop)
}

/// Forgets flows that have ended: their addresses and ports may be used again, and what comes then is for others. How many
/// are left, of pods and of clients outside.
///
/// # Errors
/// When the kernel refuses.
pub fn forget_ended_flows(pin_dir: &Path) -> Result<usize, Error> {
    let four =
        sweep(pin_dir, abi::maps::CONNTRACK4, |k: &Wire<abi::ConntrackKey4>, v: &Wire<abi::Conntrack4>| {
            (k.0.protocol, k.0.direction, v.0.service, v.0.state, v.0.seen)
        })?;
    let six =
        sweep(pin_dir, abi::maps::CONNTRACK6, |k: &Wire<abi::ConntrackKey6>, v: &Wire<abi::Conntrack6>| {
            (k.0.protocol, k.0.direction, v.0.service, v.0.state, v.0.seen)
        })?;
    Ok(four + six)
}

/// Takes what has ended of kube-proxy's connections out of nf_conntrack, where new ones of ours would find their tuples taken.
/// To be called when its rules are gone, and again while connections are left. How many there are.
///
/// # Errors
/// When netfilter or the kernel refuses.
pub fn forget_kube_proxys_flows(pin_dir: &Path) -> Result<usize, Error> {
    let (Some(four), Some(six)) =
        (open(pin_dir, abi::maps::FRONTENDS4)?, open(pin_dir, abi::maps::FRONTENDS6)?)
    else {
        return Ok(0);
    };
    let four = HashMap::<_, Wire<abi::FrontendKey4>, Wire<abi::Frontend>>::try_from(four)
        .map_err(|e| failed(abi::maps::FRONTENDS4, "open", e))?;
    let six = HashMap::<_, Wire<abi::FrontendKey6>, Wire<abi::Frontend>>::try_from(six)
        .map_err(|e| failed(abi::maps::FRONTENDS6, "open", e))?;
    let is_there = |addr: IpAddr, port: u16, protocol: u8| {
        let port = port.to_be_bytes();
        let found: Result<_, MapError> = match addr {
            IpAddr::V4(ip) => {
                four.get(&Wire(abi::FrontendKey4 { addr: ip.octets(), port, protocol, pad: 0 }), 0)
            }
            IpAddr::V6(ip) => {
                six.get(&Wire(abi::FrontendKey6 { addr: ip.octets(), port, protocol, pad: 0 }), 0)
            }
        };
        found.is_ok()
    };
    // An entry for the address alone: a Service's, with ports that it has or had, or that of this node's DNS.
    left::forget(|(addr, port, protocol)| is_there(addr, port, protocol) || is_there(addr, 0, 0))
        .map_err(|source| Error::system("look through nf_conntrack", source))
}

fn open(pin_dir: &Path, name: &'static str) -> Result<Option<Map>, Error> {
    let path = pins::maps_dir(pin_dir).join(name);
    if !path.exists() {
        return Ok(None);
    }
    let map = MapData::from_pin(path).and_then(Map::from_map_data);
    map.map(Some).map_err(|error| failed(name, "open", error))
}

fn forget<K: aya::Pod>(pin_dir: &Path, name: &'static str) -> Result<(), Error> {
    let Some(map) = open(pin_dir, name)? else { return Ok(()) };
    let mut map = HashMap::<_, K, Wire<abi::Frontend>>::try_from(map).map_err(|e| failed(name, "open", e))?;
    let entries: Result<Vec<_>, _> = map.iter().collect();
    let mut entries = entries.map_err(|e| failed(name, "read", e))?;
    // The entry for an address first: without it a port that has no entry is not refused.
    entries.sort_by_key(|(_, frontend)| frontend.0.flags & frontend_flags::ADDRESS == 0);
    for (key, _) in entries {
        map.remove(&key).map_err(|e| failed(name, "remove from", e))?;
    }
    Ok(())
}

type Fields = (u8, u8, u32, u16, u32);

fn sweep<K: aya::Pod, V: aya::Pod>(
    pin_dir: &Path,
    name: &'static str,
    fields: impl Fn(&K, &V) -> Fields,
) -> Result<usize, Error> {
    let Some(map) = open(pin_dir, name)? else { return Ok(0) };
    let mut map = HashMap::<_, K, V>::try_from(map).map_err(|e| failed(name, "open", e))?;
    let now = (sys::coarse_clock().as_nanos() >> UNIT) as u32;
    // Entries come and go meanwhile: what cannot be read is gone.
    let all: Vec<(K, Fields)> = map.iter().filter_map(Result::ok).map(|(k, v)| (k, fields(&k, &v))).collect();
    let mut left = 0;
    for (key, fields) in all {
        if at_work(fields, now) {
            left += usize::from(fields.1 == direction::FORWARD);
        } else {
            let _it_may_have_gone_by_itself = map.remove(&key);
        }
    }
    Ok(left)
}

/// Both halves of a flow have the same state and time, nearly.
fn at_work((protocol, _, service, state, seen): Fields, now: u32) -> bool {
    let ended = state & conntrack_state::RESET != 0
        || state & conntrack_state::FIN_FORWARD != 0 && state & conntrack_state::FIN_REVERSE != 0;
    let silent = now.wrapping_sub(seen);
    let open = protocol == TCP || u128::from(u64::from(silent) << UNIT) < UDP_IDLE.as_nanos();
    service != 0 && if ended { silent < LAST } else { open }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_at_work() {
        let (tcp, udp) = (TCP, 17);
        let both = conntrack_state::FIN_FORWARD | conntrack_state::FIN_REVERSE;
        for (name, fields, expected) in [
            ("open", (tcp, direction::FORWARD, 1, 0, 10), true),
            ("silent for long", (tcp, direction::FORWARD, 1, 0, 0), true),
            ("half closed", (tcp, direction::FORWARD, 1, conntrack_state::FIN_FORWARD, 10), true),
            ("closed a moment ago", (tcp, direction::FORWARD, 1, both, 9), true),
            ("closed", (tcp, direction::FORWARD, 1, both, 8), false),
            ("reset", (tcp, direction::FORWARD, 1, conntrack_state::RESET, 8), false),
            ("the other half", (tcp, direction::REVERSE, 1, 0, 10), true),
            ("no Service's", (tcp, direction::FORWARD, 0, 0, 10), false),
            ("a datagram", (udp, direction::FORWARD, 1, 0, 10), true),
            ("a datagram of before", (udp, direction::FORWARD, 1, 0, 0), false),
        ] {
            assert_eq!(at_work(fields, 10), expected, "{name}");
        }
    }
}
