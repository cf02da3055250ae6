//! A line of the access log, as JSON and as text for eyes. What it says is for `record` to know.

use std::net::SocketAddr;

use serde::Serialize;

use super::record::EndedBy;

/// A line of the access log as JSON; the fields of an event that do not apply are absent.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) time: String,
    pub(super) event: &'a str,
    pub(super) id: String,
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subprotocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handshake_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sent_bytes: Option<u64>,
    #[serde(flatten)]
    pub(super) session: Option<SessionLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'a str>,
}

/// What the line at a session's end says besides. What was not counted, with `frames = "off"`, is
/// 0; what did not happen is absent.
#[derive(Serialize)]
pub(super) struct SessionLine<'a> {
    pub(super) client_to_upstream_bytes: u64,
    pub(super) upstream_to_client_bytes: u64,
    pub(super) client_to_upstream_messages: u64,
    pub(super) upstream_to_client_messages: u64,
    pub(super) client_to_upstream_fragments: u64,
    pub(super) upstream_to_client_fragments: u64,
    pub(super) client_to_upstream_pings: u64,
    pub(super) upstream_to_client_pings: u64,
    pub(super) client_to_upstream_pongs: u64,
    pub(super) upstream_to_client_pongs: u64,
    pub(super) pings_to_client: u64,
    pub(super) pings_to_upstream: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_close_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_close_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_close_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_close_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) close_code_to_client: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) close_code_to_upstream: Option<u16>,
    pub(super) ended_by: EndedBy,
    pub(super) why: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol_error: Option<&'a str>,
}

impl Line<'_> {
    /// The same for eyes: what matters first, absent things left out.
    pub(super) fn as_text(&self) -> String {
        let mut parts = vec![self.time.clone(), format!("{:<7}", self.event), self.id.clone()];
        parts.push(self.client.to_string());
        parts.extend(self.client_subject.map(|subject| format!("<{subject}>")));
        if let Some(method) = self.method {
            parts.push(format!("{method} {}{}", self.host, self.path));
        }
        parts.extend(self.status.map(|status| status.to_string()));
        parts.extend(self.endpoint.map(|endpoint| format!("-> {endpoint}")));
        parts.extend(self.tls.map(|version| format!("TLS {version}")));
        parts.extend(self.subprotocol.map(|name| format!("subprotocol {name}")));
        let took = self.duration_ms.or(self.handshake_ms);
        parts.extend(took.map(|millis| format!("{millis}ms")));
        let bytes = self.received_bytes.zip(self.sent_bytes);
        parts.extend(bytes.map(|(up, down)| format!("up {up}B down {down}B")));
        if let Some(session) = &self.session {
            session.add_text(&mut parts);
        }
        parts.extend(self.reason.map(|reason| format!("({reason})")));
        parts.join(" ")
    }
}

impl SessionLine<'_> {
    fn add_text(&self, parts: &mut Vec<String>) {
        let way = |name, bytes, messages| format!("{name} {bytes}B in {messages} messages");
        parts.push(way("up", self.client_to_upstream_bytes, self.client_to_upstream_messages));
        parts.push(way("down", self.upstream_to_client_bytes, self.upstream_to_client_messages));
        let round_trip = |name, millis| format!("{name} rtt {millis}ms");
        parts.extend(self.client_rtt_ms.map(|millis| round_trip("client", millis)));
        parts.extend(self.upstream_rtt_ms.map(|millis| round_trip("upstream", millis)));
        let close = |name, code, reason: Option<&str>| match reason {
            Some(reason) => format!("{name} close {code} {reason:?}"),
            None => format!("{name} close {code}"),
        };
        let (client, upstream) = (self.client_close_code, self.upstream_close_code);
        parts.extend(client.map(|code| close("client", code, self.client_close_reason)));
        parts.extend(upstream.map(|code| close("upstream", code, self.upstream_close_reason)));
        parts.extend(self.close_code_to_client.map(|code| close("to client", code, None)));
        parts.extend(self.close_code_to_upstream.map(|code| close("to upstream", code, None)));
        parts.push(format!("ended by {}: {}", self.ended_by.name(), self.why));
        parts.extend(self.protocol_error.map(|error| format!("protocol error of the {error}")));
    }
}
