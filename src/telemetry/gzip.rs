//! gzip of what goes to the collector.
//!
//! Not tonic's own: with it compiled in, every message of every call is asked whether it is compressed.

use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::Channel;
use tower::Service;

/// A byte that says whether the message is compressed, and its length in four: "Length-Prefixed-Message" in gRPC's protocol
/// over HTTP/2.
const PREFIX: usize = 5;

/// A way to the collector on which each request's one message is compressed.
pub(super) struct Gzip(pub(super) Channel);

impl Service<Request<Body>> for Gzip {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was ready is the one to call.
        let unready = self.0.clone();
        let mut channel = std::mem::replace(&mut self.0, unready);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let plain = body.collect().await?.to_bytes();
            let compressed = frame(plain.get(PREFIX..).unwrap_or_default())?;
            head.headers
                .insert("grpc-encoding", HeaderValue::from_static("gzip"));
            let body = Body::new(Full::new(compressed.freeze()));
            Ok(channel.call(Request::from_parts(head, body)).await?)
        })
    }
}

/// A message as it is sent, compressed.
fn frame(message: &[u8]) -> Result<BytesMut, StdError> {
    let mut frame = BytesMut::zeroed(PREFIX).writer();
    let mut encoder = GzEncoder::new(&mut frame, Compression::default());
    encoder.write_all(message)?;
    encoder.finish()?;
    let mut frame = frame.into_inner();
    let length = u32::try_from(frame.len() - PREFIX)?;
    let mut prefix = &mut frame[..PREFIX];
    prefix.put_u8(1);
    prefix.put_u32(length);
    Ok(frame)
}
