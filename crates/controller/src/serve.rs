//! From settings to a running server, and to its orderly end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum_server::tls_rustls::RustlsConfig;
use eastwest_api::{App, Auth, Config, Role};
use eastwest_store::{Memory, Options, Sled, Store};
use hyper_util::rt::TokioTimer;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::pki::{self, Pki};
use crate::{LogFormat, Settings, Source, dashboard, metrics};

/// How long requests at work may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a client may take for TLS, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often a backup is made, when something has changed, and how many are kept.
const BACK_UP: Duration = Duration::from_secs(3600);
const BACKUPS: usize = 3;

type LogFilter = reload::Handle<EnvFilter, tracing_subscriber::Registry>;
type Handle = axum_server::Handle<SocketAddr>;

fn logging(settings: &Settings) -> Result<LogFilter> {
    let (filter, handle) = reload::Layer::new(filter(&settings.log_level)?);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("cannot start logging")?;
    Ok(handle)
}

fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(level).with_context(|| {
        format!("logLevel {level:?}: expected error, warn, info, debug, trace or directives")
    })
}

/// Serves until SIGTERM or SIGINT. `log_level` gives the configured level anew, for SIGHUP.
pub async fn run(settings: Settings, log_level: impl Fn() -> Result<String>) -> Result<()> {
    let log = logging(&settings)?;
    // Caught from here on, so that a signal during start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let config = Config {
        service_ranges: settings.service_cidr.clone(),
        dns_service_ips: settings.dns_service_ip.clone(),
        zone: settings.zone.clone(),
        read_only: settings.source == Source::Kubernetes,
    };
    config.check()?;
    let cluster = match settings.source {
        Source::Api => None,
        Source::Kubernetes | Source::Both => Some(Cluster::new(&settings).await?),
    };
    let advertise_url = match settings.advertise_url.as_str() {
        "" => format!("https://127.0.0.1:{}", settings.listen.port()),
        url => url.trim_end_matches('/').to_owned(),
    };
    let host = host_of(&advertise_url)?;

    let listener = bind(settings.listen).context("listen")?;
    let metrics_listener = bind(settings.metrics_listen).context("metricsListen")?;
    let inherited = inherited()?;

    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot create {}", settings.data_dir.display()))?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let options = Options { on_flush: Some(metrics.on_flush()), ..Options::default() };
    let path = settings.data_dir.join("store");
    let backups = settings.data_dir.join("backup");
    let in_memory = settings.source == Source::Kubernetes;
    let open = move || match in_memory {
        true => Store::open(Memory, options),
        false => Store::open(Sled::open(&path)?, options),
    };
    let opened = tokio::task::spawn_blocking(open).await?;
    let store = opened.map_err(|e| anyhow::anyhow!("{e}. {}", restore_hint(&settings.data_dir, &backups)))?;

    let mut peers = None;
    if let Some(cluster) = &cluster {
        let ca = tokio::select! {
            ca = cluster.shared_ca() => ca,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        pki::adopt(&settings.data_dir, &ca)?;
        peers = Some(cluster.peers(&ca));
    }
    let pki = Pki::open(&settings.data_dir, pki::names(&settings.san, &host, settings.listen.ip()))?;
    let tokens = pki.tokens()?;
    pki::write_kubeconfigs(&settings.data_dir, &advertise_url, &pki, &tokens)?;
    let tls = RustlsConfig::from_config(pki.server_config()?);

    let of_peers = peers.as_ref().map(|p| (p.token().to_owned(), Role::Viewer));
    let mut auth = Auth::new(tokens.into_iter().chain(of_peers));
    if let Some(cluster) = &cluster {
        auth = auth.with_reviewer(cluster.reviewer());
    }
    let app = App::new(store.clone(), config, auth, Some(metrics.observer()))?;
    let stop = CancellationToken::new();
    let mut in_cluster = tokio::task::JoinSet::new();
    match cluster {
        None => app.bootstrap().await.context("cannot create the system objects")?,
        Some(cluster) => {
            let mirror = cluster.mirror(app.clone(), &mut registry);
            let (elector, announcer) = cluster.announcer(app.clone(), &mirror, &mut registry);
            in_cluster.spawn(mirror.run(stop.clone()));
            in_cluster.spawn(elector.run(stop.clone()));
            in_cluster.spawn(announcer.run(stop.clone()));
            if let Some(peers) = peers {
                in_cluster.spawn(peers.run(app.clone(), stop.clone()));
            }
            in_cluster.spawn(cluster.keep_dns_service(stop.clone()));
        }
    }
    let router = eastwest_api::router(app.clone(), Some(dashboard::routes()));

    let mut servers = tokio::task::JoinSet::new();
    let mut handles = Vec::new();
    for listener in std::iter::once(listener).chain(inherited) {
        let address = listener.local_addr()?;
        tracing::info!(%address, "API");
        let handle = Handle::new();
        handles.push(handle.clone());
        servers.spawn(serve_tls(listener, tls.clone(), handle, router.clone()));
    }
    let handle = Handle::new();
    handles.push(handle.clone());
    tracing::info!(address = %metrics_listener.local_addr()?, "metrics");
    servers.spawn(serve_plain(metrics_listener, handle, metrics::routes(app.clone(), registry)));
    tracing::info!(store = store.id(), revision = %store.revision(), data_dir = %settings.data_dir.display(), "ready");

    let mut back_up = tokio::time::interval(BACK_UP);
    let mut renew = tokio::time::interval(pki::RENEW);
    renew.reset();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match log_level().and_then(|level| Ok((filter(&level)?, level))) {
                Ok((filter, level)) => {
                    log.reload(filter)?;
                    tracing::info!(level, "log level read again");
                }
                Err(error) => tracing::warn!(%error, "log level not changed"),
            },
            _ = renew.tick() => match pki.server_config() {
                Ok(config) => tls.reload_from_config(config),
                Err(error) => tracing::error!(%error, "certificate not renewed"),
            },
            _ = back_up.tick(), if !in_memory => {
                // Not awaited: a disk that is slow holds nothing up.
                tokio::task::spawn_blocking({
                    let (store, backups) = (store.clone(), backups.clone());
                    move || back_up_now(&store, &backups)
                });
            }
            ended = servers.join_next() => {
                if let Some(ended) = ended {
                    ended??;
                }
                anyhow::bail!("a listener ended by itself");
            }
        }
    }
    tracing::info!("draining");
    app.close();
    for handle in &handles {
        handle.graceful_shutdown(Some(DRAIN));
    }
    // What follows the cluster holds the store too.
    stop.cancel();
    while let Some(ended) = in_cluster.join_next().await {
        ended?;
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    if !in_memory {
        let (store, backups) = (store.clone(), backups.clone());
        tokio::task::spawn_blocking(move || back_up_now(&store, &backups)).await?;
    }
    drop((app, router));
    // Every acknowledged write is on disk already; this waits for those nobody waits for.
    if tokio::time::timeout(DRAIN, store.close()).await.is_err() {
        tracing::warn!("the store was still in use");
    }
    Ok(())
}

