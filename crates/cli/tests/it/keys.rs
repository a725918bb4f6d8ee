//! The real key is nowhere but in the gateway's process.
