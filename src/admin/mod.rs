//! The admin interface: what the process tells about itself and lets be done to it, over a Unix
//! socket of its own (`listen`, `server`). `query` reads what is asked for, `status` gathers what
//! is told, `snapshot` has the types of it; the commands in `cli` are clients.

pub mod listen;
pub mod query;
pub mod server;
pub mod snapshot;
pub mod status;
