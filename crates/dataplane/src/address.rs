//! The node's own addresses for DNS, on a device of ours, and blackhole routes of the service ranges.
//!
//! A packet for a virtual IP that no hook has met (a pod that speaks before its device is hooked) must not leave the
//! node: the route drops it, and the client sends it again. The DNS addresses are local, and the local table is asked
//! first. No sysctl is touched.

use std::collections::HashSet;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkDummy, LinkUnspec, RouteMessageBuilder, new_connection};

use crate::Error;

/// Name of the device.
pub const DEVICE: &str = "eastwest0";
/// Marks our routes (`proto` in `ip route`). Not one that iproute2 names.
pub const ROUTE_PROTOCOL: u8 = 87;
/// Any other route for the same range wins.
const METRIC: u32 = 65_535;

/// Gives this thread's network namespace the device with exactly these addresses, and blackhole routes for exactly
/// these ranges. Idempotent. Must be called within a tokio runtime.
///
/// # Errors
/// When netlink refuses.
pub async fn ensure(addresses: &[IpAddr], ranges: &[IpNet]) -> Result<(), Error> {
    with_handle(async |handle| {
        let index = ensure_device(&handle).await?;
        ensure_addresses(&handle, index, addresses).await?;
        ensure_routes(&handle, ranges).await
    })
    .await
}

/// Removes the device and the routes. Idempotent.
///
/// # Errors
/// When netlink refuses.
pub async fn remove() -> Result<(), Error> {
    with_handle(async |handle| {
        ensure_routes(&handle, &[]).await?;
        if let Some(link) = find_device(&handle).await? {
            let deleted = handle.link().del(link.header.index).execute().await;
            tolerate(deleted, libc::ENODEV, || format!("delete device {DEVICE}"))?;
        }
        Ok(())
    })
    .await
}

async fn with_handle(work: impl AsyncFnOnce(Handle) -> Result<(), Error>) -> Result<(), Error> {
    let (connection, handle, _) = new_connection().map_err(|source| Error::system("open netlink", source))?;
    let connection = tokio::spawn(connection);
    let result = work(handle).await;
    connection.abort();
    result
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().abs()),
        _ => None,
    }
}

/// An error unless it is `expected`.
fn tolerate(
    result: Result<(), rtnetlink::Error>,
    expected: i32,
    action: impl FnOnce() -> String,
) -> Result<(), Error> {
    match result {
        Err(error) if code(&error) != Some(expected) => Err(Error::netlink(action(), error)),
        _ => Ok(()),
    }
}

async fn find_device(handle: &Handle) -> Result<Option<LinkMessage>, Error> {
    match handle.link().get().match_name(DEVICE).execute().try_next().await {
        Ok(link) => Ok(link),
        Err(error) if code(&error) == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(Error::netlink(format!("look up device {DEVICE}"), error)),
    }
}

async fn ensure_device(handle: &Handle) -> Result<u32, Error> {
    let link = match find_device(handle).await? {
        Some(link) => link,
        None => {
            let made = handle.link().add(LinkDummy::new(DEVICE).build()).execute().await;
            // A kernel without dummy devices: a bridge without ports holds addresses just as well.
            let made = match made {
                Err(error) if code(&error) == Some(libc::EOPNOTSUPP) => {
                    handle.link().add(LinkBridge::new(DEVICE).build()).execute().await
                }
                made => made,
            };
            tolerate(made, libc::EEXIST, || format!("make device {DEVICE}"))?;
            let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
            find_device(handle)
                .await?
                .ok_or_else(|| Error::system(format!("make device {DEVICE}"), missing()))?
        }
    };
    let index = link.header.index;
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .map_err(|error| Error::netlink(format!("set {DEVICE} up"), error))?;
    Ok(index)
}

async fn ensure_addresses(handle: &Handle, index: u32, addresses: &[IpAddr]) -> Result<(), Error> {
    let listed = |error| Error::netlink(format!("list addresses of {DEVICE}"), error);
    let mut present = HashSet::new();
    let mut messages = handle.address().get().set_link_index_filter(index).execute();
    while let Some(message) = messages.try_next().await.map_err(listed)? {
        let addr = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(addr) => Some(*addr),
            _ => None,
        });
        let Some(addr) = addr.filter(|addr| !link_local6(*addr)) else { continue };
        if addresses.contains(&addr) {
            present.insert(addr);
        } else {
            let deleted = handle.address().del(message).execute().await;
            tolerate(deleted, libc::EADDRNOTAVAIL, || format!("remove {addr} from {DEVICE}"))?;
        }
    }
    for addr in addresses.iter().filter(|addr| !present.contains(*addr)) {
        let mut request = handle.address().add(index, *addr, if addr.is_ipv4() { 32 } else { 128 });
        // Nobody else can have it: it is usable at once, without a look for duplicates.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        tolerate(request.execute().await, libc::EEXIST, || format!("add {addr} to {DEVICE}"))?;
    }
    Ok(())
}

fn link_local6(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

fn route_range(route: &RouteMessage) -> Option<IpNet> {
    let addr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    })?;
    IpNet::new(addr, route.header.destination_prefix_length).ok()
}

async fn ensure_routes(handle: &Handle, ranges: &[IpNet]) -> Result<(), Error> {
    let ranges: HashSet<IpNet> = ranges.iter().map(IpNet::trunc).collect();
    let mut present = HashSet::new();
    let queries = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    for query in queries {
        let listed = |error| Error::netlink("list routes", error);
        let mut routes = handle.route().get(query).execute();
        while let Some(route) = routes.try_next().await.map_err(listed)? {
            if route.header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL) {
                continue;
            }
            match route_range(&route) {
                Some(range) if ranges.contains(&range) => {
                    present.insert(range);
                }
                range => {
                    let deleted = handle.route().del(route).execute().await;
                    tolerate(deleted, libc::ESRCH, || format!("delete blackhole route {range:?}"))?;
                }
            }
        }
    }
    for range in ranges.difference(&present) {
        let action = || format!("add blackhole route {range}");
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(range.addr(), range.prefix_len())
            .map_err(|error| Error::system(action(), std::io::Error::other(error)))?
            .kind(RouteType::BlackHole)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .priority(METRIC)
            .build();
        tolerate(handle.route().add(route).execute().await, libc::EEXIST, action)?;
    }
    Ok(())
}
