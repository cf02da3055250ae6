//! The life of the process: what is made of a configuration (`assembly`), the workers that run it
//! and the phases they live through, and what moves the process on (`control`): signals, reloads,
//! drains, certificates that are renewed, and whoever asks by the admin interface. The
//! `supervisor` is told. `memory` gives back what a crowd has left behind.

pub mod assembly;
pub mod control;
pub mod memory;
pub mod phases;
mod reload;
mod renewal;
pub mod signals;
pub mod source;
pub mod standing;
pub mod supervisor;
pub mod worker;
