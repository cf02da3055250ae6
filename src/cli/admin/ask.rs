//! Asks a running process: HTTP/1.1 over its admin socket, one connection for each question.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin::snapshot::{Done, SessionList, Status};

/// For an answer that has only to be written down.
const TO_TELL: Duration = Duration::from_secs(10);

/// For an answer that comes when something has been done: a reload reads certificates, and may have
/// to wait for a disk.
const TO_ACT: Duration = Duration::from_secs(60);

/// Where a process is asked.
#[derive(Debug)]
pub(super) struct Socket(PathBuf);

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(
        "no Tidegate answers on {0}: is it running? `--config PATH` or `--socket PATH` says where"
    )]
    Nobody(String),
    #[error(
        "permission denied on {0}: ask with sudo, or as the user that Tidegate runs as; \
         `--socket PATH` names another one"
    )]
    NotAllowed(String),
    #[error("connecting to {socket}; `--socket PATH` names another one")]
    Connect { socket: String, source: io::Error },
    #[error("Tidegate on {0} went away before its answer was complete")]
    WentAway(String),
    #[error("Tidegate on {socket} gave no answer within {limit:?}")]
    Late { socket: String, limit: Duration },
    #[error("that is too long for one question: name fewer sessions, or say which by filters")]
    TooLong { source: http::Error },
    /// In the words of the process.
    #[error("{0}")]
    Refused(String),
    /// The configuration is not right; in the words of the process, several lines of them.
    #[error("{0}")]
    Faults(String),
    #[error("the answer on {socket} is none that this version understands; is it another one?")]
    Garbled { socket: String, source: serde_json::Error },
}

impl Socket {
    /// The one at `path`.
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// What the process tells about itself.
    pub(super) async fn status(&self) -> Result<Status, AskError> {
        self.read(&self.status_text().await?)
    }

    /// The same as JSON, as it was written.
    pub(super) async fn status_text(&self) -> Result<Bytes, AskError> {
        self.exchange(Method::GET, "/status", TO_TELL).await
    }

    /// The sessions that `query` asks for.
    pub(super) async fn sessions(&self, query: &Query) -> Result<SessionList, AskError> {
        self.read(&self.sessions_text(query).await?)
    }

    /// The same as JSON, as it was written.
    pub(super) async fn sessions_text(&self, query: &Query) -> Result<Bytes, AskError> {
        self.exchange(Method::GET, &query.after("/sessions"), TO_TELL).await
    }

    /// The sessions that `query` asks for, and what becomes of them, line by line.
    pub(super) async fn watch(&self, query: Query) -> Result<Lines, AskError> {
        let target = query.with("watch", Some("true")).after("/sessions");
        let response = self.within(TO_TELL, self.send(Method::GET, &target)).await?;
        Ok(Lines { socket: self.shown(), body: response.into_body(), read: BytesMut::new() })
    }

    /// Has something done.
    pub(super) async fn act(&self, path: &str, query: &Query) -> Result<Done, AskError> {
        self.read(&self.exchange(Method::POST, &query.after(path), TO_ACT).await?)
    }

    /// The whole body of an answer. It is not bounded: whoever may answer on this socket is us.
    async fn exchange(
        &self,
        method: Method,
        target: &str,
        limit: Duration,
    ) -> Result<Bytes, AskError> {
        let all = async {
            let response = self.send(method, target).await?;
            self.body(response).await
        };
        self.within(limit, all).await
    }

    async fn send(&self, method: Method, target: &str) -> Result<Response<Incoming>, AskError> {
        let stream = UnixStream::connect(&self.0).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| AskError::WentAway(self.shown()))?;
        // It ends with the answer, or when the sender below is gone; what it fails of, the sender
        // or the body hears too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "tidegate")
            .body(Empty::<Bytes>::new())
            // Everything is percent-encoded, so its length is all that can be wrong with it.
            .map_err(|source| AskError::TooLong { source })?;
        let response =
            sender.send_request(request).await.map_err(|_| AskError::WentAway(self.shown()))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let text = self.body(response).await?;
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        Err(match status {
            StatusCode::UNPROCESSABLE_ENTITY => AskError::Faults(text),
            _ if text.is_empty() => AskError::Refused(format!("the answer was {status}")),
            _ => AskError::Refused(text),
        })
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, AskError> {
        let body = response.into_body().collect().await;
        Ok(body.map_err(|_| AskError::WentAway(self.shown()))?.to_bytes())
    }

    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, AskError> {
        let late = |_| AskError::Late { socket: self.shown(), limit };
        timeout(limit, answer).await.map_err(late)?
    }

    fn unreachable(&self, error: io::Error) -> AskError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::Nobody(self.shown())
            }
            io::ErrorKind::PermissionDenied => AskError::NotAllowed(self.shown()),
            _ => AskError::Connect { socket: self.shown(), source: error },
        }
    }

    /// What a text of the process means.
    pub(super) fn read<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, AskError> {
        serde_json::from_slice(text)
            .map_err(|source| AskError::Garbled { socket: self.shown(), source })
    }

    fn shown(&self) -> String {
        self.0.display().to_string()
    }
}

/// An answer that comes in lines for as long as there is something to tell.
#[derive(Debug)]
pub(super) struct Lines {
    socket: String,
    body: Incoming,
    read: BytesMut,
}

impl Lines {
    /// The next line without its end, or `None` when the process has left. Dropping the future
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<String>, AskError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
                Some(Err(_)) => return Err(AskError::WentAway(self.socket.clone())),
                None => return Ok(None),
            }
        }
    }
}

/// The parameters of a question, percent-encoded.
#[derive(Debug, Default)]
pub(super) struct Query(String);

impl Query {
    /// With one more, if there is a value for it.
    pub(super) fn with(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            encode(value, &mut self.0);
        }
        self
    }

    /// Behind its path.
    fn after(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// What is not unreserved (RFC 3986 §2.3) is encoded: more than needed, and never too little.
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(byte.into());
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_survives_any_value() {
        let query = Query::default()
            .with("route", Some("example.com/chat"))
            .with("client", None)
            .with("reason", Some("we go & come+back, ä\r\n"));
        assert_eq!(
            query.after("/sessions"),
            "/sessions?route=example.com%2Fchat&reason=we%20go%20%26%20come%2Bback%2C%20%C3%A4%0D%0A"
        );
        assert_eq!(Query::default().after("/status"), "/status");
    }
}
