//! What is told about what happened: one `record` per request, the `access_log` it ends in, and
//! the diagnostics on standard error (`log`).

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod process;
pub mod record;
mod redact;
