//! `tidegate close` and `tidegate reload`: said once, done by the process.

use super::ask::{Query, Socket};
use super::{CommandError, escape, print};
use crate::admin::snapshot::Done;

/// Has sessions closed; the answer comes when that has begun.
pub(super) async fn close(socket: &Socket, query: &Query) -> Result<(), CommandError> {
    say(&socket.act("/sessions/close", query).await?)
}

/// Has the configuration read again; the answer comes when it runs, or when it is refused.
pub(super) async fn reload(socket: &Socket) -> Result<(), CommandError> {
    say(&socket.act("/reload", &Query::default()).await?)
}

/// Prints what the process says it has done.
pub(super) fn say(done: &Done) -> Result<(), CommandError> {
    print(&format!("{}\n", escape::prose(done.text.trim_end())))
}
