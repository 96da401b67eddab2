//! The connection to the API server: nothing is asked while it has said to wait, and no watch is opened at a rate that
//! a server which closes each at once would dictate.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Time between two openings of the same watch.
const WATCH_SPACING: Duration = Duration::from_millis(500);
/// Longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// A client for [`Mirror`](crate::Mirror).
///
/// # Errors
/// When the configuration's certificates or credentials cannot be read.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    // Failures are counted and waited for by who asked.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.with_layer(&Throttle::default()).build())
}

/// What is known of when to ask again.
#[derive(Clone, Debug, Default)]
struct Throttle(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    /// The server has asked for quiet until then.
    quiet: Option<Instant>,
    /// When each watch may be opened next.
    watches: HashMap<String, Instant>,
}

impl Throttle {
    /// When a request may go, which is taken for gone then.
    fn start(&self, path: &str, watch: bool, now: Instant) -> Instant {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = times.quiet.map_or(now, |q| q.max(now));
        if watch {
            let next = times.watches.entry(path.to_owned()).or_insert(now);
            at = at.max(*next);
            *next = at + WATCH_SPACING;
        }
        at
    }

    fn answered(&self, status: StatusCode, retry_after: Option<u64>, now: Instant) {
        if ![StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
            return;
        }
        if let Some(seconds) = retry_after {
            let until = now + Duration::from_secs(seconds).min(LONGEST);
            let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            times.quiet = times.quiet.max(Some(until));
        }
    }
}

impl<S> Layer<S> for Throttle {
    type Service = Throttled<S>;
    fn layer(&self, inner: S) -> Throttled<S> {
        Throttled { inner, throttle: self.clone() }
    }
}

struct Throttled<S> {
    inner: S,
    throttle: Throttle,
}

impl<S, B> Service<Request<Body>> for Throttled<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watch = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "watch=true"));
        let throttle = self.throttle.clone();
        let at = throttle.start(request.uri().path(), watch, Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            tokio::time::sleep_until(at).await;
            let response = answer.await?;
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let retry_after = retry_after.and_then(|v| v.to_str().ok()?.trim().parse().ok());
            throttle.answered(response.status(), retry_after, Instant::now());
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_told() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let after = |path: &str, watch: bool| throttle.start(path, watch, now).duration_since(now);
        assert_eq!(after("/a", false), Duration::ZERO);
        assert_eq!(after("/a", true), Duration::ZERO);
        assert_eq!(after("/a", true), WATCH_SPACING);
        assert_eq!(after("/a", false), Duration::ZERO);
        assert_eq!(after("/b", true), Duration::ZERO);
        throttle.answered(StatusCode::NOT_FOUND, Some(9), now);
        assert_eq!(after("/c", false), Duration::ZERO);
        throttle.answered(StatusCode::TOO_MANY_REQUESTS, Some(9), now);
        throttle.answered(StatusCode::TOO_MANY_REQUESTS, None, now);
        throttle.answered(StatusCode::SERVICE_UNAVAILABLE, Some(3), now);
        assert_eq!(after("/c", false), Duration::from_secs(9));
        throttle.answered(StatusCode::TOO_MANY_REQUESTS, Some(1_000_000), now);
        assert_eq!(after("/c", true), LONGEST);
    }
}
