//! What hickory-server asks: the same engine as for datagrams, its answer as hickory's records.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, Message, Metadata, ResponseCode, SerialMessage};
use hickory_server::proto::rr::Record;
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};
use tokio::sync::Semaphore;

use super::Shared;
use crate::engine::{Verdict, Worker};
use crate::metrics::{Counters, Drop};
use crate::writer::{Transport, pad};

/// Answers one connection's requests.
pub(super) struct Handler {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) transport: Transport,
    /// A permit for each query that may wait for upstreams.
    pub(super) waiting: Arc<Semaphore>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    /// Returns once the answer is queued, or once somebody has been charged with finding it: a connection's next query
    /// does not wait for the upstreams of the one before.
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        response: R,
    ) -> ResponseInfo {
        let mut worker = Worker::new(self.shared.engine.clone(), self.transport, self.counters.clone());
        let mut out = Vec::new();
        let pending = match worker.handle(request.as_slice(), request.src(), &mut out) {
            Verdict::Reply => return send(request, &out, response).await,
            Verdict::Silence => return nothing(request),
            Verdict::Pending(pending) => pending,
        };
        let room = self.shared.pending.clone().try_acquire_owned().ok();
        let (Some(room), Ok(place)) = (room, self.waiting.clone().try_acquire_owned()) else {
            return send(request, &pending.refuse(), response).await;
        };
        let counters = self.counters.clone();
        let (bytes, src, protocol) = (request.as_slice().to_vec(), request.src(), request.protocol());
        self.shared.tasks.spawn(async move {
            let answer = pending.finish().await;
            match Request::from_bytes(bytes, src, protocol) {
                Ok(request) => drop(send(&request, &answer, response).await),
                Err(_) => counters.dropped(Drop::Send),
            }
            drop((room, place));
        });
        nothing(request)
    }
}

/// Sends the engine's answer as hickory has it.
async fn send<R: ResponseHandler>(request: &Request, answer: &[u8], mut response: R) -> ResponseInfo {
    let mut builder = MessageResponseBuilder::from_message_request(request);
    let sent = match Message::from_vec(answer) {
        Ok(m) => {
            if let Some(edns) = &m.edns {
                builder.edns(edns);
            }
            let message = builder.build(m.metadata, &m.answers, &m.authorities, [], &m.additionals);
            response.send_response(message).await
        }
        // An upstream's record that hickory refuses to read.
        Err(error) => {
            tracing::debug!(%error, "an answer cannot be read");
            let message = builder.error_msg(&request.metadata, ResponseCode::ServFail);
            response.send_response(message).await
        }
    };
    sent.unwrap_or_else(|error| {
        tracing::debug!(peer = %request.src(), %error, "TCP send");
        nothing(request)
    })
}

fn nothing(request: &Request) -> ResponseInfo {
    let metadata = Metadata::response_from_request(&request.metadata);
    Header { metadata, counts: Default::default() }.into()
}

/// Puts answers on a connection.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) handle: super::stream::Replies,
    pub(super) peer: SocketAddr,
    /// The block length to pad to (RFC 8467), when the query asked for it over TLS.
    pub(super) padded: Option<usize>,
}

#[async_trait::async_trait]
impl ResponseHandler for Reply {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::with_capacity(512);
        let info = response.destructive_emit(&mut BinEncoder::new(&mut bytes))?;
        if let Some(block) = self.padded {
            pad(&mut bytes, block);
        }
        let queued = self.handle.try_send(SerialMessage::new(bytes, self.peer));
        queued.map_err(|e| NetError::from(format!("the connection's queue: {e}")))?;
        Ok(info)
    }
}
