//! `[drain]` and `[admin]`: how the process is told to end, and what.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::config::fault::Faults;
use crate::config::file;
use crate::config::units::duration;
use crate::config::{Admin, Drain};
use crate::ws::close::{CloseCode, MAX_REASON_BYTES};

const SPREAD: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(60);
const SOCKET: &str = "run/tidegate.sock";
/// What `sun_path` holds, with its end.
const LONGEST_SOCKET: usize = 107;

pub(super) fn drain(written: &file::Drain, faults: &mut Faults) -> Option<Drain> {
    let timeout = faults.keep_or(TIMEOUT, written.timeout.as_ref(), duration)?;
    // Whoever writes only a short timeout wants a short drain.
    let spread = faults.keep_or(SPREAD.min(timeout / 2), written.spread.as_ref(), duration)?;
    if let Some(place) = written.spread.as_ref().filter(|_| spread > timeout) {
        faults.error(
            Some(place.span()),
            format_args!("sessions sent away over {spread:?} do not fit into {timeout:?}"),
            "write a shorter `spread` than `timeout`, or a longer `timeout`",
        );
    }
    let close_code = match &written.close_code {
        Some(written) => Some(close_code(written, faults)?),
        None => None,
    };
    let reason = faults.keep_or(None, written.reason.as_ref(), |text| {
        if text.len() <= MAX_REASON_BYTES {
            Ok(Some(text.to_owned()))
        } else {
            Err(format!(
                "this reason has {} bytes: a Close has room for {MAX_REASON_BYTES}",
                text.len()
            ))
        }
    });
    Some(Drain { spread, timeout, close_code, reason: reason? })
}

fn close_code(written: &Spanned<i64>, faults: &mut Faults) -> Option<CloseCode> {
    let code = u16::try_from(*written.get_ref()).ok().and_then(CloseCode::new);
    if code.is_none() {
        faults.error(
            Some(written.span()),
            format_args!("{} is no code that a Close may have", written.get_ref()),
            "write 1001 (going away), 1012 (service restart), 1013 (try again later), or one of \
             your own from 3000 to 4999",
        );
    }
    code
}

pub(super) fn admin(written: &file::Admin, folder: &Path, faults: &mut Faults) -> Option<Admin> {
    let socket = faults.keep_or(socket(SOCKET, folder).ok(), written.socket.as_ref(), |text| {
        if text == "off" { Ok(None) } else { socket(text, folder).map(Some) }
    });
    let address = faults.keep_or(None, written.address.as_ref(), |text| address(text).map(Some))?;
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        faults.warn(
            written.address.as_ref().map(Spanned::span),
            format_args!("whoever reaches {address} can see every session and its address"),
            "write 127.0.0.1 or [::1] for this machine only",
        );
    }
    Some(Admin { socket: socket?, is_required: written.socket.is_some(), address })
}

fn socket(text: &str, folder: &Path) -> Result<PathBuf, String> {
    let path = folder.join(text);
    let bytes = path.as_os_str().len();
    if bytes <= LONGEST_SOCKET {
        Ok(path)
    } else {
        Err(format!(
            "the path {} has {bytes} bytes: a Unix socket has room for {LONGEST_SOCKET}",
            path.display()
        ))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
        let port = if port.parse::<u16>().is_ok() { port } else { "9901" };
        format!(
            "`{text}` is no address to be asked at: for this machine only, write \
             \"127.0.0.1:{port}\""
        )
    })
}

/// Where the admin socket of the configuration at `path` is, as far as its text can be
/// understood: whoever wants to ask a process that runs need not have a flawless file.
pub fn admin_socket(path: &Path, text: &str) -> Option<PathBuf> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut faults = Faults::default();
    let file = file::File::read(text, &mut faults).unwrap_or_default();
    admin(&file.admin, folder, &mut faults)
        .map_or_else(|| socket(SOCKET, folder).ok(), |admin| admin.socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_socket_is_found_in_a_file_with_faults() {
        let path = Path::new("/etc/tidegate/proxy.toml");
        let found = |text| admin_socket(path, text).map(|path| path.display().to_string());
        let default = Some("/etc/tidegate/run/tidegate.sock".to_owned());
        assert_eq!(found(""), default);
        assert_eq!(found("= no TOML"), default);
        assert_eq!(found("[admin]\nsocket = \"/run/t.sock\"\nx = 1"), Some("/run/t.sock".into()));
        assert_eq!(found("[admin]\nsocket = \"off\""), None);
    }
}
