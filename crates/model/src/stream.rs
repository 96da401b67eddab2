//! The messages of `GET /v1/agent/stream`: one JSON object a line, ordered by revision.
//!
//! The agent asks with `?node=NAME&storeId=ID&revision=N`, what it has applied last (none of these two on a first
//! start). The controller answers [`Hello`](Message::Hello), then, when `storeId` is its own and it still has the
//! history since `revision`, just the changes after it; else a full list: [`Reset`](Message::Reset), each object as
//! [`Put`](Message::Put), and [`Synced`](Message::Synced). Then changes as they happen, and a
//! [`Bookmark`](Message::Bookmark) every [`BOOKMARK_SECONDS`], by which the agent knows that the connection lives.
//!
//! The kinds in the stream are those agents read: Namespace, Node, Service, EndpointSlice, Workload, DnsRecord,
//! TrafficSplit.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Kind, Revision};

/// Seconds between bookmarks; an agent that hears nothing for three times as long reconnects.
pub const BOOKMARK_SECONDS: u64 = 5;

/// The kinds in the stream, in the order of a full list.
pub const KINDS: [Kind; 7] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Workload,
    Kind::DnsRecord,
    Kind::TrafficSplit,
];

/// One line. Externally tagged (`{"put": {…}}`), so that the object's JSON passes through unparsed: the controller
/// encodes an event once from what it has stored, the agent decodes it straight into the form it keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Message {
    /// First of all. `revision` is the store's newest.
    Hello { store_id: String, revision: Revision },
    /// A full list follows: what is not in it is gone.
    Reset,
    /// An object as it now is.
    Put { revision: Revision, kind: Kind, object: Box<RawValue> },
    /// An object that is gone. `namespace` is empty for a kind without namespaces.
    Delete { revision: Revision, kind: Kind, namespace: String, name: String },
    /// The full list has ended; it is true for `revision`.
    Synced { revision: Revision },
    /// Nothing relevant happened up to `revision`.
    Bookmark { revision: Revision },
}
