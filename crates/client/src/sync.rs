//! The agents' sync protocol (`eastwest_model::stream`) as a state machine: no sockets, no clock. `now` comes in, what
//! to do next and until when comes out.
//!
//! A full list never causes a flap: its objects come out as they are, and what is gone comes out only with
//! [`Event::Synced`]. A list that breaks off half-way deletes nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use eastwest_model::stream::{BOOKMARK_SECONDS, Message};
use eastwest_model::{Kind, Revision};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Silence after which a connection counts as dead.
pub const STALE: Duration = Duration::from_secs(3 * BOOKMARK_SECONDS);
/// Time for a connection to be made and the first message to come.
pub const CONNECT: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// A connection that lived this long was a good one: the next delay starts small.
const GOOD: Duration = Duration::from_secs(5);
const FIRST_REMINDER: Duration = Duration::from_secs(60);
const LONGEST_REMINDER: Duration = Duration::from_secs(3600);

/// What an agent holds: everything up to and including `revision` of this store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    pub store_id: String,
    pub revision: Revision,
}

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// Connected; `head` is the store's newest revision. Changes after the position held follow, or a [`Event::Reset`].
    Hello { store_id: String, head: Revision },
    /// A full list follows, which ends with [`Event::Synced`].
    Reset,
    /// An object as it now is.
    Put { revision: Revision, kind: Kind, object: Box<RawValue> },
    /// An object that is gone.
    Delete { revision: Revision, kind: Kind, namespace: String, name: String },
    /// The list is whole: what is not in it is gone.
    Synced { position: Position, listed: Listed },
    /// Nothing relevant up to `revision`.
    Bookmark { revision: Revision },
}

/// Which objects a full list held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed(HashSet<(Kind, Box<str>, Box<str>)>);

impl Listed {
    /// `namespace` is empty for kinds without.
    pub fn contains(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.0.contains(&(kind, namespace.into(), name.into()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a stream, asking for what comes after the position; then call [`Machine::opened`] or [`Machine::closed`].
    Connect(Option<Position>),
    /// Nothing before this instant, unless a message comes.
    Wait(Instant),
    /// The stream is dead: drop it and call [`Machine::closed`] with this reason.
    Drop(String),
}

/// A message that may not come now: the peer is not what it says, so the connection is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol error: {0}")]
pub struct ProtocolError(pub String);

/// What to tell the person who runs the node about a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since the last good moment.
    pub lasting: Duration,
    pub attempts: u32,
    pub reason: String,
}

#[derive(Debug)]
enum Phase {
    /// Not before this instant.
    Idle(Instant),
    Connecting {
        since: Instant,
    },
    /// Connected, no hello yet.
    Greeting {
        since: Instant,
    },
    /// A hello, and nothing that says list or changes yet.
    Greeted {
        since: Instant,
        store_id: String,
        resumes: bool,
    },
    Listing {
        since: Instant,
        store_id: String,
        listed: Listed,
    },
    Following {
        since: Instant,
    },
}

/// The protocol's state.
#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    position: Option<Position>,
    heard: Instant,
    failures: u32,
    random: u64,
    /// Start of the present outage, and when to speak of it again.
    outage: Option<(Instant, Instant, Duration)>,
}

impl Machine {
    /// `held` is what a snapshot gave. `seed` spreads the attempts of many agents: any number that differs.
    pub fn new(held: Option<Position>, seed: u64, now: Instant) -> Self {
        let random = seed | 1;
        Self { phase: Phase::Idle(now), position: held, heard: now, failures: 0, random, outage: None }
    }

    /// What has come in so far; the argument of the next connection.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Whether the controller has greeted on the open connection.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Greeted { .. } | Phase::Listing { .. } | Phase::Following { .. })
    }

    pub fn step(&mut self, now: Instant) -> Step {
        match &self.phase {
            Phase::Idle(until) if now >= *until => {
                self.phase = Phase::Connecting { since: now };
                Step::Connect(self.position.clone())
            }
            Phase::Idle(until) => Step::Wait(*until),
            Phase::Connecting { since } | Phase::Greeting { since } => {
                let until = *since + CONNECT;
                if now >= until {
                    return Step::Drop(format!("no answer for {} s", CONNECT.as_secs()));
                }
                Step::Wait(until)
            }
            _ => {
                let until = self.heard + STALE;
                if now >= until {
                    return Step::Drop(format!("nothing heard for {} s", STALE.as_secs()));
                }
                Step::Wait(until)
            }
        }
    }

    /// The stream is open.
    pub fn opened(&mut self, now: Instant) {
        self.heard = now;
        self.phase = Phase::Greeting { since: now };
    }

    /// The stream has ended or could not be opened. Returns what to say about it, if it is time to say something: at
    /// once, then at growing intervals.
    pub fn closed(&mut self, now: Instant, reason: String) -> Option<Outage> {
        let lived = match &self.phase {
            Phase::Greeted { since, .. } | Phase::Listing { since, .. } | Phase::Following { since } => {
                now.saturating_duration_since(*since)
            }
            _ => Duration::ZERO,
        };
        if lived >= GOOD {
            self.failures = 0;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << self.failures.min(10)).min(LONGEST_DELAY);
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Idle(now + self.jitter(delay));
        let (since, speak, interval) = self.outage.unwrap_or((now, now, FIRST_REMINDER));
        if now < speak {
            self.outage = Some((since, speak, interval));
            return None;
        }
        self.outage = Some((since, now + interval, (interval * 2).min(LONGEST_REMINDER)));
        Some(Outage { lasting: now - since, attempts: self.failures, reason })
    }

