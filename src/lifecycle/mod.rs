//! The life of the process: what is made of a configuration (`assembly`), the workers that run it
//! and the phases they live through, and what moves the process on (`control`): signals, reloads,
//! drains, certificates that are renewed, and whoever asks by the admin interface. The
//! `supervisor` is told.

pub mod assembly;
pub mod control;
pub mod phases;
mod reload;
mod renewal;
pub mod signals;
pub mod source;
pub mod standing;
pub mod supervisor;
pub mod worker;
