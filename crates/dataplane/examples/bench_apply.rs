//! What a change costs with few and with many Services in the kernel's maps. Prints JSON. Needs root: it makes
//! namespaces of its own, which go with it.
//!
//! `cargo run -p eastwest-dataplane --release --example bench_apply [SERVICES…]` (default 10 1000 10000)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use eastwest_compile::{Backend, CompiledService, DnsService, Frontend, FrontendKey, ServiceKey};
use eastwest_dataplane::{Dataplane, EbpfDataplane, Error, Options};
use eastwest_model::Protocol;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const CHANGES: u32 = 2_000;

/// Endpoints of each Service and family; with very many Services fewer, as the tables have their default sizes.
fn backends(count: u32) -> u32 {
    if count > 10_000 { 2 } else { 10 }
}

fn service(number: u32, backends: u32, turn: u32) -> CompiledService {
    let (high, low) = ((number >> 8) as u8, number as u8);
    let vips: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 96, high, low)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number as u16)),
    ];
    let frontends = vips
        .into_iter()
        .map(|addr| {
            let mut backends: Vec<Backend> = (0..backends)
                .map(|backend| {
                    // One backend in ten is another each turn, as a rollout does it.
                    let host = if backend == 0 { 10 + turn % 2 } else { backend };
                    let pod = number * 16 + host;
                    let addr = match addr {
                        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(0x0a80_0000 + pod)),
                        IpAddr::V6(_) => {
                            IpAddr::V6(Ipv6Addr::from((0xfd00_0010_u128 << 96) + u128::from(pod)))
                        }
                    };
                    Backend { addr, port: 8080, local: false, weight: 1 }
                })
                .collect();
            backends.sort();
            Frontend::cluster_ip(FrontendKey { addr, port: 80, protocol: Protocol::TCP }, "http", backends)
        })
        .collect();
    let key = ServiceKey::new("bench", format!("service-{number}"));
    CompiledService {
        key,
        frontends,
        dns: DnsService::ClusterIp { ips: vec![], ports: vec![], endpoints: vec![] },
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Megabytes of the kernel's maps that this process has open, as the kernel counts them.
fn tables_mb() -> f64 {
    let mut maps = std::collections::HashMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let number =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum::<u64>() as f64 / 1e6
}

/// Resident megabytes of this process.
fn rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

fn measure(options: &Options, count: u32) -> Result<serde_json::Value, Error> {
    let services: Vec<CompiledService> =
        (0..count).map(|number| service(number, backends(count), 0)).collect();
    let mut dataplane = EbpfDataplane::open(options)?;
    let started = Instant::now();
    dataplane.reconcile(&mut services.iter())?;
    let fill = started.elapsed();

    let mut times: Vec<Duration> = (1..=CHANGES)
        .map(|turn| {
            let changed = service(turn % count, backends(count), turn / count + 1);
            let started = Instant::now();
            dataplane.apply(&changed.key, Some(&changed))?;
            Ok(started.elapsed())
        })
        .collect::<Result<_, Error>>()?;
    times.sort();

    let (tables, rss) = (tables_mb(), rss_mb());

    drop(dataplane);
    let started = Instant::now();
    let mut dataplane = EbpfDataplane::open(options)?;
    let open = started.elapsed();
    let started = Instant::now();
    dataplane.reconcile(&mut services.iter())?;
    let reconcile = started.elapsed();
    eastwest_dataplane::pins::remove_all(&options.pin_dir)?;

    Ok(serde_json::json!({
        "services": count,
        "backends": count * backends(count) * 2,
        "fill_ms": fill.as_millis() as u64,
        "apply_us_median": micros(times[times.len() / 2]),
        "apply_us_p99": micros(times[times.len() * 99 / 100]),
        "tables_mb": tables,
        "rss_mb": rss,
        "restart_open_ms": open.as_millis() as u64,
        "restart_reconcile_ms": reconcile.as_millis() as u64,
    }))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("needs root for namespaces of its own: {error}"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let folder = tempfile::tempdir()?;
    mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none)?;
    let options = Options { pin_dir: folder.path().join("pins"), ..Options::default() };

    let mut counts: Vec<u32> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    if counts.is_empty() {
        counts = vec![10, 1_000, 10_000];
    }
    let rows = counts.iter().map(|count| measure(&options, *count)).collect::<Result<Vec<_>, _>>()?;
    nix::mount::umount(folder.path())?;
    let median = |row: Option<&serde_json::Value>| row.and_then(|row| row["apply_us_median"].as_f64());
    let ratio = median(rows.last()).zip(median(rows.first())).map(|(last, first)| last / first);
    let report = serde_json::json!({
        "bench": "apply",
        "what": "one Service's change (one of ten backends, both families) from call to last map write",
        "rows": rows,
        "ratio_last_to_first": ratio,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
