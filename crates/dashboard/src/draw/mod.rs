//! What pages are drawn from: the frame, tables, charts, numbers, times and texts.

pub mod chart;
pub mod graph;
pub mod json;
pub mod number;
pub mod parts;
pub mod shell;
pub mod text;
pub mod time;
