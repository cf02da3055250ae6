//! A line of the access log, as JSON and as text for eyes. What it says is for `record` to know.

use std::time::Duration;

use super::clock::Stamp;
use super::json::{Hex, Millis, Object, Plain, key};
use super::record::{EndedBy, millis};

/// What a line says; what does not apply to an event is absent.
pub(super) struct Line<'a> {
    pub(super) time: Stamp,
    pub(super) event: &'static str,
    pub(super) id: u64,
    pub(super) client: &'a str,
    pub(super) listener: &'a str,
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
        let mut object = Object::begin(out);
        // Words of ours, digits and colons are plain; all else is looked through.
        object.add(key!("time"), Plain(self.time.as_bytes()));
        object.add(key!("event"), Plain(self.event.as_bytes()));
        object.add(key!("id"), Hex(self.id));
        object.add(key!("client"), Plain(self.client.as_bytes()));
        object.add(key!("listener"), Plain(self.listener.as_bytes()));
        object.add_if(key!("tls"), self.tls.map(|name| Plain(name.as_bytes())));
        object.add_if(key!("resumed"), self.resumed);
        object.add_if(key!("client_subject"), self.client_subject);
        object.add_if(key!("method"), self.method);
        object.add(key!("host"), self.host);
        object.add(key!("path"), self.path);
        object.add_if(key!("status"), self.status);
        object.add_if(key!("route"), self.route);
        object.add_if(key!("upstream"), self.upstream);
        object.add_if(key!("endpoint"), self.endpoint);
        object.add_if(key!("subprotocol"), self.subprotocol);
        object.add_if(key!("handshake_ms"), self.handshake.map(Millis));
        object.add_if(key!("duration_ms"), self.duration.map(Millis));
        object.add_if(key!("received_bytes"), self.received_bytes);
        object.add_if(key!("sent_bytes"), self.sent_bytes);
        if let Some(session) = &self.session {
            session.add_members(&mut object);
        }
        object.add_if(key!("reason"), self.reason);
        object.end();
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
    fn add_members(&self, line: &mut Object<'_>) {
        line.add(key!("client_to_upstream_bytes"), self.client_to_upstream_bytes);
        line.add(key!("upstream_to_client_bytes"), self.upstream_to_client_bytes);
        line.add(key!("client_to_upstream_messages"), self.client_to_upstream_messages);
        line.add(key!("upstream_to_client_messages"), self.upstream_to_client_messages);
        line.add(key!("client_to_upstream_fragments"), self.client_to_upstream_fragments);
        line.add(key!("upstream_to_client_fragments"), self.upstream_to_client_fragments);
        line.add(key!("client_to_upstream_pings"), self.client_to_upstream_pings);
        line.add(key!("upstream_to_client_pings"), self.upstream_to_client_pings);
        line.add(key!("client_to_upstream_pongs"), self.client_to_upstream_pongs);
        line.add(key!("upstream_to_client_pongs"), self.upstream_to_client_pongs);
        line.add(key!("pings_to_client"), self.pings_to_client);
        line.add(key!("pings_to_upstream"), self.pings_to_upstream);
        line.add_if(key!("client_rtt_ms"), self.client_rtt.map(Millis));
        line.add_if(key!("upstream_rtt_ms"), self.upstream_rtt.map(Millis));
        line.add_if(key!("client_close_code"), self.client_close_code);
        line.add_if(key!("client_close_reason"), self.client_close_reason);
        line.add_if(key!("upstream_close_code"), self.upstream_close_code);
        line.add_if(key!("upstream_close_reason"), self.upstream_close_reason);
        line.add_if(key!("close_code_to_client"), self.close_code_to_client);
        line.add_if(key!("close_code_to_upstream"), self.close_code_to_upstream);
        line.add(key!("ended_by"), Plain(self.ended_by.name().as_bytes()));
        line.add(key!("why"), self.why);
        line.add_if(key!("protocol_error"), self.protocol_error);
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde::Serialize;
    use serde_json::to_string as json;

    use super::super::clock::Clock;
    use super::*;

    /// What any line says.
    fn line(event: &'static str) -> Line<'static> {
        Line {
            time: Clock::new().stamp(Duration::from_millis(1_795_199_940_042)),
            event,
            id: 0x0a7f_9d00_a610_462d,
            client: "[2001:db8::7]:34696",
            listener: "127.0.0.1:443",
            tls: None,
            resumed: None,
            client_subject: None,
            method: None,
            host: "",
            path: "",
            status: None,
            route: None,
            upstream: None,
            endpoint: None,
            subprotocol: None,
            handshake: None,
            duration: None,
            received_bytes: None,
            sent_bytes: None,
            session: None,
            reason: None,
        }
    }

    /// A session that nothing was said in.
    fn session() -> SessionLine<'static> {
        SessionLine {
            client_to_upstream_bytes: 0,
            upstream_to_client_bytes: 0,
            client_to_upstream_messages: 0,
            upstream_to_client_messages: 0,
            client_to_upstream_fragments: 0,
            upstream_to_client_fragments: 0,
            client_to_upstream_pings: 0,
            upstream_to_client_pings: 0,
            client_to_upstream_pongs: 0,
            upstream_to_client_pongs: 0,
            pings_to_client: 0,
            pings_to_upstream: 0,
            client_rtt: None,
            upstream_rtt: None,
            client_close_code: None,
            client_close_reason: None,
            upstream_close_code: None,
            upstream_close_reason: None,
            close_code_to_client: None,
            close_code_to_upstream: None,
            ended_by: EndedBy::Client,
            why: "closed",
            protocol_error: None,
        }
    }

    fn written(line: &Line) -> String {
        let mut out = b"the line before\n".to_vec();
        line.add_json(&mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        text.strip_prefix("the line before\n").expect("nothing else touched").to_owned()
    }

    #[test]
    fn a_request() {
        let request = Line {
            tls: Some("1.3"),
            resumed: Some(false),
            method: Some("GET"),
            host: "example.com",
            path: "/a?token=[redacted]",
            status: Some(200),
            route: Some("*/"),
            upstream: Some("app"),
            endpoint: Some("http://127.0.0.1:9000"),
            duration: Some(Duration::from_micros(12_500)),
            received_bytes: Some(0),
            sent_bytes: Some(u64::MAX),
            ..line("request")
        };
        assert_eq!(
            written(&request),
            concat!(
                r#"{"time":"2026-11-20T18:39:00.042Z","event":"request","id":"0a7f9d00a610462d","#,
                r#""client":"[2001:db8::7]:34696","listener":"127.0.0.1:443","tls":"1.3","#,
                r#""resumed":false,"method":"GET","host":"example.com","#,
                r#""path":"/a?token=[redacted]","status":200,"route":"*/","upstream":"app","#,
                r#""endpoint":"http://127.0.0.1:9000","duration_ms":12.5,"received_bytes":0,"#,
                r#""sent_bytes":18446744073709551615}"#,
            )
        );
    }

    #[test]
    fn a_request_that_nothing_is_known_of() {
        let request = Line {
            duration: Some(Duration::ZERO),
            reason: Some("the client went away"),
            ..line("request")
        };
        assert_eq!(
            written(&request),
            concat!(
                r#"{"time":"2026-11-20T18:39:00.042Z","event":"request","id":"0a7f9d00a610462d","#,
                r#""client":"[2001:db8::7]:34696","listener":"127.0.0.1:443","host":"","#,
                r#""path":"","duration_ms":0.0,"reason":"the client went away"}"#,
            )
        );
    }

    #[test]
    fn the_beginning_of_a_session() {
        let open = Line {
            tls: Some("1.2"),
            resumed: Some(true),
            client_subject: Some("CN=\"Ann\", O=Ex\\ample"),
            method: Some("GET"),
            host: "m\u{fc}nchen.example",
            path: "/chat",
            status: Some(101),
            route: Some("example.com/chat"),
            upstream: Some("app"),
            endpoint: Some("unix:/run/app.sock"),
            subprotocol: Some("a\"b"),
            handshake: Some(Duration::from_micros(1_234)),
            ..line("open")
        };
        assert_eq!(
            written(&open),
            concat!(
                r#"{"time":"2026-11-20T18:39:00.042Z","event":"open","id":"0a7f9d00a610462d","#,
                r#""client":"[2001:db8::7]:34696","listener":"127.0.0.1:443","tls":"1.2","#,
                r#""resumed":true,"client_subject":"CN=\"Ann\", O=Ex\\ample","method":"GET","#,
                r#""host":"münchen.example","path":"/chat","status":101,"#,
                r#""route":"example.com/chat","upstream":"app","endpoint":"unix:/run/app.sock","#,
                r#""subprotocol":"a\"b","handshake_ms":1.234}"#,
            )
        );
    }

    #[test]
    fn the_end_of_a_session() {
        let end = Line {
            method: Some("GET"),
            host: "example.com",
            path: "/\u{1}\u{7f}",
            status: Some(101),
            route: Some("*/"),
            upstream: Some("app"),
            endpoint: Some("http://127.0.0.1:9000"),
            handshake: Some(Duration::from_micros(1_000)),
            duration: Some(Duration::from_micros(86_400_000_000 + 20)),
            session: Some(SessionLine {
                client_to_upstream_bytes: 1,
                upstream_to_client_bytes: 23,
                client_to_upstream_messages: 456,
                upstream_to_client_messages: 7_890,
                client_to_upstream_fragments: 12_345,
                upstream_to_client_fragments: 678_901,
                client_to_upstream_pings: 2,
                upstream_to_client_pings: 3,
                client_to_upstream_pongs: 4,
                upstream_to_client_pongs: 5,
                pings_to_client: 6,
                pings_to_upstream: 7,
                client_rtt: Some(Duration::from_micros(100)),
                upstream_rtt: Some(Duration::from_micros(1)),
                client_close_code: Some(1000),
                client_close_reason: Some("bye\n\u{2028}\u{1f44b}\t\u{8}\u{c}\r\0"),
                upstream_close_code: Some(1006),
                upstream_close_reason: Some("\u{1b}"),
                close_code_to_client: Some(1001),
                close_code_to_upstream: Some(4999),
                ended_by: EndedBy::Tidegate,
                why: "protocol error: a \"reserved\" bit",
                protocol_error: Some("client: a reserved bit"),
            }),
            reason: Some("\\"),
            ..line("end")
        };
        assert_eq!(
            written(&end),
            concat!(
                r#"{"time":"2026-11-20T18:39:00.042Z","event":"end","id":"0a7f9d00a610462d","#,
                r#""client":"[2001:db8::7]:34696","listener":"127.0.0.1:443","method":"GET","#,
                r#""host":"example.com","path":"/\u0001"#,
                "\u{7f}\",",
                r#""status":101,"route":"*/","upstream":"app","#,
                r#""endpoint":"http://127.0.0.1:9000","handshake_ms":1.0,"#,
                r#""duration_ms":86400000.02,"#,
                r#""client_to_upstream_bytes":1,"upstream_to_client_bytes":23,"#,
                r#""client_to_upstream_messages":456,"upstream_to_client_messages":7890,"#,
                r#""client_to_upstream_fragments":12345,"upstream_to_client_fragments":678901,"#,
                r#""client_to_upstream_pings":2,"upstream_to_client_pings":3,"#,
                r#""client_to_upstream_pongs":4,"upstream_to_client_pongs":5,"#,
                r#""pings_to_client":6,"pings_to_upstream":7,"client_rtt_ms":0.1,"#,
                r#""upstream_rtt_ms":0.001,"client_close_code":1000,"#,
                r#""client_close_reason":"bye\n"#,
                "\u{2028}\u{1f44b}",
                r#"\t\b\f\r\u0000","upstream_close_code":1006,"#,
                r#""upstream_close_reason":"\u001b","close_code_to_client":1001,"#,
                r#""close_code_to_upstream":4999,"ended_by":"tidegate","#,
                r#""why":"protocol error: a \"reserved\" bit","#,
                r#""protocol_error":"client: a reserved bit","reason":"\\"}"#,
            )
        );
    }

    /// The line, of values that serde_json writes one by one.
    fn by_serde(line: &Line) -> String {
        fn some<T: Serialize>(value: Option<T>) -> Option<String> {
            value.map(|value| json(&value).expect("JSON"))
        }
        let millis = |took: Option<Duration>| {
            some(took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3))
        };
        let mut members = vec![
            ("time", some(Some(line.time.as_str()))),
            ("event", some(Some(line.event))),
            ("id", some(Some(format!("{:016x}", line.id)))),
            ("client", some(Some(line.client))),
            ("listener", some(Some(line.listener))),
            ("tls", some(line.tls)),
            ("resumed", some(line.resumed)),
            ("client_subject", some(line.client_subject)),
            ("method", some(line.method)),
            ("host", some(Some(line.host))),
            ("path", some(Some(line.path))),
            ("status", some(line.status)),
            ("route", some(line.route)),
            ("upstream", some(line.upstream)),
            ("endpoint", some(line.endpoint)),
            ("subprotocol", some(line.subprotocol)),
            ("handshake_ms", millis(line.handshake)),
            ("duration_ms", millis(line.duration)),
            ("received_bytes", some(line.received_bytes)),
            ("sent_bytes", some(line.sent_bytes)),
        ];
        if let Some(session) = &line.session {
            members.extend([
                ("client_to_upstream_bytes", some(Some(session.client_to_upstream_bytes))),
                ("upstream_to_client_bytes", some(Some(session.upstream_to_client_bytes))),
                ("client_to_upstream_messages", some(Some(session.client_to_upstream_messages))),
                ("upstream_to_client_messages", some(Some(session.upstream_to_client_messages))),
                ("client_to_upstream_fragments", some(Some(session.client_to_upstream_fragments))),
                ("upstream_to_client_fragments", some(Some(session.upstream_to_client_fragments))),
                ("client_to_upstream_pings", some(Some(session.client_to_upstream_pings))),
                ("upstream_to_client_pings", some(Some(session.upstream_to_client_pings))),
                ("client_to_upstream_pongs", some(Some(session.client_to_upstream_pongs))),
                ("upstream_to_client_pongs", some(Some(session.upstream_to_client_pongs))),
                ("pings_to_client", some(Some(session.pings_to_client))),
                ("pings_to_upstream", some(Some(session.pings_to_upstream))),
                ("client_rtt_ms", millis(session.client_rtt)),
                ("upstream_rtt_ms", millis(session.upstream_rtt)),
                ("client_close_code", some(session.client_close_code)),
                ("client_close_reason", some(session.client_close_reason)),
                ("upstream_close_code", some(session.upstream_close_code)),
                ("upstream_close_reason", some(session.upstream_close_reason)),
                ("close_code_to_client", some(session.close_code_to_client)),
                ("close_code_to_upstream", some(session.close_code_to_upstream)),
                ("ended_by", some(Some(session.ended_by.name()))),
                ("why", some(Some(session.why))),
                ("protocol_error", some(session.protocol_error)),
            ]);
        }
        members.push(("reason", some(line.reason)));
        let members = members.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let members: Vec<_> = members.map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    /// Texts with and without what is escaped, at every place of a word.
    fn text() -> impl Strategy<Value = String> {
        let hostile = "[\\x00-\\x1f\"\\\\/\\x7f\u{80}\u{e9}\u{2028}\u{1f44b}]";
        prop_oneof![
            "[a-z0-9./:?&=%_-]{0,40}",
            any::<String>(),
            ("[a-z]{0,20}", hostile, "[a-z]{0,20}")
                .prop_map(|(before, hostile, after)| format!("{before}{hostile}{after}")),
        ]
    }

    /// Up to 30 years; beyond, milliseconds have more digits than an f64.
    fn span() -> impl Strategy<Value = Duration> {
        prop_oneof![0..10_000_000u64, 0..100_000_000_000u64, 0..946_080_000_000_000_000u64]
            .prop_map(Duration::from_nanos)
    }

    proptest! {
        #[test]
        fn every_line_is_as_serde_json_would_write_it(
            id: u64,
            millis in 0..4_102_444_800_000u64,
            resumed in option::of(any::<bool>()),
            event in select(vec!["request", "open", "end"]),
            client: SocketAddr,
            tls in option::of(select(vec!["1.2", "1.3"])),
            must in vec(text(), 3),
            may in vec(option::of(text()), 10),
            numbers in vec(prop_oneof![any::<u64>(), 0..1000u64], 14),
            codes in vec(option::of(any::<u16>()), 5),
            spans in vec(option::of(span()), 4),
            is_end: bool,
        ) {
            let may: Vec<_> = may.iter().map(Option::as_deref).collect();
            let end = SessionLine {
                client_to_upstream_bytes: numbers[0],
                upstream_to_client_bytes: numbers[1],
                client_to_upstream_messages: numbers[2],
                upstream_to_client_messages: numbers[3],
                client_to_upstream_fragments: numbers[4],
                upstream_to_client_fragments: numbers[5],
                client_to_upstream_pings: numbers[6],
                upstream_to_client_pings: numbers[7],
                client_to_upstream_pongs: numbers[8],
                upstream_to_client_pongs: numbers[9],
                pings_to_client: numbers[10],
                pings_to_upstream: numbers[11],
                client_rtt: spans[0],
                upstream_rtt: spans[1],
                client_close_code: codes[0],
                client_close_reason: may[0],
                upstream_close_code: codes[1],
                upstream_close_reason: may[1],
                close_code_to_client: codes[2],
                close_code_to_upstream: codes[3],
                why: &must[0],
                protocol_error: may[2],
                ..session()
            };
            let line = Line {
                time: Clock::new().stamp(Duration::from_millis(millis)),
                id,
                client: &client.to_string(),
                tls,
                resumed,
                client_subject: may[3],
                method: may[4],
                host: &must[1],
                path: &must[2],
                status: codes[4],
                route: may[5],
                upstream: may[6],
                endpoint: may[7],
                subprotocol: may[8],
                handshake: spans[2],
                duration: spans[3],
                received_bytes: resumed.map(|_| numbers[12]),
                sent_bytes: resumed.map(|_| numbers[13]),
                session: is_end.then_some(end),
                reason: may[9],
                ..line(event)
            };
            prop_assert_eq!(written(&line), by_serde(&line));
        }
    }
}
