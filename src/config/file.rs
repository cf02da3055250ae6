//! `proxy.toml` as it was written, and nothing more: no default is decided here, and what can be
//! wrong beyond its syntax keeps its place in the file. `compile` says what it means.

use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::fault::{Faults, did_you_mean, nearest};

/// A text with its place.
pub type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Default)]
pub struct File {
    /// `[[listener]]`
    pub listener: Vec<Listener>,
    /// `[tls]`
    pub tls: Tls,
    /// `[[certificate]]`
    pub certificate: Vec<Certificate>,
    /// `[upstream.NAME]`, in the order of the file
    pub upstream: Vec<(Text, Upstream)>,
    /// `[[route]]`
    pub route: Vec<Route>,
    /// `[limits]`
    pub limits: Limits,
    /// `[drain]`
    pub drain: Drain,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
}

/// `[[listener]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub address: Option<Text>,
    pub fallback: Option<Text>,
    pub activation: Option<Text>,
    pub tls: Option<bool>,
    #[serde(default)]
    pub trusted: Vec<Text>,
    pub proxy_protocol: Option<Text>,
    pub redirect_https: Option<Spanned<bool>>,
    pub client_auth: Option<Text>,
    #[serde(skip)]
    pub place: Option<Range<usize>>,
    #[serde(skip)]
    pub is_whole: bool,
}

/// `[tls]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub min_version: Option<Text>,
    pub handshake_timeout: Option<Text>,
    pub client_ca: Option<Text>,
    pub client_auth: Option<Text>,
    pub unknown_name: Option<Text>,
    pub key_permissions: Option<Text>,
}

/// `[[certificate]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    pub chain: Option<Text>,
    pub key: Option<Text>,
    pub self_signed: Option<Spanned<Vec<Text>>>,
    #[serde(skip)]
    pub place: Option<Range<usize>>,
    #[serde(skip)]
    pub is_whole: bool,
}

/// `[upstream.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    pub endpoints: Option<Spanned<Vec<Text>>>,
    pub builtin: Option<Text>,
    pub balance: Option<Text>,
    pub connect_timeout: Option<Text>,
    pub handshake_timeout: Option<Text>,
    pub retries: Option<Spanned<i64>>,
    pub host: Option<Text>,
    pub ca: Option<Text>,
    pub server_name: Option<Text>,
    pub verify: Option<Spanned<bool>>,
    pub resolve_every: Option<Text>,
    pub send_proxy_protocol: Option<Text>,
    pub source_addresses: Option<Spanned<Vec<Text>>>,
    #[serde(skip)]
    pub place: Option<Range<usize>>,
    #[serde(skip)]
    pub is_whole: bool,
}

/// `[[route]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub host: Option<Text>,
    pub path: Option<Text>,
    pub upstream: Option<Text>,
    pub strict_handshake: Option<bool>,
    pub origins: Option<Spanned<Vec<Text>>>,
    pub missing_origin: Option<Text>,
    pub idle_timeout: Option<Text>,
    pub close_timeout: Option<Text>,
    pub half_close_timeout: Option<Text>,
    pub frames: Option<Text>,
    pub ping_after: Option<Text>,
    pub ping_timeout: Option<Text>,
    pub max_frame: Option<Text>,
    pub max_message: Option<Text>,
    pub message_rate: Option<Text>,
    pub byte_rate: Option<Text>,
    pub over_rate: Option<Text>,
    pub max_age: Option<Text>,
    #[serde(skip)]
    pub place: Option<Range<usize>>,
    #[serde(skip)]
    pub is_whole: bool,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub sessions: Option<Spanned<i64>>,
    pub connections: Option<Spanned<i64>>,
    pub connections_per_ip: Option<Spanned<i64>>,
    pub header_timeout: Option<Text>,
    pub header_bytes: Option<Text>,
    pub keep_alive: Option<Text>,
    pub body_timeout: Option<Text>,
    pub send_timeout: Option<Text>,
    pub handshake_rate: Option<Text>,
    pub handshake_wait: Option<Text>,
}

/// `[drain]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    pub spread: Option<Text>,
    pub timeout: Option<Text>,
    pub close_code: Option<Spanned<i64>>,
    pub reason: Option<Text>,
}

/// `[admin]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub socket: Option<Text>,
    pub address: Option<Text>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub access: Option<Text>,
    pub path: Option<Text>,
    #[serde(default)]
    pub redact: Vec<Text>,
}

