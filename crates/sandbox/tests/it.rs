//! The crate at its border: real sandboxes, hostile programs in them.

mod it {
    mod basics;
    pub mod support;
}
