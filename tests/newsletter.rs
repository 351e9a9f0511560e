//! Runs the tests of `examples/newsletter.rs`, which show the test kit.

#[allow(dead_code)] // Its `main` is the example itself.
#[path = "../examples/newsletter.rs"]
mod newsletter;
