//! Holds what a call has (its connection, its place in a person's share) until the last byte of its answer was sent or given up.
//!
//! *In*: calls. *Out*: their answers, each with what its call holds. *Refuses*: nothing.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

/// What a call holds. Cheap to clone: it is given back when the call and its answer are both gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stay(Arc<Mutex<Vec<Box<dyn Any + Send>>>>);

impl Stay {
    /// Holds something more.
    pub(crate) fn hold(&self, held: impl Any + Send) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(held));
    }
}

/// Around every call.
pub(crate) async fn until_answered(mut request: Request, next: Next) -> Response {
    let stay = Stay::default();
    request.extensions_mut().insert(stay.clone());
    next.run(request).await.map(|body| Body::new(Held { body, _stay: stay }))
}

/// An answer's body, and what its call holds.
struct Held {
    body: Body,
    _stay: Stay,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
