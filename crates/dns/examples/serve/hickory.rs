//! The same index behind hickory-server's own sockets: what our UDP path is measured against.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastwest_dns::Index;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Metadata};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

struct Handler(Arc<Index>);

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let answer = request
            .request_info()
            .ok()
            .and_then(|info| self.0.lookup(&info.query.name().to_string(), info.query.query_type()).ok());
        let sent = match &answer {
            Some(a) => {
                metadata.authoritative = true;
                metadata.response_code = a.rcode;
                let message = builder.build(metadata, &a.answers, &a.authority, [], &a.additional);
                response.send_response(message).await
            }
            None => {
                metadata.response_code = hickory_server::proto::op::ResponseCode::FormErr;
                response.send_response(builder.build_no_records(metadata)).await
            }
        };
        // The header alone is asked for here; a send that failed has its own log.
        sent.unwrap_or_else(|_| {
            hickory_server::proto::op::Header { metadata, counts: Default::default() }.into()
        })
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listen: &[SocketAddr],
    index: Arc<Index>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut server = Server::new(Handler(index));
    for addr in listen {
        server.register_socket(UdpSocket::bind(addr).await?);
        server.register_listener(TcpListener::bind(addr).await?, Duration::from_secs(10), 64);
    }
    stop.cancelled().await;
    server.shutdown_gracefully().await?;
    Ok(())
}
