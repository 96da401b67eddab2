use bytes::Bytes;
use eastwest_model::Revision;

use crate::{Error, Key, Object};

/// What makes writes last. Called from the store's own thread only, so it may block.
pub trait Disk: Send + 'static {
    /// Everything written so far. Called once, first.
    fn load(&mut self) -> Result<Loaded, Error>;

    /// Makes all `changes` and `head` durable, all or nothing, before it returns.
    fn write(&mut self, changes: &[Change], head: Revision) -> Result<(), Error>;
}

/// The content of a [`Disk`].
#[derive(Debug)]
pub struct Loaded {
    /// Made once per store; another id means another history.
    pub store_id: String,
    /// The revision of the last write.
    pub head: Revision,
    pub objects: Vec<Object>,
}

/// The final state of one object in a batch.
#[derive(Debug)]
pub struct Change {
    pub key: Key,
    /// The revision and JSON; `None` when it is gone.
    pub value: Option<(Revision, Bytes)>,
}

/// Keeps nothing: for tests, and for states that are worth nothing after a restart.
#[derive(Debug, Default)]
pub struct Memory;

impl Disk for Memory {
    fn load(&mut self) -> Result<Loaded, Error> {
        Ok(Loaded {
            store_id: uuid::Uuid::new_v4().to_string(),
            head: Revision::default(),
            objects: Vec::new(),
        })
    }

    fn write(&mut self, _changes: &[Change], _head: Revision) -> Result<(), Error> {
        Ok(())
    }
}
