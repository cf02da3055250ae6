//! Listening sockets that were passed to the process at its start: socket activation as in
//! sd_listen_fds(3). They have names, by which listeners ask for them.
//!
//! Whoever passes them keeps them open, so connections wait in the queue of such a socket while
//! there is no process, and none is turned away by a restart.

use std::fmt;
use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// What systemd calls a socket whose name was not passed.
const NAMELESS: &str = "unknown";

/// The sockets that were passed and not yet taken.
pub struct Inherited {
    descriptors: ListenFd,
    /// The name of each descriptor; `None` once it was taken.
    names: Vec<Option<String>>,
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What was passed under a listener's name cannot be accepted on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what was passed to this process as `{name}` is no listening TCP socket: the socket unit with \
     FileDescriptorName={name} needs ListenStream= with a port, and Accept=no"
)]
pub struct NotListening {
    /// The name.
    pub name: String,
}

impl Inherited {
    /// What the environment says was passed to this process, and not to its parent. Where
    /// `LISTEN_PID` does not say to whom, it is taken for ours, as systemfd(1) has it.
    ///
    /// Takes it out of the environment, so it is called once, before there is any thread.
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").ok();
        let descriptors = ListenFd::from_env();
        let names = name_each(descriptors.len(), names.as_deref());
        Self { descriptors, names }
    }

    /// The first socket of this name that was not yet taken.
    ///
    /// # Errors
    ///
    /// [`NotListening`] where it is something else.
    pub fn take(&mut self, name: &str) -> Result<Option<TcpListener>, NotListening> {
        let Some(index) = self.names.iter().position(|passed| passed.as_deref() == Some(name))
        else {
            return Ok(None);
        };
        let is_listening =
            |socket: &TcpListener| SockRef::from(socket).is_listener().unwrap_or(false);
        match self.descriptors.take_tcp_listener(index) {
            Ok(Some(socket)) if is_listening(&socket) => {
                self.names[index] = None;
                Ok(Some(socket))
            }
            _ => Err(NotListening { name: name.to_owned() }),
        }
    }

    /// The names of the sockets that nobody took, once everybody has. Our ends of them are closed.
    pub fn left_over(&mut self) -> Vec<String> {
        let names = std::mem::take(&mut self.names).into_iter();
        names
            .enumerate()
            .filter_map(|(index, name)| {
                let name = name?;
                // A descriptor can only be closed as what it is. What is no socket stays open.
                let _ = self.descriptors.take_tcp_listener(index).map(drop);
                let _ = self.descriptors.take_udp_socket(index).map(drop);
                let _ = self.descriptors.take_unix_listener(index).map(drop);
                let _ = self.descriptors.take_unix_datagram(index).map(drop);
                Some(name)
            })
            .collect()
    }
}

/// A name for each of `count` descriptors, from `LISTEN_FDNAMES` as it was written.
fn name_each(count: usize, written: Option<&str>) -> Vec<Option<String>> {
    let named = written.into_iter().flat_map(|names| names.split(':'));
    let names = named.chain(std::iter::repeat(NAMELESS)).map(|name| Some(name.to_owned()));
    names.take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_named_in_their_order() {
        let names = |count, written| -> Vec<String> {
            name_each(count, written).into_iter().flatten().collect()
        };
        assert_eq!(names(2, Some("https:http")), ["https", "http"]);
        assert_eq!(names(2, Some("http")), ["http", NAMELESS]);
        assert_eq!(names(1, Some("http:https")), ["http"]);
        assert_eq!(names(1, None), [NAMELESS]);
        assert!(names(0, Some("http")).is_empty());
    }
}