fn back_up_now(store: &Store, dir: &Path) {
    match store.back_up(dir, BACKUPS) {
        Ok(Some(path)) => tracing::info!(path = %path.display(), "backup"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, dir = %dir.display(), "no backup could be made"),
    }
}

/// What an operator does next when the store does not open.
fn restore_hint(data_dir: &Path, backups: &Path) -> String {
    match eastwest_store::newest_backup(backups) {
        Some(path) => format!(
            "The newest backup is {0}: `eastwest-controller restore {0} --data-dir {1}`; `salvage FILE` writes what the \
             store has left",
            path.display(),
            data_dir.display()
        ),
        None => format!(
            "There is no backup in {}; `eastwest-controller salvage FILE` writes what the store has left",
            backups.display()
        ),
    }
}

/// `eastwest-controller salvage FILE`.
pub fn salvage(settings: &Settings, file: &Path) -> Result<()> {
    let path = settings.data_dir.join("store");
    anyhow::ensure!(path.is_dir(), "there is no store in {}", path.display());
    let (revision, objects) = Sled::salvage_to(&path, file)?;
    println!(
        "{} holds {objects} objects of revision {revision}: what {} has left",
        file.display(),
        path.display()
    );
    Ok(())
}

/// `eastwest-controller restore FILE`.
pub fn restore(settings: &Settings, file: &Path) -> Result<()> {
    let path = settings.data_dir.join("store");
    let revision = Sled::restore(&path, file)?;
    println!("{} holds the objects of revision {revision} of {}", path.display(), file.display());
    Ok(())
}

async fn serve_tls(listener: TcpListener, tls: RustlsConfig, handle: Handle, router: Router) -> Result<()> {
    let mut server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle);
    let http = server.http_builder();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024)
        .keep_alive_interval(Duration::from_secs(30));
    server.serve(router.into_make_service()).await.context("API listener")
}

async fn serve_plain(listener: TcpListener, handle: Handle, router: Router) -> Result<()> {
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    server.serve(router.into_make_service()).await.context("metrics listener")
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = match TcpListener::bind(address) {
        // A machine without IPv6 still has all of IPv4.
        Err(e) if address.ip() == IpAddr::from([0u16; 8]) && no_ipv6(&e) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        other => other,
    };
    let listener = bound.with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn no_ipv6(e: &std::io::Error) -> bool {
    let code = e.raw_os_error();
    code == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
        || code == Some(nix::errno::Errno::EADDRNOTAVAIL as i32)
}

/// Sockets handed over by systemd's socket activation, or by whoever speaks it.
fn inherited() -> Result<Vec<TcpListener>> {
    let mut fds = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for i in 0..fds.len() {
        if let Some(listener) = fds.take_tcp_listener(i).with_context(|| format!("inherited socket {i}"))? {
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

/// The host of an `https://HOST[:PORT]` URL.
fn host_of(url: &str) -> Result<String> {
    let uri: axum::http::Uri = url.parse().with_context(|| format!("advertiseUrl {url:?} is not a URL"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) => Ok(host.to_owned()),
        _ => anyhow::bail!("advertiseUrl {url:?}: expected https://HOST[:PORT]"),
    }
}
