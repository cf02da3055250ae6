//! Frames printed while they pass, for a person who debugs: never payload unless asked for it.

use super::sessions::Entry;
use crate::config::Trace;
use crate::telemetry::record::Side;
use crate::ws::frame::FrameHeader;

/// Who says a frame that is printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Speaker {
    /// A side, to the other one.
    Peer(Side),
    /// We do, to this side.
    Tidegate(Side),
}

/// So much of a payload is printed.
const PRINTED_BYTES: usize = 128;

/// Prints a frame whose payload, or the beginning of it, is at the front of `payload`.
#[cold]
pub(super) fn print_frame(
    trace: Trace,
    speaker: Speaker,
    header: &FrameHeader,
    payload: &[u8],
    session: &Entry,
) {
    let direction = match speaker {
        Speaker::Peer(Side::Client) => "client > upstream",
        Speaker::Peer(Side::Upstream) => "upstream > client",
        Speaker::Tidegate(Side::Client) => "tidegate > client",
        Speaker::Tidegate(Side::Upstream) => "tidegate > upstream",
    };
    let session = format!("{:016x}", session.record().id());
    let (opcode, fin, len) = (header.opcode.name(), header.fin, header.payload_len);
    let rsv = header.reserved;
    if trace == Trace::Headers {
        tracing::info!(target: "frames", %session, direction, opcode, fin, rsv, len, "frame");
        return;
    }
    let whole = usize::try_from(len).unwrap_or(usize::MAX).min(payload.len());
    let shown = header.unmasked(&payload[..whole.min(PRINTED_BYTES)]);
    let payload = shown.escape_ascii();
    tracing::info!(target: "frames", %session, direction, opcode, fin, rsv, len, %payload, "frame");
}