    /// Half to all of `delay`, so that many agents do not come at once.
    fn jitter(&mut self, delay: Duration) -> Duration {
        // xorshift64 (Marsaglia 2003): good enough to spread.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        delay / 2 + (delay / 2).mul_f64((self.random >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Takes a message in. After an error the stream must be dropped and [`closed`](Self::closed) called.
    pub fn message(&mut self, now: Instant, message: Message) -> Result<Option<Event>, ProtocolError> {
        self.heard = now;
        if let Message::Hello { store_id, revision } = message {
            return self.hello(now, store_id, revision).map(Some);
        }
        match &mut self.phase {
            Phase::Idle(_) | Phase::Connecting { .. } | Phase::Greeting { .. } => {
                Err(ProtocolError("a message before the hello".into()))
            }
            Phase::Greeted { since, store_id, resumes } => {
                let (since, store_id, resumes) = (*since, std::mem::take(store_id), *resumes);
                if let Message::Reset = message {
                    self.phase = Phase::Listing { since, store_id, listed: Listed::default() };
                    return Ok(Some(Event::Reset));
                }
                if !resumes {
                    self.position = None;
                    return Err(ProtocolError("changes without a full list before them".into()));
                }
                self.phase = Phase::Following { since };
                self.change(message)
            }
            Phase::Listing { listed, .. } => match message {
                Message::Put { revision, kind, object } => {
                    let id = identity(&object)?;
                    listed.0.insert((kind, id.0, id.1));
                    Ok(Some(Event::Put { revision, kind, object }))
                }
                Message::Synced { revision } => Ok(Some(self.synced(revision))),
                Message::Bookmark { .. } => Ok(None),
                other => Err(ProtocolError(format!("{} inside a full list", name(&other)))),
            },
            Phase::Following { since } => {
                if let Message::Reset = message {
                    let (since, position) = (*since, self.position.clone());
                    let store_id = position.map(|p| p.store_id).unwrap_or_default();
                    self.phase = Phase::Listing { since, store_id, listed: Listed::default() };
                    return Ok(Some(Event::Reset));
                }
                self.change(message)
            }
        }
    }

    fn hello(&mut self, now: Instant, store_id: String, head: Revision) -> Result<Event, ProtocolError> {
        if !matches!(self.phase, Phase::Greeting { .. }) {
            return Err(ProtocolError("a second hello".into()));
        }
        self.outage = None;
        // A store that is behind what we hold from it has lost writes: only a full list is true then.
        let resumes = self.position.as_ref().is_some_and(|p| p.store_id == store_id && p.revision <= head);
        self.phase = Phase::Greeted { since: now, store_id: store_id.clone(), resumes };
        Ok(Event::Hello { store_id, head })
    }

    fn synced(&mut self, revision: Revision) -> Event {
        let since = self.heard;
        let listing = std::mem::replace(&mut self.phase, Phase::Following { since });
        let (store_id, listed, since) = match listing {
            Phase::Listing { store_id, listed, since } => (store_id, listed, since),
            _ => (String::new(), Listed::default(), since),
        };
        self.phase = Phase::Following { since };
        let position = Position { store_id, revision };
        self.position = Some(position.clone());
        Event::Synced { position, listed }
    }

    fn change(&mut self, message: Message) -> Result<Option<Event>, ProtocolError> {
        let Some(position) = &mut self.position else {
            return Err(ProtocolError("changes without a full list before them".into()));
        };
        let (revision, event) = match message {
            Message::Put { revision, kind, object } => (revision, Event::Put { revision, kind, object }),
            Message::Delete { revision, kind, namespace, name } => {
                (revision, Event::Delete { revision, kind, namespace, name })
            }
            Message::Bookmark { revision } => (revision, Event::Bookmark { revision }),
            other => return Err(ProtocolError(format!("{} outside a full list", name(&other)))),
        };
        if revision < position.revision {
            if matches!(event, Event::Bookmark { .. }) {
                return Ok(None);
            }
            // An older state must not replace a newer one.
            let text = format!("revision {revision} after {}", position.revision);
            self.position = None;
            return Err(ProtocolError(text));
        }
        position.revision = revision;
        Ok(Some(event))
    }
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::Hello { .. } => "hello",
        Message::Reset => "reset",
        Message::Put { .. } => "put",
        Message::Delete { .. } => "delete",
        Message::Synced { .. } => "synced",
        Message::Bookmark { .. } => "bookmark",
    }
}

/// Namespace and name.
fn identity(object: &RawValue) -> Result<(Box<str>, Box<str>), ProtocolError> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        namespace: Box<str>,
        name: Box<str>,
    }
    let object: Object = serde_json::from_str(object.get())
        .map_err(|e| ProtocolError(format!("an object without metadata.name: {e}")))?;
    Ok((object.metadata.namespace, object.metadata.name))
}
