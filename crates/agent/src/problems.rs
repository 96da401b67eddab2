//! What does not work, by subject: kept until its owner says that it works.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

/// Shared by all parts of the agent; cheap to clone.
#[derive(Clone, Debug)]
pub struct Problems(Arc<watch::Sender<BTreeMap<String, String>>>);

impl Default for Problems {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Problems {
    /// Sets or clears the problem of a subject. Logged when it changes, not when it stays.
    pub fn set(&self, subject: &str, problem: Option<String>) {
        self.0.send_if_modified(|all| match problem {
            Some(text) => {
                if all.get(subject) == Some(&text) {
                    return false;
                }
                warn!(subject, problem = text, "not working");
                all.insert(subject.to_owned(), text);
                true
            }
            None => {
                let gone = all.remove(subject).is_some();
                if gone {
                    info!(subject, "working again");
                }
                gone
            }
        });
    }

    /// `subject: problem`, sorted.
    pub fn list(&self) -> Vec<String> {
        self.0.borrow().iter().map(|(subject, problem)| format!("{subject}: {problem}")).collect()
    }

    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.0.subscribe()
    }
}
