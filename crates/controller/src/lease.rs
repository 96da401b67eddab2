//! Which of several controllers writes Events to the cluster: the holder of a Lease, by the rules of client-go's leader
//! election (tools/leaderelection): its clock counts, not the time that stands in the Lease.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Name of the Lease, in the controllers' namespace.
pub const LEASE: &str = "eastwest-controller";
/// Others take it when it has not been renewed for so long; its holder gives up a little before.
const DURATION: Duration = Duration::from_secs(15);
const GIVE_UP: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(3);

/// What is done about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    Renew,
    Wait,
}

/// `unchanged`: for how long the Lease has been seen as it is.
fn step(lease: Option<&LeaseSpec>, me: &str, unchanged: Duration) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let lasting = lease
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    match lease.holder_identity.as_deref() {
        Some(holder) if holder == me => Step::Renew,
        None | Some("") => Step::Take,
        Some(_) if unchanged >= lasting => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// Seeks to hold the Lease.
pub struct Elector {
    leases: Api<Lease>,
    me: String,
    /// Version of the Lease, and when it was seen first.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
    held: watch::Sender<bool>,
}

impl Elector {
    /// `me` must be another in each controller.
    pub fn new(client: Client, namespace: &str, me: String) -> (Self, watch::Receiver<bool>) {
        let (held, is_held) = watch::channel(false);
        (Self { leases: Api::namespaced(client, namespace), me, seen: None, renewed: None, held }, is_held)
    }

    /// Until `stop`; then the Lease is given up, so that another need not wait.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            match tokio::time::timeout(GIVE_UP, self.once()).await {
                Ok(Ok(true)) => self.renewed = Some(Instant::now()),
                Ok(Ok(false)) => self.renewed = None,
                Ok(Err(error)) => debug!(%error, "Lease"),
                Err(_) => debug!("Lease: no answer"),
            }
            let holds = self.renewed.is_some_and(|at| at.elapsed() < GIVE_UP);
            if self.held.send_if_modified(|held| std::mem::replace(held, holds) != holds) {
                info!(holds, "Lease {LEASE}: its holder writes Events");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
                () = stop.cancelled() => break,
            }
        }
        if self.renewed.is_some() {
            let _another_takes_it_later = tokio::time::timeout(PERIOD, self.give_up()).await;
        }
    }

    /// Whether it is ours after this.
    async fn once(&mut self) -> Result<bool, kube::Error> {
        let lease = self.leases.get_opt(LEASE).await?;
        let version = lease.as_ref().and_then(|l| l.metadata.resource_version.clone()).unwrap_or_default();
        let unchanged = match &self.seen {
            Some((known, at)) if *known == version => at.elapsed(),
            _ => {
                self.seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        };
        let spec = lease.as_ref().map(|l| l.spec.clone().unwrap_or_default());
        let step = step(spec.as_ref(), &self.me, unchanged);
        if step == Step::Wait {
            return Ok(false);
        }
        let old = spec.unwrap_or_default();
        let now = Some(MicroTime(Timestamp::now()));
        let taken = step != Step::Renew;
        let spec = LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if taken { now.clone() } else { old.acquire_time },
            renew_time: now,
            lease_transitions: Some(
                old.lease_transitions.unwrap_or(0).saturating_add(i32::from(step == Step::Take)),
            ),
            ..LeaseSpec::default()
        };
        self.write(lease, spec).await
    }

    async fn give_up(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(LEASE).await? else { return Ok(false) };
        let old = lease.spec.clone().unwrap_or_default();
        if old.holder_identity.as_deref() != Some(&self.me) {
            return Ok(false);
        }
        let spec = LeaseSpec { holder_identity: Some(String::new()), ..old };
        self.write(Some(lease), spec).await
    }

    /// Whether nobody was faster.
    async fn write(&self, lease: Option<Lease>, spec: LeaseSpec) -> Result<bool, kube::Error> {
        let written = match lease {
            Some(lease) => {
                let new = Lease { spec: Some(spec), ..lease };
                self.leases.replace(LEASE, &PostParams::default(), &new).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
                self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(e)) if e.code == 409 => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_have_it() {
        let held = |by: &str| {
            let holder_identity = Some(by.to_owned());
            Some(LeaseSpec { holder_identity, lease_duration_seconds: Some(15), ..LeaseSpec::default() })
        };
        for (name, lease, unchanged, expected) in [
            ("there is none", None, 0, Step::Create),
            ("nobody's yet", Some(LeaseSpec::default()), 0, Step::Take),
            ("given up", held(""), 0, Step::Take),
            ("ours", held("me"), 0, Step::Renew),
            ("ours, of before", held("me"), 60, Step::Renew),
            ("another's", held("you"), 14, Step::Wait),
            ("another's that is gone", held("you"), 15, Step::Take),
        ] {
            assert_eq!(step(lease.as_ref(), "me", Duration::from_secs(unchanged)), expected, "{name}");
        }
    }
}
