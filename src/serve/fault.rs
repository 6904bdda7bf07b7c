//! Errors as clients get them.

use super::reply::{Reply, json};
use crate::error::Error;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

/// An error of a request, in the form of OpenAI's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field that is wrong.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A field that is not valid.
    pub(super) fn field(name: &str, message: impl AsRef<str>) -> Self {
        let message = format!("{name}: {}", message.as_ref());
        Self { param: Some(name.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(super) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// There are as many requests as the server takes.
    pub(super) fn busy() -> Self {
        let message = "the server has as many requests as it takes: try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("rate_limit_exceeded")
    }

    /// The engine is gone.
    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server ends: its GPU was lost, or it is shut down")
    }

    /// The time of a request is over.
    pub(super) fn late() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "the answer took longer than a request may take").with_code("timeout")
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub(super) fn body(&self) -> String {
        let Self { message, param, code, .. } = self;
        json!({"error": {"message": message, "type": self.kind(), "param": param, "code": code}}).to_string()
    }

    pub(super) fn reply(&self) -> Reply {
        let mut reply = json(self.status, self.body());
        let mut header =
            |name: HeaderName, value| drop(reply.headers_mut().insert(name, HeaderValue::from_static(value)));
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => header(RETRY_AFTER, "1"),
            StatusCode::UNAUTHORIZED => header(WWW_AUTHENTICATE, "Bearer"),
            _ => (),
        }
        reply
    }
}

/// An error of the engine, of one request. Paths of the server's files are left out.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Input { what, message } => Self::field(&what, message),
            Error::Format { message, .. } => Self::new(StatusCode::BAD_REQUEST, message),
            Error::DeviceLost { .. } => Self::unavailable(),
            other => {
                log::warn!("a request failed: {other}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string())
            }
        }
    }
}
