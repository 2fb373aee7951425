//! The way of a batch's packets to its agent: never a plain end before `finished`, and never more on the way than the agent
//! reads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::Stream;
use tonic::Status;
use toolpool_proto::v1;

use super::status;

type Packet = Result<v1::ExecuteResponse, Status>;

/// Packets that may wait for the agent's connection.
const WAITING: usize = 16;

/// Both ends of a batch's way to its agent.
pub(crate) fn delivery() -> (Outlet, Delivery) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let asked = Arc::new(Asked::default());
    let outlet = Outlet {
        packets: sender,
        asked: Arc::clone(&asked),
    };
    let delivery = Delivery {
        packets: receiver,
        asked,
        complete: false,
    };
    (outlet, delivery)
}

/// The batch's end.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    packets: mpsc::Sender<Packet>,
    asked: Arc<Asked>,
}

/// A batch's packets as they come. If its task gives up before `finished` has gone, the agent is told so.
#[derive(Debug)]
pub(crate) struct Delivery {
    packets: mpsc::Receiver<Packet>,
    asked: Arc<Asked>,
    complete: bool,
}

/// Whether the connection has taken all there was and wants more: it asks only while the agent reads.
#[derive(Debug, Default)]
struct Asked {
    is: AtomicBool,
    now: Notify,
}

/// The agent is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Outlet {
    /// Puts a packet on its way, if not too many wait already.
    pub(crate) fn try_send(&self, packet: Packet) -> Result<(), TrySendError<Packet>> {
        self.packets.try_send(packet)
    }

    /// Puts a small packet on its way, as soon as there is room.
    pub(crate) async fn send(&self, packet: Packet) -> Result<(), Gone> {
        self.packets.send(packet).await.map_err(|_| Gone)
    }

    /// Hands a packet over once the connection asks for it. What is not asked for stays with the caller, who may give it up.
    pub(crate) async fn hand_over(&self, packet: Packet) -> Result<(), Gone> {
        while !self.asked.is.swap(false, Ordering::AcqRel) {
            tokio::select! {
                () = self.asked.now.notified() => {}
                () = self.packets.closed() => return Err(Gone),
            }
        }
        self.send(packet).await
    }

    /// Until the agent is gone.
    pub(crate) async fn closed(&self) {
        self.packets.closed().await;
    }
}

impl Stream for Delivery {
    type Item = Packet;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(packet) = self.packets.poll_recv(cx) else {
            if !self.asked.is.swap(true, Ordering::AcqRel) {
                self.asked.now.notify_one();
            }
            return Poll::Pending;
        };
        self.asked.is.store(false, Ordering::Release);
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
