//! The way of a batch's packets to its agent: never a plain end before `finished`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;
use toolpool_proto::v1;

use super::status;

/// A batch's packets as they come. If its task gives up before `finished` has gone, the agent is told so.
#[derive(Debug)]
pub(crate) struct Delivery {
    packets: mpsc::Receiver<Result<v1::ExecuteResponse, Status>>,
    complete: bool,
}

impl Delivery {
    pub(crate) fn new(packets: mpsc::Receiver<Result<v1::ExecuteResponse, Status>>) -> Self {
        Self {
            packets,
            complete: false,
        }
    }
}

impl Stream for Delivery {
    type Item = Result<v1::ExecuteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let packet = ready!(self.packets.poll_recv(cx));
        self.complete |= match &packet {
            Some(Ok(packet)) => packet.frames.last().is_some_and(is_finished),
            Some(Err(_)) => true,
            None if self.complete => return Poll::Ready(None),
            None => {
                self.complete = true;
                return Poll::Ready(Some(Err(status::not_delivered())));
            }
        };
        Poll::Ready(packet)
    }
}

fn is_finished(frame: &v1::BatchFrame) -> bool {
    matches!(frame.frame, Some(v1::batch_frame::Frame::Finished(_)))
}
