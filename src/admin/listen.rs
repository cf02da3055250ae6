//! The sockets of the admin interface: a Unix socket for its owner alone, and TCP where that is
//! configured.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config;

/// Sockets that are bound, and where.
#[derive(Debug, Default)]
pub struct Sockets {
    /// The Unix socket.
    pub unix: Option<Unix>,
    /// The TCP socket.
    pub tcp: Option<(SocketAddr, TcpListener)>,
}

/// A Unix socket, whose file is removed with it.
#[derive(Debug)]
pub struct Unix {
    /// Its file.
    pub path: PathBuf,
    /// The socket.
    pub listener: UnixListener,
    /// What identifies the file: somebody else's in its place is not removed.
    file: Option<(u64, u64)>,
}

impl Drop for Unix {
    fn drop(&mut self) {
        if identity(&self.path) == self.file {
            // It may have been removed before.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// A socket of the admin interface could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process is answering there.
    #[error(
        "another Tidegate answers on the admin socket {path}: stop it, or name another `socket` in \
         [admin]",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The socket's file, or its folder.
    #[error(
        "cannot make the admin socket {path}: {source}; name another `socket` in [admin], or \
         \"off\"",
        path = path.display()
    )]
    Unix {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The TCP address.
    #[error("the admin interface cannot listen on {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Binds what is configured, but for what `open` has already: that is left alone.
///
/// A Unix socket that nobody asked for by name may be missing: then that is only warned about.
///
/// # Errors
///
/// [`ListenError`] for what was asked for.
pub fn bind(admin: &config::Admin, open: &Open) -> Result<Sockets, ListenError> {
    let mut sockets = Sockets::default();
    if let Some(path) = admin.socket.as_ref().filter(|path| open.unix.as_ref() != Some(*path)) {
        match bind_unix(path) {
            Ok(unix) => sockets.unix = Some(unix),
            Err(error) if admin.is_required => return Err(error),
            Err(error) => tracing::warn!("{error}. Nobody can ask this process"),
        }
    }
    if let Some(address) = admin.address.filter(|address| open.tcp != Some(*address)) {
        let failed = |source| ListenError::Tcp { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        sockets.tcp = Some((address, TcpListener::from_std(listener).map_err(failed)?));
    }
    Ok(sockets)
}

/// Where the admin interface listens already.
#[derive(Debug, Clone, Default)]
pub struct Open {
    /// The file of its Unix socket.
    pub unix: Option<PathBuf>,
    /// The TCP address, as configured.
    pub tcp: Option<SocketAddr>,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

fn bind_unix(path: &Path) -> Result<Unix, ListenError> {
    let failed = |source| ListenError::Unix { path: path.into(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let address = SockAddr::unix(path).map_err(failed)?;
    let asking = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    asking.set_nonblocking(true).map_err(failed)?;
    match asking.connect(&address).map_err(|error| error.kind()) {
        // Or it has so many visitors that this one would have to wait.
        Ok(()) | Err(io::ErrorKind::WouldBlock) => return Err(ListenError::InUse(path.into())),
        // Left over from a process that was killed. So Linux answers for any other file, too.
        Err(io::ErrorKind::ConnectionRefused) if is_socket(path) => {
            fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // Before it has a name: the file is made with the mode of the socket, so that there is no
    // moment at which others might connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
    socket.bind(&address).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Unix { path: path.into(), listener, file: identity(path) })
}
