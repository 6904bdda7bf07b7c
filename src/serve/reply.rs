//! What goes back over HTTP.

use futures::Stream;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::convert::Infallible;

pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A whole body of a type.
pub(super) fn whole(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// A body in JSON.
pub(super) fn json(status: StatusCode, body: String) -> Reply {
    whole(status, "application/json", body)
}

/// A stream of server-sent events.
pub(super) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    let frames = events.map(|event| Ok::<_, Infallible>(Frame::data(event)));
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// One of them.
pub(super) fn event(data: &impl std::fmt::Display) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}
