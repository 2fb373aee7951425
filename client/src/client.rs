//! The door: a broker's address in, batches and the catalogue out.

use std::collections::HashSet;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use toolpool_proto::v1;
use v1::broker_service_client::BrokerServiceClient;

use crate::Dialect;
use crate::batch::Batch;
use crate::call::Call;
use crate::error::{Error, ProtocolError, is_transport};
use crate::finished::FinishedBatch;
use crate::options::{BatchOptions, ConnectOptions};
use crate::provider_tools::{Gathered, ProviderTools};
use crate::reach::{Failure, reach};
use crate::tool::Tool;
use crate::{gather, outgoing};

/// A packet of results is about 1 MiB, unless a single result is larger; a whole batch is at most 64 MiB.
const MAX_DECODED: usize = 80 * 1024 * 1024;
/// A broker that is gone without a word is noticed after at most twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A connection to a broker. Cheap to clone; all clones share one HTTP/2 connection, which is dialled again when it is lost.
#[derive(Debug, Clone)]
pub struct Client {
    stub: BrokerServiceClient<Channel>,
    options: ConnectOptions,
}

impl Client {
    /// Dials a broker, such as `http://127.0.0.1:7400` (the scheme may be left out), and tries again for up to 10 s.
    pub async fn connect(endpoint: impl AsRef<str>) -> Result<Self, Error> {
        Self::connect_with(endpoint, ConnectOptions::default()).await
    }

    /// The same with options.
    pub async fn connect_with(
        endpoint: impl AsRef<str>,
        options: ConnectOptions,
    ) -> Result<Self, Error> {
        let endpoint = parse_endpoint(endpoint.as_ref())?;
        let dial = |_| async {
            let channel = endpoint.connect().await;
            channel.map_err(|error| Failure::NotReached(error.into()))
        };
        let channel = reach(options.connect_timeout, dial).await?;
        Ok(Self::new(channel, options))
    }

    /// Takes a broker's address without dialling it; the first request does. Must be called within a tokio runtime.
    pub fn lazy(endpoint: impl AsRef<str>, options: ConnectOptions) -> Result<Self, Error> {
        let channel = parse_endpoint(endpoint.as_ref())?.connect_lazy();
        Ok(Self::new(channel, options))
    }

    /// Uses a channel that was made elsewhere: with TLS, over a Unix socket, in memory.
    #[must_use]
    pub fn new(channel: Channel, options: ConnectOptions) -> Self {
        Self {
            stub: BrokerServiceClient::new(channel).max_decoding_message_size(MAX_DECODED),
            options,
        }
    }

    /// Opens a batch and waits until the broker has accepted it.
    ///
    /// This is what is retried when the broker cannot be reached, breaks off or is draining: no call has been sent yet.
    /// Dropping the future gives the batch up.
    pub async fn batch(&self, options: BatchOptions) -> Result<Batch, Error> {
        let open = |attempt| self.open(&options, attempt);
        reach(self.options.connect_timeout, open).await
    }

    /// Runs calls that are already complete as one batch, and waits until it is finished.
    ///
    /// Dropping the future resets the stream.
    pub async fn execute(
        &self,
        calls: impl IntoIterator<Item = Call>,
    ) -> Result<FinishedBatch, Error> {
        self.execute_with(BatchOptions::default(), calls).await
    }

    /// The same with options.
    pub async fn execute_with(
        &self,
        options: BatchOptions,
        calls: impl IntoIterator<Item = Call>,
    ) -> Result<FinishedBatch, Error> {
        // Not the unary RPC: if that breaks off nobody knows whether the calls were taken on. Here no call is sent
        // before `accepted`, at the price of one round trip.
        let mut batch = self.batch(options).await?;
        for call in calls {
            batch.push(call).await?;
        }
        batch.finish().await
    }

    /// The catalogue, sorted by name. Retried like [`Client::batch`]: it changes nothing. It comes in pages, and a tool
    /// that is registered meanwhile may be missing.
    pub async fn tools(&self) -> Result<Vec<Tool>, Error> {
        let mut tools = Vec::new();
        self.pages(v1::ListToolsRequest::default(), |page| {
            for entry in page.tools {
                tools.push(Tool::try_from(entry)?);
            }
            Ok(())
        })
        .await?;
        Ok(tools)
    }

