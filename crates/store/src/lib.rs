//! Where the controller keeps objects. This crate knows an object as a [`Key`], its JSON and its labels; what the JSON
//! means is the caller's business (`eastwest-api`).
//!
//! All writes form one sequence of [`Revision`](eastwest_model::Revision)s. One thread runs the transactions one after
//! the other, gathers those that wait into one batch, makes the batch durable ([`Disk`]) and only then lets readers,
//! watchers and the writers see it: nothing that anybody has seen can be lost, and many writers share one flush.
//! Reads come from memory and never wait for the disk.

mod backup;
mod disk;
mod head;
mod object;
mod overlay;
mod sled;
mod store;
mod window;

pub use backup::newest_backup;
pub use disk::{Change, Disk, Loaded, Memory};
pub use object::{Key, Object};
pub use overlay::View;
pub use sled::Sled;
pub use store::{Flush, Options, Store, Txn};
pub use window::{Event, Gone, WINDOW_BYTES, WINDOW_EVENTS, Watcher};

/// Why the store cannot serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The directory does not open, or has lost what was acknowledged. Restore it from a backup.
    #[error("{0}")]
    Open(String),
    /// The disk refused a write. Nothing of the transaction is kept; the store takes no more writes if the disk stays so.
    #[error("cannot write to disk: {0}")]
    Write(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The transaction's own code failed. Nothing of it is kept.
    #[error("internal error in a transaction: {0}")]
    Panicked(String),
}
