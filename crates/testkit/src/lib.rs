#![doc = include_str!("../README.md")]

pub mod disk;
pub mod tidy;
