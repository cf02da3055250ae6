//! The client's way in: sockets (`bind`), the loop that accepts (`accept`), and how many may come
//! (`limits`).

pub mod accept;
pub mod bind;
pub mod limits;
