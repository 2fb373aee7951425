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
    let frame = framed(1, &deflated(plain.get(PREFIX..).unwrap_or_default())?)?;
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

/// The one message of an answer, not compressed; nothing, if there is none.
fn plain(mut frame: Bytes) -> io::Result<Bytes> {
    if frame.is_empty() {
        return Ok(frame);
    }
    let is_compressed = frame.try_get_u8()? == 1;
    let length = frame.try_get_u32()?;
    if usize::try_from(length).ok() != Some(frame.len()) {
        return Err(io::Error::other(
            "the collector's answer is not one message",
        ));
    }
    let mut message = Vec::new();
    if is_compressed {
        let inflated = GzDecoder::new(&*frame);
        (inflated.take(MOST_BYTES as u64 + 1)).read_to_end(&mut message)?;
    } else {
        message.extend_from_slice(&frame);
    }
    if message.len() > MOST_BYTES {
        return Err(io::Error::other("the collector's answer is too large"));
    }
    Ok(framed(0, &message)?.freeze())
}

fn framed(flag: u8, message: &[u8]) -> io::Result<BytesMut> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(flag);
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(frame)
}

fn deflated(message: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(flag: u8, message: &[u8]) -> Bytes {
        framed(flag, message).unwrap().freeze()
    }

    #[test]
    fn an_answer_is_read_whether_it_is_compressed_or_not() {
        let read = answer(0, b"why");
        assert_eq!(plain(answer(1, &deflated(b"why").unwrap())).unwrap(), read);
        assert_eq!(plain(read.clone()).unwrap(), read);
        assert!(plain(Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn an_answer_that_is_cut_or_blows_up_is_an_error() {
        let bomb = deflated(&vec![0; MOST_BYTES + 1]).unwrap();
        assert!(bomb.len() < MOST_BYTES / 100);
        let whole = answer(1, &deflated(b"why").unwrap());
        let two = [&whole[..], &whole[..]].concat().into();
        for wrong in [answer(1, &bomb), answer(1, b"no gzip"), two] {
            assert!(plain(wrong).is_err());
        }
        for end in 1..whole.len() {
            assert!(plain(whole.slice(..end)).is_err(), "{end}");
        }
    }
}
