//! What a connection's calls answer at the same moment leaves in one piece.
//!
//! A batch ends for many callers at once. Each answer wakes the connection, and tokio runs next what was just woken: every answer was a system
//! call and a packet of its own, and a wake-up for its reader. Here the first write after a flush lets whoever else is ready go first; of sixteen
//! callers of a classifier on two cores a sixth more were answered a second.
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes of a write that waits for nobody. h2 flushes a message of 256 bytes or more by itself, whatever else there is, and a long one in many pieces.
const LARGE: usize = 1024;

/// A connection whose short writes wait for one turn of the scheduler.
#[derive(Debug)]
pub(super) struct Together<S> {
    stream: S,
    /// Others have had their turn since the last flush.
    waited: bool,
}

impl<S> Together<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, waited: false }
    }

    /// Once between two flushes. A task that wakes itself while it runs goes to the end of its worker's queue.
    fn after_others(&mut self, cx: &Context<'_>, bytes: usize) -> Poll<()> {
        if self.waited || bytes >= LARGE {
            return Poll::Ready(());
        }
        self.waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: Connected> Connected for Together<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Together<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Together<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.after_others(cx, buf.len()));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.after_others(cx, bufs.iter().map(|b| b.len()).sum()));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waited = false;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio_test::{assert_pending, assert_ready_ok, task};

    #[tokio::test]
    async fn the_first_write_after_a_flush_waits_a_turn_and_what_follows_does_not() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut together = task::spawn(Together::new(near));
        for round in 0..3 {
            let first = together.enter(|cx, io| io.poll_write(cx, b"ab"));
            assert_pending!(first, "round {round}");
            assert!(together.is_woken(), "nobody else will wake it");
            for part in [b"ab", b"cd"] {
                assert_eq!(assert_ready_ok!(together.enter(|cx, io| io.poll_write(cx, part))), 2);
            }
            assert_ready_ok!(together.enter(|cx, io| io.poll_flush(cx)));
            let mut read = [0; 4];
            far.read_exact(&mut read).await.expect("it was written");
            assert_eq!(&read, b"abcd");
        }
        let written = together.enter(|cx, io| io.poll_write(cx, &[0; LARGE]));
        assert_eq!(assert_ready_ok!(written), 64, "a large one waits for nobody");
    }
}
