//! What is told about what happened: one `record` per request, the `line` of the `access_log` that
//! it ends in, the diagnostics on standard error (`log`), and what none of them may say
//! (`redact`). `clock` tells a line's time, and `json` writes its members.

pub mod access_log;
mod clock;
mod json;
mod line;
pub mod log;
pub mod metrics;
pub mod process;
pub mod record;
pub mod redact;
