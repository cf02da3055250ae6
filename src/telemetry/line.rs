//! A line of the access log, as JSON and as text for eyes. What it says is for `record` to know.

use std::net::SocketAddr;
use std::time::Duration;

use super::access_log::Stamp;
use super::json::{Object, name};
use super::record::{EndedBy, millis};

/// What a line says; what does not apply to an event is absent.
pub(super) struct Line<'a> {
    pub(super) time: Stamp,
    pub(super) event: &'a str,
    pub(super) id: u64,
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
    pub(super) tls: Option<&'static str>,
    pub(super) resumed: Option<bool>,
    pub(super) client_subject: Option<&'a str>,
    pub(super) method: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) status: Option<u16>,
    pub(super) route: Option<&'a str>,
    pub(super) upstream: Option<&'a str>,
    pub(super) endpoint: Option<&'a str>,
    pub(super) subprotocol: Option<&'a str>,
    pub(super) handshake: Option<Duration>,
    pub(super) duration: Option<Duration>,
    pub(super) received_bytes: Option<u64>,
    pub(super) sent_bytes: Option<u64>,
    pub(super) session: Option<SessionLine<'a>>,
    pub(super) reason: Option<&'a str>,
}

/// What the line at a session's end says besides. What was not counted, with `frames = "off"`, is
/// 0; what did not happen is absent.
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
    pub(super) client_rtt: Option<Duration>,
    pub(super) upstream_rtt: Option<Duration>,
    pub(super) client_close_code: Option<u16>,
    pub(super) client_close_reason: Option<&'a str>,
    pub(super) upstream_close_code: Option<u16>,
    pub(super) upstream_close_reason: Option<&'a str>,
    pub(super) close_code_to_client: Option<u16>,
    pub(super) close_code_to_upstream: Option<u16>,
    pub(super) ended_by: EndedBy,
    pub(super) why: &'a str,
    pub(super) protocol_error: Option<&'a str>,
}

/// Room for a request's line in most cases.
const USUAL_BYTES: usize = 512;

impl Line<'_> {
    /// As JSON, at the end of `out`.
    pub(super) fn add_json(&self, out: &mut Vec<u8>) {
        out.reserve(USUAL_BYTES);
        let mut json = Object::begin(out);
        json.text(name!("time"), self.time.as_str());
        json.text(name!("event"), self.event);
        json.hex(name!("id"), self.id);
        json.address(name!("client"), self.client);
        json.address(name!("listener"), self.listener);
        json.text(name!("tls"), self.tls);
        json.flag(name!("resumed"), self.resumed);
        json.text(name!("client_subject"), self.client_subject);
        json.text(name!("method"), self.method);
        json.text(name!("host"), self.host);
        json.text(name!("path"), self.path);
        json.number(name!("status"), self.status.map(u64::from));
        json.text(name!("route"), self.route);
        json.text(name!("upstream"), self.upstream);
        json.text(name!("endpoint"), self.endpoint);
        json.text(name!("subprotocol"), self.subprotocol);
        json.millis(name!("handshake_ms"), self.handshake);
        json.millis(name!("duration_ms"), self.duration);
        json.number(name!("received_bytes"), self.received_bytes);
        json.number(name!("sent_bytes"), self.sent_bytes);
        if let Some(session) = &self.session {
            session.add_json(&mut json);
        }
        json.text(name!("reason"), self.reason);
        json.end();
    }

    /// The same for eyes: what matters first, absent things left out.
    pub(super) fn as_text(&self) -> String {
        let mut parts = vec![
            self.time.as_str().to_owned(),
            format!("{:<7}", self.event),
            format!("{:016x}", self.id),
        ];
        parts.push(self.client.to_string());
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
    fn add_json(&self, json: &mut Object<'_>) {
        json.number(name!("client_to_upstream_bytes"), self.client_to_upstream_bytes);
        json.number(name!("upstream_to_client_bytes"), self.upstream_to_client_bytes);
        json.number(name!("client_to_upstream_messages"), self.client_to_upstream_messages);
        json.number(name!("upstream_to_client_messages"), self.upstream_to_client_messages);
        json.number(name!("client_to_upstream_fragments"), self.client_to_upstream_fragments);
        json.number(name!("upstream_to_client_fragments"), self.upstream_to_client_fragments);
        json.number(name!("client_to_upstream_pings"), self.client_to_upstream_pings);
        json.number(name!("upstream_to_client_pings"), self.upstream_to_client_pings);
        json.number(name!("client_to_upstream_pongs"), self.client_to_upstream_pongs);
        json.number(name!("upstream_to_client_pongs"), self.upstream_to_client_pongs);
        json.number(name!("pings_to_client"), self.pings_to_client);
        json.number(name!("pings_to_upstream"), self.pings_to_upstream);
        json.millis(name!("client_rtt_ms"), self.client_rtt);
        json.millis(name!("upstream_rtt_ms"), self.upstream_rtt);
        json.number(name!("client_close_code"), self.client_close_code.map(u64::from));
        json.text(name!("client_close_reason"), self.client_close_reason);
        json.number(name!("upstream_close_code"), self.upstream_close_code.map(u64::from));
        json.text(name!("upstream_close_reason"), self.upstream_close_reason);
        json.number(name!("close_code_to_client"), self.close_code_to_client.map(u64::from));
        json.number(name!("close_code_to_upstream"), self.close_code_to_upstream.map(u64::from));
        json.text(name!("ended_by"), self.ended_by.name());
        json.text(name!("why"), self.why);
        json.text(name!("protocol_error"), self.protocol_error);
    }

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
