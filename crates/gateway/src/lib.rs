#![doc = include_str!("../README.md")]

mod body;
mod budget;
mod charge;
mod check;
mod config;
mod connection;
mod count;
mod door;
mod error;
mod exchange;
mod forward;
mod gateway;
mod headers;
mod key;
mod meter;
mod metrics;
mod observer;
mod reply;
mod route;
mod trace;
mod upstream;

pub use config::{GatewayConfig, Limits, Timeouts};
pub use door::{Door, DoorSpec, Grant, ModelSpent, Spent};
pub use error::Error;
pub use gateway::Gateway;
pub use metrics::Metrics;
pub use observer::{Exchange, MIN_OBSERVER_PLACES, RefusedFor};

/// The line that a connection on a door's socket begins with, before HTTP/1.1.
pub const OPENING_LINE: &str = "wardian/1 gateway\n";
