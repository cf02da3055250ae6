//! From what was written to what is meant: names become references, text becomes values, every
//! default is decided, and all faults are gathered. One file for each kind of table.

mod certificate;
mod life;
mod listener;
mod route;
mod tls;
mod upstream;

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::fault::{Faults, did_you_mean};
use super::file::{self, Text};
use super::units::{ByteSize, Rate, duration};
use super::{Config, KeyPermissions, Limits, Log, LogFormat, Pace, Upstream};

pub use life::admin_socket;
pub use upstream::parse_endpoint;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES: ByteSize = ByteSize::kib(32);
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// nginx's `client_body_timeout` and `send_timeout`.
const STALLED: Duration = Duration::from_secs(60);
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// Compiles a file whose paths are relative to `folder`. Faults may have been noted even where
/// a configuration is returned: then it must not be used.
pub(super) fn compile(file: &file::File, folder: &Path, faults: &mut Faults) -> Option<Config> {
    let listeners = listener::listeners(file, faults);
    let tls = tls::tls(file, folder, faults);
    let upstreams: Vec<Option<Upstream>> = file
        .upstream
        .iter()
        .map(|(name, written)| upstream::upstream(name, written, folder, faults))
        .collect();
    let names: Vec<&str> = file.upstream.iter().map(|(name, _)| name.get_ref().as_str()).collect();
    let routes = route::routes(file, &names, faults);
    let key_permissions = tls.as_ref().map_or(KeyPermissions::Warn, |tls| tls.key_permissions);
    let certificates = certificate::certificates(file, folder, key_permissions, faults);
    let limits = limits(&file.limits, faults);
    let drain = life::drain(&file.drain, faults);
    let admin = life::admin(&file.admin, folder, faults);
    let log = log(&file.log, folder, faults);
    Some(Config {
        listeners: listeners?,
        tls: tls?,
        certificates: certificates?,
        upstreams: upstreams.into_iter().collect::<Option<_>>()?,
        routes: routes?,
        limits: limits?,
        drain: drain?,
        admin: admin?,
        log: log?,
    })
}

impl Faults {
    /// What `read` makes of a written value; its error is noted at the value's place.
    fn keep<T, E: Display>(
        &mut self,
        written: &Text,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(written.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                let text = error.to_string();
                // "what is wrong: how it is written right" keeps its two halves apart.
                match text.split_once(": ") {
                    Some((wrong, way_out)) => self.error(Some(written.span()), wrong, way_out),
                    None => self.error(Some(written.span()), text, ""),
                }
                None
            }
        }
    }

    /// The same, with a default for what was not written.
    fn keep_or<T, E: Display>(
        &mut self,
        default: T,
        written: Option<&Text>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match written {
            Some(written) => self.keep(written, read),
            None => Some(default),
        }
    }

    /// A number that counts something: `least` at the least.
    fn number(&mut self, written: Option<&Spanned<i64>>, least: usize) -> Option<Option<usize>> {
        let Some(written) = written else { return Some(None) };
        match usize::try_from(*written.get_ref()) {
            Ok(count) if count >= least => Some(Some(count)),
            _ => {
                self.error(
                    Some(written.span()),
                    format_args!("{} is no number of these", written.get_ref()),
                    format_args!("write {least} or more"),
                );
                None
            }
        }
    }
}

/// The value that goes by the name `text`.
fn one_of<T: Copy>(what: &str, known: &[(&str, T)], text: &str) -> Result<T, String> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names = || known.iter().map(|(name, _)| *name);
    let near = did_you_mean(text, names());
    let list = || names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
    let way_out = if near.is_empty() { format!("write {}", list()) } else { near };
    Err(format!("there is no {what} `{text}`: {way_out}"))
}

/// A duration that is waited for, so that none would mean never.
fn positive(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(Duration::ZERO) => Err(format!("`{text}` leaves no time at all: write 1ms or more")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// A bound that lets something through.
fn at_least_a_byte(text: &str) -> Result<ByteSize, String> {
    match ByteSize::parse(text) {
        Ok(size) if size.bytes() == 0 => {
            Err(format!("`{text}` leaves no room at all: write 1B or more"))
        }
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

fn limits(written: &file::Limits, faults: &mut Faults) -> Option<Limits> {
    let sessions = faults.number(written.sessions.as_ref(), 1);
    let connections = faults.number(written.connections.as_ref(), 1);
    let connections_per_ip = faults.number(written.connections_per_ip.as_ref(), 1);
    let header_timeout = faults.keep_or(HEADER_TIMEOUT, written.header_timeout.as_ref(), positive);
    let header_bytes = faults.keep_or(HEADER_BYTES, written.header_bytes.as_ref(), |text| {
        match ByteSize::parse(text) {
            Ok(size) if (ByteSize::kib(8)..=ByteSize::kib(1024)).contains(&size) => Ok(size),
            Ok(size) => Err(format!("{size} is no size for request heads: write 8KiB to 1024KiB")),
            Err(error) => Err(error.to_string()),
        }
    });
    let keep_alive = faults.keep_or(KEEP_ALIVE, written.keep_alive.as_ref(), positive);
    let body_timeout = faults.keep_or(STALLED, written.body_timeout.as_ref(), positive);
    let send_timeout = faults.keep_or(STALLED, written.send_timeout.as_ref(), positive);
    let handshake_rate = faults
        .keep_or(None, written.handshake_rate.as_ref(), |text| Rate::parse_count(text).map(Some));
    let handshake_wait = faults.keep_or(HANDSHAKE_WAIT, written.handshake_wait.as_ref(), duration);
    if let (None, Some(wait)) = (&written.handshake_rate, &written.handshake_wait) {
        faults.error(
            Some(wait.span()),
            "nobody waits without a `handshake_rate`",
            "add `handshake_rate = \"100/s\"` or remove this",
        );
    }
    Some(Limits {
        sessions: sessions?,
        connections: connections?,
        connections_per_ip: connections_per_ip?,
        header_timeout: header_timeout?,
        header_bytes: header_bytes?,
        keep_alive: keep_alive?,
        body_timeout: body_timeout?,
        send_timeout: send_timeout?,
        handshakes: handshake_rate?.zip(handshake_wait).map(|(rate, wait)| Pace { rate, wait }),
    })
}

fn log(written: &file::Log, folder: &Path, faults: &mut Faults) -> Option<Log> {
    let known = [("text", LogFormat::Text), ("json", LogFormat::Json), ("off", LogFormat::Off)];
    let format = faults.keep_or(None, written.access.as_ref(), |text| {
        one_of("form of the access log", &known, text).map(Some)
    });
    Some(Log {
        format: format?,
        path: written.path.as_ref().map(|text| folder.join(text.get_ref())),
        redact: written.redact.iter().map(|key| key.get_ref().to_ascii_lowercase()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.chat]\nendpoints = \
                    [\"http://127.0.0.1:1\", \"nope://x\"]\n[[route]]\nupstream = \
                    \"chat-v2\"\nidle_timeout = \"soon\"\n";
        let (config, report) = crate::config::compile(Path::new("proxy.toml"), text);
        assert!(config.is_none());
        let errors = report.errors();
        for part in
            ["proxy.toml:4:36", "proxy.toml:6:12", "did you mean `chat`?", "proxy.toml:7:16"]
        {
            assert!(errors.contains(part), "{part} in:\n{errors}");
        }
    }
}
