//! A connection that must say what it is: one whose first bytes do not come in time is closed.
//!
//! Until it has sent HTTP/2's preface, nothing else looks at a connection: the server waits for that without end, and
//! probes begin after it. A few thousand silent ones would hold all file descriptors, and nobody else could connect.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// How long the preface may take to come.
const PREFACE_TIME: Duration = Duration::from_secs(10);
/// Its bytes: `PRI * HTTP/2.0` and what follows.
const PREFACE_BYTES: usize = 24;

/// The connection.
pub(crate) struct FirstBytes<C> {
    connection: C,
    /// Gone once they have come.
    missing: Option<Missing>,
}

/// What has not come yet.
struct Missing {
    bytes: usize,
    time: Pin<Box<Sleep>>,
}

impl<C> FirstBytes<C> {
    /// Its time begins now.
    pub(crate) fn of(connection: C) -> Self {
        Self {
            connection,
            missing: Some(Missing {
                bytes: PREFACE_BYTES,
                time: Box::pin(sleep(PREFACE_TIME)),
            }),
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for FirstBytes<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            connection,
            missing,
        } = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(connection).poll_read(context, buffer);
        let Some(waiting) = missing else {
            return read;
        };
        if let Poll::Ready(read) = read {
            let came = buffer.filled().len() - before;
            waiting.bytes = waiting.bytes.saturating_sub(came);
            if waiting.bytes == 0 {
                *missing = None;
            }
            return Poll::Ready(read);
        }
        ready!(waiting.time.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for FirstBytes<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

impl<C: Connected> Connected for FirstBytes<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}
