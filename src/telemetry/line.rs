//! A line of the access log, as JSON and as text for eyes. What it says is for `record` to know.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::clock::Stamp;
use super::record::{EndedBy, millis};

/// What a line says; what does not apply to an event is absent.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    #[serde(serialize_with = "as_text")]
    pub(super) time: Stamp,
    pub(super) event: &'a str,
    #[serde(serialize_with = "in_hex")]
    pub(super) id: u64,
    pub(super) client: &'a str,
    pub(super) listener: &'a str,
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
    #[serde(rename = "handshake_ms", serialize_with = "in_millis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handshake: Option<Duration>,
    #[serde(rename = "duration_ms", serialize_with = "in_millis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration: Option<Duration>,
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
    #[serde(rename = "client_rtt_ms", serialize_with = "in_millis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_rtt: Option<Duration>,
    #[serde(rename = "upstream_rtt_ms", serialize_with = "in_millis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_rtt: Option<Duration>,
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
    #[serde(serialize_with = "by_name")]
    pub(super) ended_by: EndedBy,
    pub(super) why: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol_error: Option<&'a str>,
}

/// Room for a request's line in most cases.
const USUAL_BYTES: usize = 512;

impl Line<'_> {
    /// As JSON, at the end of `out`.
    pub(super) fn add_json(&self, out: &mut Vec<u8>) {
        out.reserve(USUAL_BYTES);
        // Into memory, and texts and numbers are all there is: nothing in it can fail.
        let _ = serde_json::to_writer(out, self);
    }

    /// The same for eyes: what matters first, absent things left out.
    pub(super) fn as_text(&self) -> String {
        let mut parts = vec![
            self.time.as_str().to_owned(),
            format!("{:<7}", self.event),
            format!("{:016x}", self.id),
        ];
        parts.push(self.client.to_owned());
        parts.extend(self.client_subject.map(|subject| format!("<{subject}>")));
        if let Some(method) = self.method {
            parts.push(format!("{method} {}{}", self.host, self.path));
        }
        parts.extend(self.status.map(|status| status.to_string()));
        parts.extend(self.endpoint.map(|endpoint| format!("-> {endpoint}")));
        parts.extend(self.tls.map(|version| format!("TLS {version}")));
        parts.extend(self.subprotocol.map(|name| format!("subprotocol {name}")));
        let took = self.duration.or(self.handshake);
        parts.extend(took.map(|took| format!("{}ms", millis(took))));
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
        let round_trip = |name, took| format!("{name} rtt {}ms", millis(took));
        parts.extend(self.client_rtt.map(|took| round_trip("client", took)));
        parts.extend(self.upstream_rtt.map(|took| round_trip("upstream", took)));
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

fn as_text<S: Serializer>(time: &Stamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(time.as_str())
}

fn in_hex<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{id:016x}"))
}

fn in_millis<S: Serializer>(took: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    took.map(millis).serialize(to)
}

fn by_name<S: Serializer>(who: &EndedBy, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(who.name())
}
