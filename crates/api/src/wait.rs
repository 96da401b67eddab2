//! `?wait=programmed`: the answer comes when every node has programmed the write.

use std::time::Duration;

use eastwest_model::{Kind, Revision};
use eastwest_store::Key;
use serde::Deserialize;

use crate::{ApiError, App};

/// How often to look even when no node reports: a Node may have been deleted.
const LOOK: Duration = Duration::from_millis(200);

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub node: String,
    /// Of this store; `None` when its agent has reported nothing, or of another store.
    pub applied: Option<Revision>,
    pub connected: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    store_id: String,
    applied_revision: Revision,
}

/// What each Node's agent has reported.
pub fn progress(app: &App) -> Vec<Progress> {
    let nodes: Vec<String> =
        app.store().read(|view| view.range(Kind::Node, None, None).map(|o| o.key.name.to_string()).collect());
    let id = app.store().id();
    let states = &app.realm(Kind::NodeState).store;
    nodes
        .into_iter()
        .map(|node| {
            let object = states.get(&Key::new(Kind::NodeState, "", &node));
            let state: State = object.and_then(|o| serde_json::from_slice(&o.json).ok()).unwrap_or_default();
            let applied = (state.status.store_id == id).then_some(state.status.applied_revision);
            Progress { connected: app.is_connected(&node), node, applied }
        })
        .collect()
}

/// Returns when all Nodes have applied `revision`, or after `timeout` with who has not.
pub async fn programmed(app: &App, revision: Revision, timeout: Duration) -> Result<(), ApiError> {
    let deadline = tokio::time::Instant::now() + timeout;
    let states = &app.realm(Kind::NodeState).store;
    loop {
        // Subscribed before looking, so that no report falls in between.
        let watcher = states.watch(states.revision());
        let behind: Vec<Progress> =
            progress(app).into_iter().filter(|p| p.applied.is_none_or(|a| a < revision)).collect();
        if behind.is_empty() {
            return Ok(());
        }
        let report = async {
            if let Ok(mut watcher) = watcher {
                let _ = tokio::time::timeout(LOOK, watcher.next(1)).await;
            }
        };
        tokio::select! {
            () = report => {}
            () = tokio::time::sleep_until(deadline) => return Err(late(revision, timeout, &behind)),
            () = app.0.closing.cancelled() => {
                let message = format!("written at revision {revision}, but the server is shutting down");
                return Err(ApiError::unavailable(message));
            }
        }
    }
}

fn late(revision: Revision, timeout: Duration, behind: &[Progress]) -> ApiError {
    let text = |p: &Progress| {
        let has = match p.applied {
            Some(a) => format!("has revision {a}"),
            None => "has reported nothing".into(),
        };
        if p.connected { has } else { format!("{has} and is not connected") }
    };
    let mut list: Vec<_> = behind.iter().take(10).map(|p| format!("{} {}", p.node, text(p))).collect();
    if behind.len() > 10 {
        list.push(format!("and {} more", behind.len() - 10));
    }
    let message = format!(
        "written at revision {revision}, but not programmed by every node within {timeout:?}: {}",
        list.join(", ")
    );
    let mut error = ApiError::timeout(message);
    for p in behind.iter().take(1000) {
        error = error.cause("NotProgrammed", &p.node, text(p));
    }
    error
}