const TABLES: [&str; 9] =
    ["listener", "tls", "certificate", "upstream", "route", "limits", "drain", "admin", "log"];

impl File {
    /// Reads the text of `proxy.toml`. What can be read is returned even where a table has
    /// faults, so that all are found in one go; a text that is no TOML gives `None`.
    pub fn read(text: &str, faults: &mut Faults) -> Option<Self> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let key = error.span().and_then(|span| text.get(span)).unwrap_or_default();
            match error.message() {
                "duplicate key" => faults.error(
                    error.span(),
                    format_args!("the key `{key}` stands twice in its table"),
                    "remove one",
                ),
                other => faults.error(error.span(), one_line(other), ""),
            }
        }
        if !errors.is_empty() {
            // What the parser made up to go on would only give faults that nobody wrote.
            return None;
        }
        let mut file = Self::default();
        for (key, value) in table.into_inner() {
            let place = value.span();
            match key.get_ref().as_ref() {
                "listener" => file.listener = tables("listener", value, faults),
                "certificate" => file.certificate = tables("certificate", value, faults),
                "route" => file.route = tables("route", value, faults),
                "tls" => file.tls = table_of("tls", value, faults),
                "limits" => file.limits = table_of("limits", value, faults),
                "drain" => file.drain = table_of("drain", value, faults),
                "admin" => file.admin = table_of("admin", value, faults),
                "log" => file.log = table_of("log", value, faults),
                "upstream" => file.upstream = upstreams(value, faults),
                unknown => {
                    let span = if key.span().is_empty() { place } else { key.span() };
                    faults.error(
                        Some(span),
                        format_args!("there is no table `{unknown}`"),
                        expected(unknown, &TABLES),
                    );
                }
            }
        }
        file.upstream.sort_by_key(|(name, _)| name.span().start);
        Some(file)
    }
}

/// A table that remembers where it stands, and whether something in it could not be read: then
/// what seems to be missing may be just that.
trait Placed {
    fn set_place(&mut self, place: Range<usize>, is_whole: bool);
}

macro_rules! placed {
    ($($table:ty),*) => {$(
        impl Placed for $table {
            fn set_place(&mut self, place: Range<usize>, is_whole: bool) {
                self.place = Some(place);
                self.is_whole = is_whole;
            }
        }
    )*};
}
placed!(Listener, Certificate, Upstream, Route);

fn tables<T: DeserializeOwned + Default + Placed>(
    name: &str,
    value: Spanned<DeValue<'_>>,
    faults: &mut Faults,
) -> Vec<T> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Array(items) => items
            .into_iter()
            .map(|item| {
                let place = item.span();
                let before = faults.count();
                let mut table: T = table_of(name, item, faults);
                table.set_place(place, faults.count() == before);
                table
            })
            .collect(),
        _ => {
            faults.error(
                Some(place),
                format_args!("there can be several of `{name}`, so it takes double brackets"),
                format_args!("write `[[{name}]]`"),
            );
            Vec::new()
        }
    }
}

fn upstreams(value: Spanned<DeValue<'_>>, faults: &mut Faults) -> Vec<(Text, Upstream)> {
    let place = value.span();
    let DeValue::Table(named) = value.into_inner() else {
        faults.error(Some(place), "an upstream needs a name", "write `[upstream.NAME]`");
        return Vec::new();
    };
    named
        .into_iter()
        .map(|(name, value)| {
            let before = faults.count();
            let mut upstream: Upstream = table_of("upstream", value, faults);
            upstream.set_place(name.span(), faults.count() == before);
            (Spanned::new(name.span(), name.into_inner().into_owned()), upstream)
        })
        .collect()
}

