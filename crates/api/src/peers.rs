//! NodeStates of agents that follow another controller of the same cluster, so that each controller shows all nodes.

use std::collections::BTreeSet;

use eastwest_model::{Kind, NodeState, Revision};
use eastwest_store::Key;

use crate::transaction::Refused;
use crate::write::{self, Update, Written};
use crate::{ApiError, App};

/// An annotation of a NodeState: the controller that the node's agent follows, where that is another one.
pub const ANNOTATION_CONTROLLER: &str = "eastwest.dev/controller";

/// A node of a peer's own: its agent is connected there.
fn of_its_own(state: &NodeState) -> bool {
    state.status.connected && !state.metadata.annotations.contains_key(ANNOTATION_CONTROLLER)
}

/// No dry run is asked for here.
fn kept(written: Result<Written, Refused<Written>>) -> Result<Written, ApiError> {
    written.or_else(|refused| match refused {
        Refused::DryRun(written) => Ok(written),
        Refused::Error(e) => Err(e),
    })
}

impl App {
    /// Takes over what `peer` knows of the agents that follow it; those that it no longer has are not connected. Revisions of
    /// two controllers have nothing to do with each other: a node that is so far behind `newest`, the peer's, is shown as far
    /// behind ours.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn take_states(
        &self,
        peer: String,
        newest: Revision,
        states: Vec<NodeState>,
    ) -> Result<(), ApiError> {
        let app = self.clone();
        let ours = self.revision();
        let written = self.realm(Kind::NodeState).write(move |tx| {
            let (mut seen, mut last) = (BTreeSet::new(), None);
            for state in states.into_iter().filter(of_its_own) {
                let name = state.metadata.name;
                if app.is_connected(&name) {
                    continue;
                }
                let mut status = state.status;
                let behind = newest.0.saturating_sub(status.applied_revision.0);
                status.applied_revision = Revision(ours.0.saturating_sub(behind));
                let how = Update { or_create: true, ..Update::default() };
                let written = write::update::<NodeState>(tx, "", &name, how, |old| {
                    let mut new = old.cloned().unwrap_or_default();
                    new.api_version = Kind::NodeState.api_version().into();
                    new.kind = Kind::NodeState.name().into();
                    new.metadata.name.clone_from(&name);
                    new.metadata.annotations.insert(ANNOTATION_CONTROLLER.into(), peer.clone());
                    new.status = status;
                    Ok(new)
                });
                last = Some(kept(written)?);
                seen.insert(name);
            }
            for Key { name, .. } in tx.keys(Kind::NodeState, None) {
                let theirs = tx.get::<NodeState>("", &name).filter(|s| {
                    s.status.connected && s.metadata.annotations.get(ANNOTATION_CONTROLLER) == Some(&peer)
                });
                if theirs.is_some() && !seen.contains(&*name) {
                    let written = write::update::<NodeState>(tx, "", &name, Update::default(), |old| {
                        let mut new = old.cloned().unwrap_or_default();
                        new.status.connected = false;
                        Ok(new)
                    });
                    last = Some(kept(written)?);
                }
            }
            Ok::<_, Refused<Option<Written>>>(last)
        });
        written.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Auth, Config};
    use eastwest_store::{Memory, Options, Store};

    fn state(name: &str, connected: bool, of_another: bool) -> NodeState {
        let mut state = NodeState::default();
        state.metadata.name = name.into();
        state.status.connected = connected;
        state.status.applied_revision = Revision(7);
        state.status.services = 1;
        if of_another {
            state.metadata.annotations.insert(ANNOTATION_CONTROLLER.into(), "192.0.2.9".into());
        }
        state
    }

    /// Each node, whether it is connected, and what its agent is said to have applied.
    fn shown(app: &App) -> Vec<(String, bool, u64)> {
        app.realm(Kind::NodeState).store.read(|view| {
            let all = view.range(Kind::NodeState, None, None);
            let all = all.filter_map(|o| serde_json::from_slice::<NodeState>(&o.json).ok());
            all.map(|s| (s.metadata.name, s.status.connected, s.status.applied_revision.0)).collect()
        })
    }

    #[tokio::test]
    async fn nodes_of_others_are_shown_and_go_with_them() {
        let store = Store::open(Memory, Options::default()).unwrap();
        let app = App::new(store, Config::default(), Auth::default(), None).unwrap();
        let here = app.connect("here");
        for _ in 0..100 {
            if !shown(&app).is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let take = async |peer: &str, states: Vec<NodeState>| {
            app.take_states(peer.into(), Revision(7), states).await
        };
        let theirs = vec![
            state("a", true, false),
            state("gone", false, false),
            state("b", true, true),
            state("here", true, false),
        ];
        take("192.0.2.1", theirs).await.unwrap();
        // Up to date there is up to date here.
        let now = app.revision().0;
        let of_here = ("here".to_owned(), true, 0);
        assert_eq!(shown(&app), [("a".to_owned(), true, now), of_here.clone()]);
        take("192.0.2.2", vec![]).await.unwrap();
        assert_eq!(shown(&app), [("a".to_owned(), true, now), of_here.clone()], "another peer has no say");
        take("192.0.2.1", vec![]).await.unwrap();
        assert_eq!(shown(&app), [("a".to_owned(), false, now), of_here]);
        drop(here);
    }
}
