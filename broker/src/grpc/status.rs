//! A refusal of the whole stream, as the status that says so.

use tonic::{Code, Status};

use super::PACKET_FRAMES;
use super::convert::Malformed;
use crate::ingest::Breach;
use crate::registry::NoPlace;

pub(crate) fn malformed(malformed: &Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

/// For an error in the place of a message: that the message cannot be read. `None` if it is the stream that broke.
pub(crate) fn unreadable(error: &Status) -> Option<Status> {
    let text = error.message();
    match error.code() {
        // Renamed by `reset`.
        Code::Aborted => None,
        Code::OutOfRange => Some(Status::resource_exhausted(text)),
        _ => Some(Status::invalid_argument(text)),
    }
}

pub(crate) fn breach(breach: &Breach) -> Status {
    let text = breach.to_string();
    match breach {
        Breach::IndexOpen(_) | Breach::IndexNotOpen { .. } | Breach::AfterSeal => {
            Status::invalid_argument(text)
        }
        Breach::FarTooManyCalls(_) => Status::resource_exhausted(text),
    }
}

pub(crate) fn no_place(no_place: NoPlace) -> Status {
    let text = no_place.to_string();
    match no_place {
        NoPlace::Full(_) => Status::resource_exhausted(text),
        NoPlace::Taken => Status::already_exists(text),
    }
}

pub(crate) fn too_many_frames(frames: usize) -> Status {
    Status::invalid_argument(format!(
        "a packet has {frames} frames; permitted are {PACKET_FRAMES}"
    ))
}

/// The finished batch waited too long for its agent (or its task is gone, which is a defect).
pub(crate) fn not_delivered() -> Status {
    Status::deadline_exceeded(
        "the finished batch was given up, since it was not read (delivery_timeout); its calls have ended",
    )
}

pub(crate) fn draining() -> Status {
    Status::unavailable("the broker is draining and takes no new batches; try another or try again")
}
