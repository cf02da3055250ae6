//! The life of the process: its phases, the workers that live through them, and the signals that
//! move it on.

pub mod phases;
pub mod signals;
pub mod worker;
