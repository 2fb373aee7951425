//! The agent's frames into packets: what is ready goes together, and nothing waits for company.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;
use tonic::CancellationHandle;
use toolpool_proto::v1;
use v1::agent_frame::Frame;

/// Frames that may wait for the connection. Full: the agent waits, and so HTTP/2 flow control reaches the model's stream.
const WAITING_FRAMES: usize = 256;
/// A packet takes no further frame once it has so many payload bytes: far below the 4 MiB that gRPC takes by default.
const PACKET_BYTES: usize = 256 * 1024;

/// A place to put frames, and the stream of packets that they leave as.
pub(crate) fn channel(open: v1::Open) -> (mpsc::Sender<Frame>, Outgoing) {
    let (sender, frames) = mpsc::channel(WAITING_FRAMES);
    let outgoing = Outgoing {
        open: Some(open),
        frames,
        sealed: false,
    };
    (sender, outgoing)
}

/// The packets of a batch. Ends, as a half-close, after a seal and only then: when the sender is dropped before, the
/// stream stays open until it is reset, since the broker takes a half-close as a seal.
#[derive(Debug)]
pub(crate) struct Outgoing {
    open: Option<v1::Open>,
    frames: mpsc::Receiver<Frame>,
    sealed: bool,
}

impl Stream for Outgoing {
    type Item = v1::ExecuteRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.sealed {
            return Poll::Ready(None);
        }
        let mut packet = Vec::new();
        let mut bytes = 0;
        if let Some(open) = self.open.take() {
            packet.push(agent_frame(Frame::Open(open)));
        }
        while bytes < PACKET_BYTES
            && !self.sealed
            && let Poll::Ready(Some(frame)) = self.frames.poll_recv(cx)
        {
            bytes += payload(&frame);
            self.sealed = matches!(frame, Frame::Seal(_));
            packet.push(agent_frame(frame));
        }
        if packet.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Some(v1::ExecuteRequest { frames: packet }))
    }
}

fn agent_frame(frame: Frame) -> v1::AgentFrame {
    v1::AgentFrame { frame: Some(frame) }
}

fn payload(frame: &Frame) -> usize {
    match frame {
        Frame::BlockDelta(delta) => delta.fragment.len(),
        Frame::Call(call) => call.arguments.len(),
        Frame::ProviderData(bytes) | Frame::ProviderEvent(bytes) => bytes.len(),
        Frame::Open(_) | Frame::BlockStart(_) | Frame::BlockStop(_) | Frame::Seal(_) => 0,
    }
}

/// Resets the stream when it is dropped. Without effect on a stream that has come to its end.
#[derive(Debug)]
pub(crate) struct ResetOnDrop(Option<CancellationHandle>);

impl ResetOnDrop {
    pub(crate) fn new(handle: CancellationHandle) -> Self {
        Self(Some(handle))
    }

    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.cancel();
        }
    }
}

#[cfg(test)]
mod tests;
