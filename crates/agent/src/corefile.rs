//! Keeps DNS on the plan of the Corefile and of the settings, as both and the node's addresses change.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eastwest_dns::{Access, Corefile, CorefileError, Environment, Resolver};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::node::Identity;
use crate::problems::Problems;
use crate::settings::Settings;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// Ranges that no router carries over the internet: where pods are, when nothing says where they are.
const PRIVATE: [&str; 7] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

/// What DNS is to do, from files and settings.
pub struct Plans {
    resolver: Arc<Resolver>,
    path: Option<PathBuf>,
    environment: Environment,
    /// Served besides the node's own addresses.
    ranges: Vec<IpNet>,
    /// The other nodes', as pods' questions may come from there.
    peers: Arc<Mutex<Vec<IpAddr>>>,
    problems: Problems,
    /// What is followed now.
    followed: Option<(Option<Corefile>, Access)>,
}

impl Plans {
    pub fn new(
        resolver: Arc<Resolver>,
        settings: &Settings,
        identity: &Identity,
        listen: Vec<IpAddr>,
        peers: Arc<Mutex<Vec<IpAddr>>>,
        problems: Problems,
    ) -> Self {
        let environment = Environment {
            node: identity.name.clone(),
            resolv_conf: settings.upstream_resolv_conf.clone(),
            listen,
            ns_addresses: settings.cluster_dns.clone(),
            health: settings.dns_health_listen.port(),
            ready: settings.dns_ready_listen.port(),
            metrics: settings.dns_metrics_listen.port(),
            autopath: settings.dns_autopath,
            log_sample: settings.dns_log_sample,
            variables: std::env::vars().collect(),
        };
        let mut ranges = settings.dns_allow.clone();
        match &identity.pod_cidrs[..] {
            [] => ranges.extend(PRIVATE.iter().filter_map(|r| r.parse::<IpNet>().ok())),
            pods => ranges.extend(pods),
        }
        let path = settings.corefile.clone();
        ranges.extend(&settings.cluster_cidr);
        Self { resolver, path, environment, ranges, peers, problems, followed: None }
    }

    /// Whether the Corefile wants endpoints to go by their pods' names; looked at once, at the start.
    pub fn pod_names(&self) -> bool {
        matches!(self.read(), Ok(Some(corefile)) if corefile.pod_names())
    }

    fn read(&self) -> Result<Option<Corefile>, CorefileError> {
        self.path.as_ref().map(|path| Corefile::read(path, &self.environment)).transpose()
    }

    fn access(&self) -> Access {
        let own = self.environment.listen.iter().copied().chain(crate::node::all_addresses());
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Access::only(self.ranges.iter().copied().chain(own.chain(peers).map(IpNet::from)))
    }

    /// Follows what the files say now. A Corefile with a mistake changes nothing: the one before stays, or at the
    /// start the usual plan.
    pub fn load(&mut self) {
        let access = self.access();
        let read = self.read();
        let wanted = match &read {
            Ok(corefile) => corefile.clone(),
            Err(_) => self.followed.as_ref().and_then(|(corefile, _)| corefile.clone()),
        };
        let mut problem = read.err();
        if self.followed.as_ref() != Some(&(wanted.clone(), access.clone())) {
            match self.resolver.configure(wanted.as_ref(), access.clone(), &self.environment) {
                Ok(()) => {
                    if self.followed.as_ref().is_some_and(|(corefile, _)| *corefile != wanted) {
                        info!(path = ?self.path, "following another Corefile");
                    }
                    self.followed = Some((wanted, access));
                }
                Err(e) => {
                    if self.followed.is_none() {
                        // Without a Corefile nothing can be wrong.
                        let _ = self.resolver.configure(None, access.clone(), &self.environment);
                        self.followed = Some((None, access));
                    }
                    problem = Some(e);
                }
            }
        }
        let path = self.path.as_ref().map_or(String::new(), |p| p.display().to_string());
        self.problems.set("corefile", problem.map(|e| format!("{path}: {e}")));
        self.resolver.refresh();
    }

    /// Looks at the files every few seconds, and when told to.
    pub async fn run(mut self, mut now: tokio::sync::watch::Receiver<u64>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                changed = now.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            // Files may be on a slow disk: not on the threads that answer.
            let loaded = tokio::task::spawn_blocking(move || {
                self.load();
                self
            });
            self = match loaded.await {
                Ok(plans) => plans,
                Err(_) => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use eastwest_dns::{ForwardOptions, Forwarder, Index, IndexOptions, Metrics};
    use eastwest_settings::Settings as _;

    use super::*;

    fn plans(path: Option<PathBuf>) -> Plans {
        let defaults = Settings::keys().iter().map(|k| (k.default)()).collect::<Vec<_>>();
        let mut settings = Settings::build(&mut |i| defaults[i].clone()).unwrap();
        settings.corefile = path;
        let metrics = Metrics::new();
        let forwarder = Forwarder::new(ForwardOptions::default(), metrics.clone());
        let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
        let resolver = Resolver::new(index, forwarder, metrics);
        let identity = Identity { name: "n1".into(), addresses: Vec::new(), pod_cidrs: Vec::new() };
        Plans::new(resolver, &settings, &identity, Vec::new(), Arc::default(), Problems::default())
    }

    #[test]
    fn a_mistake_changes_nothing_and_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut plans = plans(Some(file.path().into()));
        for (text, followed, problem) in [
            (".:53 {\n erorrs\n}\n", None, Some("line 2: erorrs")),
            (".:53 {\n health {\n  lameduck 3s\n }\n}\n", Some(3), None),
            (".:53 {\n health {\n  lameduck x\n }\n}\n", Some(3), Some("line 3: ")),
            (".:53 {\n health {\n  lameduck 4s\n }\n}\n", Some(4), None),
        ] {
            std::fs::write(file.path(), text).unwrap();
            plans.load();
            assert_eq!(plans.resolver.lameduck().as_secs(), followed.unwrap_or(0), "{text}");
            let told = plans.problems.list().join("\n");
            assert!(problem.map_or(told.is_empty(), |p| told.contains(p)), "{text}\n{told}");
        }
    }
}
