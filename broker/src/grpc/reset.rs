//! Keeps a break of a request stream apart from its half-close, and from a message that cannot be read.
//!
//! tonic reports a stream that its client reset with `CANCEL` as one that came to its end. For an agent the end means
//! "the turn is complete, run what was held", and a reset means the opposite; so a break is renamed on its way in.

use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

/// Gives every break of the stream the code `ABORTED`, which tonic passes on and never uses itself.
pub(crate) fn is_no_half_close(request: http::Request<Body>) -> http::Request<Body> {
    request.map(|body| Body::new(body.map_err(|error| rename(&error))))
}

fn rename(error: &Status) -> Status {
    Status::aborted(format!("the stream broke: {}", error.message()))
}
