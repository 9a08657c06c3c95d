//! The local legs of a track: a sink turns packets into access units, a source turns access units into packets.

pub mod sink;
pub mod source;

#[cfg(test)]
mod tests;