/// Reads one table. serde stops at the first fault, so what it stumbled over is taken out and the
/// rest read again, until all faults of the table are known.
fn table_of<T: DeserializeOwned + Default>(
    name: &str,
    value: Spanned<DeValue<'_>>,
    faults: &mut Faults,
) -> T {
    let place = value.span();
    let DeValue::Table(mut table) = value.into_inner() else {
        faults.error(
            Some(place),
            format_args!("`{name}` is a table"),
            format_args!("write `[{name}]` and its keys below"),
        );
        return T::default();
    };
    loop {
        let whole = Spanned::new(place.clone(), DeValue::Table(table.clone()));
        let error = match T::deserialize(ValueDeserializer::from(whole)) {
            Ok(read) => return read,
            Err(error) => error,
        };
        let at = error.span().unwrap_or_else(|| place.clone());
        let culprit = table
            .iter()
            .find(|(key, value)| overlap(&key.span(), &at) || overlap(&value.span(), &at))
            .map(|(key, _)| key.clone());
        let key = culprit.as_ref().map_or("", |key| key.get_ref().as_ref());
        explain(name, key, at, error.message(), faults);
        let Some(culprit) = culprit else { return T::default() };
        table.remove(&culprit);
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Says in our words what serde found: an unknown key, or a value of the wrong kind.
fn explain(table: &str, key: &str, place: Range<usize>, message: &str, faults: &mut Faults) {
    if message.starts_with("unknown field") {
        // "unknown field `a`, expected one of `b`, `c`": every second piece between backticks.
        let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if let [unknown, known @ ..] = words.as_slice() {
            faults.error(
                Some(place),
                format_args!("there is no key `{unknown}` in `{table}`"),
                expected(unknown, known),
            );
            return;
        }
    }
    let wrong_type = message
        .strip_prefix("invalid type: ")
        .and_then(|types| types.split_once(", expected "))
        .map(|(found, expected)| (found.trim(), one_line(expected)));
    if let Some((found, expected)) = wrong_type {
        let way_out = match expected.as_str() {
            "a boolean" => "write true or false, without quotes",
            "a string" => "write it in quotes, with its unit where it has one: \"30s\"",
            "i64" => "write a whole number, without quotes",
            "a sequence" => "write a list: [\"…\", \"…\"]",
            _ => "",
        };
        let expected = match expected.as_str() {
            "a boolean" => "true or false",
            "a string" => "a text",
            "i64" => "a whole number",
            "a sequence" => "a list",
            other => other,
        };
        faults.error(
            Some(place),
            format_args!("`{key}` takes {expected}, and this is {found}"),
            way_out,
        );
        return;
    }
    faults.error(Some(place), one_line(message), "");
}

/// Names that people bring along from other proxies, and ours for the same thing.
const ELSEWHERE: [(&str, &str); 18] = [
    ("listen", "address"),
    ("bind", "address"),
    ("port", "address"),
    ("ssl", "tls"),
    ("server", "listener"),
    ("location", "route"),
    ("proxy_pass", "upstream"),
    ("backend", "upstream"),
    ("servers", "endpoints"),
    ("server_name", "host"),
    ("ssl_certificate", "chain"),
    ("cert", "chain"),
    ("ssl_certificate_key", "key"),
    ("ssl_client_certificate", "client_ca"),
    ("ssl_verify_client", "client_auth"),
    ("proxy_read_timeout", "idle_timeout"),
    ("proxy_connect_timeout", "connect_timeout"),
    ("lb_policy", "balance"),
];

fn expected(unknown: &str, known: &[&str]) -> String {
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(theirs, ours)| *theirs == unknown && known.contains(ours))
        .map(|(_, ours)| *ours);
    match elsewhere.or_else(|| nearest(unknown, known.iter().copied())) {
        Some(near) => did_you_mean(near, [near]),
        None => format!("known here: {}", known.join(", ")),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn faults_of(text: &str) -> String {
        let mut faults = Faults::default();
        File::read(text, &mut faults);
        faults.into_report(Path::new("proxy.toml"), text).errors()
    }

    #[test]
    fn every_fault_of_a_table_is_found() {
        let text = "[[route]]\nhots = \"*\"\npath = 3\nupstream = \"app\"\nbanana = 1\n[drian]\n";
        let faults = faults_of(text);
        for part in [
            "no key `hots` in `route`",
            "did you mean `host`?",
            "proxy.toml:3:8",
            "no key `banana`",
            "known here: host, path",
            "no table `drian`",
            "did you mean `drain`?",
        ] {
            assert!(faults.contains(part), "{part} in:\n{faults}");
        }
    }

    #[test]
    fn words_of_other_proxies_are_recognised() {
        assert!(
            faults_of("[[listener]]\nlisten = \"[::]:80\"").contains("did you mean `address`?")
        );
    }

    #[test]
    fn a_table_written_as_something_else_is_explained() {
        assert!(faults_of("[route]\npath = \"/\"").contains("write `[[route]]`"));
        assert!(faults_of("upstream = 3").contains("write `[upstream.NAME]`"));
        assert!(faults_of("limits = 3").contains("write `[limits]`"));
    }
}
