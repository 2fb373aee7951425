//! gzip on the way to the collector, and of its answers: who is sent gzip may answer with it (grpc-go does so).
//!
//! Not tonic's own: with it compiled in, every message of every call is asked whether it is compressed.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full, Limited};
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::Channel;
use tower::Service;

/// A byte that says whether the message is compressed, and its length in four: "Length-Prefixed-Message" in gRPC's protocol
/// over HTTP/2.
const PREFIX: usize = 5;
/// Of an answer, which says no more than what was not taken and why.
const MOST_BYTES: usize = 1024 * 1024;
const ENCODING: &str = "grpc-encoding";
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// A way to the collector on which each request's one message is compressed, and an answer's may be.
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
            let response = channel.call(compressed(request).await?).await?;
            if response.headers().get(ENCODING) == Some(&GZIP) {
                inflated(response).await
            } else {
                Ok(response)
            }
        })
    }
}

async fn compressed(request: Request<Body>) -> Result<Request<Body>, StdError> {
    let (mut head, body) = request.into_parts();
    let plain = body.collect().await?.to_bytes();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain.get(PREFIX..).unwrap_or_default())?;
    let message = encoder.finish()?;
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(1);
    frame.put_u32(u32::try_from(message.len())?);
    frame.put_slice(&message);
    head.headers.insert(ENCODING, GZIP);
    head.headers.insert("grpc-accept-encoding", GZIP);
    Ok(Request::from_parts(
        head,
        Body::new(Full::new(frame.freeze())),
    ))
}

async fn inflated(response: Response<Body>) -> Result<Response<Body>, StdError> {
    let (mut head, body) = response.into_parts();
    head.headers.remove(ENCODING);
    let body = Limited::new(body, MOST_BYTES).collect().await?;
    let trailers = body.trailers().cloned();
    let plain = Full::new(plain(body.to_bytes())?);
    let plain = plain.with_trailers(async move { trailers.map(Ok) });
    Ok(Response::from_parts(head, Body::new(plain)))
}

/// The same messages, none of them compressed.
fn plain(mut frames: Bytes) -> io::Result<Bytes> {
    let mut all = BytesMut::new();
    while !frames.is_empty() {
        let is_compressed = frames.try_get_u8()? == 1;
        let length = usize::try_from(frames.try_get_u32()?).unwrap_or(usize::MAX);
        if length > frames.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = frames.split_to(length);
        let message = if is_compressed {
            inflate(&message)?
        } else {
            message
        };
        all.put_u8(0);
        // At most the larger of what came and `MOST_BYTES`.
        all.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        all.put_slice(&message);
    }
    Ok(all.freeze())
}

fn inflate(message: &[u8]) -> io::Result<Bytes> {
    let mut plain = Vec::new();
    let most = MOST_BYTES as u64;
    GzDecoder::new(message)
        .take(most + 1)
        .read_to_end(&mut plain)?;
    if plain.len() > MOST_BYTES {
        return Err(io::Error::other("the collector's answer is too large"));
    }
    Ok(plain.into())
}
