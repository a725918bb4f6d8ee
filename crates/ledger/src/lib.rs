#![doc = include_str!("../README.md")]

mod amount;
mod bound;
mod cost;
mod data;
mod table;

pub use bound::{HIDDEN_PROMPT_TOKENS, RequestBound};
pub use cost::Cost;
pub use data::PriceError;
pub use table::{ModelPrice, PriceTable};
