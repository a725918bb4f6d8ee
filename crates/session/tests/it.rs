//! The engine at its own boundary: real sandboxes, gateway, store and agent, and the scripted model.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod it {
    mod agent;
    mod command;
    mod files;
    mod hostile;
    mod life;
    mod managed;
    mod retention;
    mod world;
}
