//! Who a token of Kubernetes belongs to, by the API server's TokenReview.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use eastwest_api::{Reviewer, Role};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// The audience that tokens for this controller are made for: others' tokens are no use here, nor ours elsewhere.
pub const AUDIENCE: &str = "eastwest";
/// How long an answer counts: a good one, and a bad one.
const GOOD: Duration = Duration::from_secs(60);
const BAD: Duration = Duration::from_secs(10);
/// How long a token that was good stays so while the API server cannot be asked. Not longer than tokens live.
const UNASKED: Duration = Duration::from_secs(3600);
/// Answers that are kept, and questions at once: strangers may send anything.
const KEPT: usize = 16_384;
const AT_ONCE: usize = 8;
/// No token is longer.
const LONGEST: usize = 16 * 1024;

/// See the module.
pub struct TokenReviewer {
    api: Api<TokenReview>,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    agents: String,
    known: Mutex<HashMap<String, (Instant, Option<Role>)>>,
    turns: Semaphore,
}

impl TokenReviewer {
    /// `agents` is the agents' service account, `NAMESPACE:NAME`.
    pub fn new(client: Client, agents: &str) -> Self {
        Self {
            api: Api::all(client),
            agents: format!("system:serviceaccount:{agents}"),
            known: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    fn known(&self, token: &str) -> Option<(Duration, Option<Role>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(token).map(|(at, role)| (at.elapsed(), *role))
    }

    fn fresh(&self, token: &str) -> Option<Option<Role>> {
        let (age, role) = self.known(token)?;
        (age < if role.is_some() { GOOD } else { BAD }).then_some(role)
    }

    fn keep(&self, token: String, role: Option<Role>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, (at, role)| role.is_some() && at.elapsed() < UNASKED);
        }
        if known.len() < KEPT || role.is_some() {
            known.insert(token, (Instant::now(), role));
        }
    }

    async fn ask(&self, token: &str) -> Result<Option<Role>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let status = self.api.create(&Default::default(), &review).await?.status.unwrap_or_default();
        // A server that knows no audiences says nothing of them, and would take any token for ours.
        let for_us = status.audiences.is_some_and(|a| a.iter().any(|a| a == AUDIENCE));
        let user = status.user.and_then(|u| u.username);
        let agent = user.as_deref() == Some(&self.agents);
        if !(status.authenticated == Some(true) && for_us && agent) {
            debug!(user, for_us, error = status.error, "a token that is not an agent's");
            return Ok(None);
        }
        Ok(Some(Role::Agent))
    }

    async fn role(&self, token: String) -> Option<Role> {
        // Three parts, as every service account's token (RFC 7519): anything else need not be asked about.
        if token.len() > LONGEST || token.split('.').count() != 3 {
            return None;
        }
        if let Some(role) = self.fresh(&token) {
            return role;
        }
        let _turn = self.turns.acquire().await.ok()?;
        if let Some(role) = self.fresh(&token) {
            return role;
        }
        match self.ask(&token).await {
            Ok(role) => {
                self.keep(token, role);
                role
            }
            Err(error) => {
                let (age, role) = self.known(&token)?;
                let stands = role.filter(|_| age < UNASKED);
                warn!(%error, stands = stands.is_some(), "the API server does not say whose a token is");
                stands
            }
        }
    }
}

impl Reviewer for TokenReviewer {
    fn review(&self, token: String) -> Pin<Box<dyn Future<Output = Option<Role>> + Send + '_>> {
        Box::pin(self.role(token))
    }
}
