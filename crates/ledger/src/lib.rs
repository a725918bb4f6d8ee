#![doc = include_str!("../README.md")]

mod price;

pub use price::{Cost, ModelPrice, PriceError, PriceTable, RequestBound};
