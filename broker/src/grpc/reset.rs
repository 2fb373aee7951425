//! Keeps a reset of a request stream apart from its half-close.
//!
//! tonic reports a stream that its client reset with `CANCEL` as one that came to its end. For an agent the end means
//! "the turn is complete, run what was held", and a reset means the opposite; so the reset is renamed on its way in.

use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::{Code, Status};

/// Turns the error of a reset into one that tonic passes on.
pub(crate) fn is_no_half_close(request: http::Request<Body>) -> http::Request<Body> {
    request.map(|body| Body::new(body.map_err(rename)))
}

fn rename(status: Status) -> Status {
    match status.code() {
        Code::Cancelled => Status::aborted("the stream was reset by the other side"),
        _ => status,
    }
}
