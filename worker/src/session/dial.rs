//! From an endpoint to a stream on which this worker is registered.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use toolpool_proto::v1::{
    self as proto, pool_frame, worker_frame, worker_pool_service_client::WorkerPoolServiceClient,
};

use super::{cut::Cuttable, stream::Stream};

/// A packet of the broker holds assignments with up to 1 MiB of arguments each; one much larger than this is a mistake.
pub(super) const MAX_PACKET_RECEIVED: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From `register` to `registered`.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Packets that wait for HTTP/2. Full: nothing more is packed, and what is to be said waits in `State`.
const PACKETS_AHEAD: usize = 2;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// A connection's bytes, whatever carries them.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Makes connections to the broker.
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn() -> Connecting + Send + Sync>);

impl Connector {
    pub(crate) fn new<F, C, T>(connect: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: Io + 'static,
    {
        Self(Arc::new(move || {
            let connecting = connect();
            Box::pin(async move { Ok(Box::new(connecting.await?) as Box<dyn Io>) })
        }))
    }

    /// Over TCP.
    pub(crate) fn tcp(host: String, port: u16) -> Self {
        Self::new(move || {
            let host = host.clone();
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                // Packets are small and wanted at once.
                stream.set_nodelay(true)?;
                Ok(stream)
            }
        })
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the broker cannot be reached")]
    Connect(#[source] tonic::transport::Error),
    #[error("the broker refused the stream: {}", .0.message())]
    Refused(Box<Status>),
    #[error("the broker broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the broker cannot be reached within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout,
    #[error("the broker did not register this worker within {JOIN_TIMEOUT:?}")]
    JoinTimeout,
}

impl Error {
    /// What kind of trouble it is.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Refused(status) => status.code(),
            Self::Connect(_) | Self::ConnectTimeout => Code::Unavailable,
            Self::Protocol(_) => Code::Internal,
            Self::JoinTimeout => Code::DeadlineExceeded,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// A stream on which this worker is registered.
pub(super) struct Dialled {
    pub(super) stream: Box<Stream>,
    pub(super) max_result_bytes: u64,
    /// What came in the same packet behind `registered`.
    pub(super) frames: Vec<proto::PoolFrame>,
}

/// A connection on which nothing has been said. Dropping it breaks it.
pub(super) struct Connected {
    cut: DropGuard,
    channel: Channel,
}

/// Reaches the broker. Dropping the future gives up.
pub(super) async fn connect(endpoint: Endpoint, connector: Connector) -> Result<Connected, Error> {
    let cut = CancellationToken::new();
    let token = cut.clone();
    let connect = tower::service_fn(move |_: Uri| {
        let (connecting, token) = ((connector.0)(), token.clone());
        async move {
            connecting
                .await
                .map(|io| TokioIo::new(Cuttable::new(io, token)))
        }
    });
    let cut = cut.drop_guard();
    let endpoint = endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let channel = timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connect))
        .await
        .map_err(|_| Error::ConnectTimeout)?
        .map_err(Error::Connect)?;
    Ok(Connected { cut, channel })
}

/// Registers on a new stream. Dropping the future breaks the connection.
pub(super) async fn join(
    connected: Connected,
    register: proto::Register,
) -> Result<Dialled, Error> {
    timeout(JOIN_TIMEOUT, register_on(connected, register))
        .await
        .unwrap_or(Err(Error::JoinTimeout))
}

async fn register_on(connected: Connected, register: proto::Register) -> Result<Dialled, Error> {
    // From here on an early return breaks the connection.
    let Connected { cut, channel } = connected;
    let mut client =
        WorkerPoolServiceClient::new(channel).max_decoding_message_size(MAX_PACKET_RECEIVED);
    let (outbound, packets) = mpsc::channel(PACKETS_AHEAD);
    let register = proto::WorkerFrame {
        frame: Some(worker_frame::Frame::Register(register)),
    };
    let first = proto::JoinRequest {
        frames: vec![register],
    };
    outbound
        .try_send(first)
        .map_err(|_| Error::Protocol("the stream is gone"))?;
    let mut inbound = client
        .join(ReceiverStream::new(packets))
        .await?
        .into_inner();
    let packet = inbound
        .message()
        .await?
        .ok_or(Error::Protocol("it ended the stream before `registered`"))?;
    let mut frames = packet.frames.into_iter();
    let Some(Some(pool_frame::Frame::Registered(registered))) =
        frames.next().map(|frame| frame.frame)
    else {
        return Err(Error::Protocol("its first frame is not `registered`"));
    };
    let beat = registered
        .beat_interval
        .and_then(|interval| Duration::try_from(interval).ok());
    let beat = beat
        .filter(|interval| !interval.is_zero())
        .ok_or(Error::Protocol("no beat interval"))?;
    let stream = Stream::new(
        cut,
        outbound,
        inbound,
        beat,
        registered.missed_beats,
        Instant::now(),
    );
    Ok(Dialled {
        stream: Box::new(stream),
        max_result_bytes: registered.max_result_bytes,
        frames: frames.collect(),
    })
}
