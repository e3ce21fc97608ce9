//! A stream that goes on for as long as its caller may read it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

/// Messages until their sender is gone, or the caller's token ends.
pub(super) struct WhilePermitted<T> {
    messages: mpsc::Receiver<Result<T, Status>>,
    /// Completes with what the caller is told; nothing when that was said.
    ended: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
}

impl<T> WhilePermitted<T> {
    pub(super) fn new(
        messages: mpsc::Receiver<Result<T, Status>>,
        ended: impl Future<Output = Status> + Send + 'static,
    ) -> Self {
        Self { messages, ended: Some(Box::pin(ended)) }
    }
}

impl<T> Stream for WhilePermitted<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(ended) = &mut self.ended else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(status) = ended.as_mut().poll(context) {
            self.ended = None;
            // Frees the watcher's place at once, whether or not the caller reads on.
            self.messages.close();
            return Poll::Ready(Some(Err(status)));
        }
        self.messages.poll_recv(context)
    }
}