    /// The tools of these names, or all if there are none, in the format of a provider's request. Names that the broker
    /// does not know are passed over. Retried like [`Client::tools`].
    pub async fn provider_tools(
        &self,
        format: Dialect,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<ProviderTools, Error> {
        let request = v1::ListToolsRequest {
            format: Some(format.into()),
            names: names.into_iter().map(Into::into).collect(),
            ..v1::ListToolsRequest::default()
        };
        let mut gathered = Gathered::new(format);
        self.pages(request, |page| gathered.take(page)).await?;
        Ok(gathered.finish()?)
    }

    /// Every page of a listing.
    async fn pages(
        &self,
        mut request: v1::ListToolsRequest,
        mut take: impl FnMut(v1::ListToolsResponse) -> Result<(), ProtocolError>,
    ) -> Result<(), Error> {
        let mut seen = HashSet::new();
        loop {
            let list = |_| async {
                let answer = self.stub.clone().list_tools(request.clone()).await;
                answer.map_err(|status| not_accepted(status, false))
            };
            let mut page = reach(self.options.connect_timeout, list)
                .await?
                .into_inner();
            let next = std::mem::take(&mut page.next_page_token);
            take(page)?;
            if next.is_empty() {
                return Ok(());
            }
            if !seen.insert(next.clone()) {
                return Err(ProtocolError::PageAgain(next).into());
            }
            request.page_token = next;
        }
    }

    async fn open(&self, options: &BatchOptions, attempt: u32) -> Result<Batch, Failure> {
        let (frames, packets) = outgoing::channel(options.to_open());
        let mut request = Request::new(packets);
        let reset = request.cancellation_handle();
        // From here on whatever way this future ends resets the stream, unless a batch comes of it.
        let guard = outgoing::ResetOnDrop::new(reset.clone());
        // A first attempt that broke off may still be on its way out, under the same id.
        let ours_may_linger = attempt > 1 && options.has_batch_id();
        let mut incoming = match self.stub.clone().execute(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(not_accepted(status, ours_may_linger)),
        };
        let packet = match incoming.message().await {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(Failure::Final(ProtocolError::NotAccepted.into())),
            Err(status) => return Err(not_accepted(status, ours_may_linger)),
        };
        let mut first = packet.frames.into_iter();
        let accepted =
            gather::accepted(first.next()).map_err(|error| Failure::Final(error.into()))?;
        Ok(Batch::new(
            accepted,
            frames,
            incoming,
            first,
            (guard, outgoing::ResetOnDrop::new(reset)),
        ))
    }
}

/// What a stream that ended before `accepted` means.
fn not_accepted(status: Status, ours_may_linger: bool) -> Failure {
    let passing = match status.code() {
        // A broker that drains says so with this; another one may be there in a moment.
        Code::Unavailable => true,
        Code::AlreadyExists => ours_may_linger,
        _ => is_transport(&status),
    };
    if passing {
        Failure::NotReached(status.into())
    } else {
        Failure::Final(Error::refused(&status))
    }
}

fn parse_endpoint(given: &str) -> Result<Endpoint, Error> {
    let refuse = |reason: &str| Error::Endpoint {
        endpoint: given.to_owned(),
        reason: reason.to_owned(),
    };
    let url = if given.contains("://") {
        given.to_owned()
    } else {
        format!("http://{given}")
    };
    if !url.starts_with("http://") {
        return Err(refuse(
            "it must begin with http:// (for TLS, make a channel and use Client::new)",
        ));
    }
    let endpoint = Endpoint::from_shared(url).map_err(|_| refuse("it is not a URL"))?;
    if endpoint.uri().authority().is_none() {
        return Err(refuse("it has no host"));
    }
    let endpoint = endpoint
        .user_agent(concat!("toolpool-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| refuse("it is not a URL"))?;
    Ok(endpoint
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE))
}
