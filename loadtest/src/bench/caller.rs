//! A caller on one HTTP/2 connection that costs as little as one can, as wrk and h2load do: what asks is on the cores of what is asked, and each
//! microsecond of its own would count against the faster server only. A request is encoded once; an answer is whole when its trailers say OK.
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Method, Request, Version, header};
use prost::Message;
use shoal_kit::task;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Bytes before a message: a flag that it is not compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Flow control of a connection and a stream, as our own channels have it.
const WINDOWS: (u32, u32) = (4 << 20, 1 << 20);

/// One method of one server that is asked one message.
pub(crate) struct Caller {
    send: SendRequest<Bytes>,
    request: Request<()>,
    _connection: AbortOnDropHandle<()>,
}

/// A message as it goes over the wire.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

/// The message of a body.
///
/// # Errors
/// When it is not one whole message, or compressed, which nobody asked for.
pub(crate) fn message<M: Message + Default>(body: &Bytes) -> Result<M> {
    let whole = match body[..] {
        [0, a, b, c, d, ref rest @ ..] if u32::from_be_bytes([a, b, c, d]) as usize == rest.len() => rest,
        _ => bail!("{} bytes are not one message", body.len()),
    };
    Ok(M::decode(whole)?)
}

impl Caller {
    /// Connects to `http://host:port`; `method` is "/package.Service/Method".
    ///
    /// # Errors
    /// When nobody listens there, or it is no URL.
    pub(crate) async fn connect(server: &str, method: &str) -> Result<Self> {
        let address = server.strip_prefix("http://").context("a server is http://host:port")?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_connection_window_size(WINDOWS.0)
            .initial_window_size(WINDOWS.1)
            .handshake(stream)
            .await?;
        let connection = task::spawn("benchmark connection", async move {
            // What is in flight fails with it, and says so.
            let _ = connection.await;
        });
        let request = Request::builder()
            .version(Version::HTTP_2)
            .method(Method::POST)
            .uri(format!("{server}{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())?;
        Ok(Self {
            send,
            request,
            _connection: AbortOnDropHandle::new(connection),
        })
    }

    /// Asks, and gives the whole body of the answer.
    ///
    /// # Errors
    /// When the connection breaks, or the status is not OK.
    pub(crate) async fn call(&self, frame: Bytes) -> Result<Bytes> {
        let mut answer = self.ask(frame).await?;
        let mut whole = BytesMut::new();
        while let Some(part) = answer.part().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Asks, and gives the answer as it comes.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn ask(&self, frame: Bytes) -> Result<Answer> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(self.request.clone(), false)?;
        body.send_data(frame, true)?;
        let (head, body) = response.await?.into_parts();
        ensure!(head.status.is_success(), "HTTP status {}", head.status);
        Ok(Answer {
            head: head.headers,
            body,
        })
    }
}

/// An answer that has begun.
pub(crate) struct Answer {
    head: HeaderMap,
    body: RecvStream,
}

impl Answer {
    /// What came next; none at the end of an answer that is whole.
    ///
    /// # Errors
    /// When the connection breaks, or the status is not OK.
    pub(crate) async fn part(&mut self) -> Result<Option<Bytes>> {
        if let Some(part) = self.body.data().await {
            let part = part?;
            self.body.flow_control().release_capacity(part.len())?;
            return Ok(Some(part));
        }
        // An error without a body has its status in front.
        let trailers = self.body.trailers().await?;
        let trailers = trailers.as_ref().unwrap_or(&self.head);
        match trailers.get("grpc-status") {
            Some(status) if status == "0" => Ok(None),
            _ => Err(refused(trailers)),
        }
    }
}

fn refused(trailers: &HeaderMap) -> anyhow::Error {
    let said = |name: &str| {
        trailers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("none")
            .to_owned()
    };
    anyhow!("gRPC status {}: {}", said("grpc-status"), said("grpc-message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::try_join_all;
    use shoal_kit::serve::{self, Process, Server};
    use shoal_proto::{
        oip::ServerReadyResponse,
        v1::{GetStatusRequest, GetStatusResponse},
    };
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    const DRAIN: Duration = Duration::from_secs(1);

    #[test]
    fn a_message_comes_back_from_its_frame_and_less_is_refused() {
        let sent = ServerReadyResponse { ready: true };
        let frame = framed(&sent);
        assert_eq!(frame[..], [0, 0, 0, 0, 2, 8, 1]);
        assert_eq!(message::<ServerReadyResponse>(&frame).expect("whole"), sent);
        for cut in [4, 5, 6] {
            assert!(
                message::<ServerReadyResponse>(&frame.slice(..cut)).is_err(),
                "{cut} bytes"
            );
        }
        assert!(
            message::<ServerReadyResponse>(&[&frame[..], &frame[..]].concat().into()).is_err(),
            "two"
        );
        assert!(message::<ServerReadyResponse>(&Bytes::from_static(&[1, 0, 0, 0, 0])).is_err());
    }

    #[tokio::test]
    async fn it_asks_a_server_many_things_at_once_and_a_refusal_is_an_error() {
        let free = "127.0.0.1:0".parse().expect("an address");
        let bound = serve::bind(free, free).await.expect("free ports");
        let url = format!("http://{}", bound.grpc_addr().expect("bound"));
        let process = Process {
            name: "asked".into(),
            version: "1".into(),
            provider: String::new(),
        };
        let shutdown = CancellationToken::new();
        let server = task::spawn("server", Server::new(process).run(bound, shutdown.clone(), DRAIN));

        let status = Caller::connect(&url, "/shoal.v1.MeshService/GetStatus")
            .await
            .expect("it listens");
        let request = framed(&GetStatusRequest::default());
        let answers = try_join_all((0..16).map(|_| status.call(request.clone())))
            .await
            .expect("all answer");
        for body in answers {
            let answer: GetStatusResponse = message(&body).expect("a message");
            assert_eq!(answer.processes[0].name, "asked");
        }
        let nothing = Caller::connect(&url, "/shoal.v1.MeshService/Nothing")
            .await
            .expect("it listens");
        let refused = nothing
            .call(request.clone())
            .await
            .expect_err("there is no such method");
        assert!(refused.to_string().starts_with("gRPC status 12"), "{refused}");

        drop((status, nothing));
        shutdown.cancel();
        server.await.expect("no panic").expect("it ends");
        assert!(Caller::connect(&url, "/any").await.is_err(), "nobody listens");
        assert!(Caller::connect("host:1", "/any").await.is_err(), "no URL");
    }
}
