//! `open` for hours, in short. `cargo run --example soak` is the long form.

use std::path::Path;

use headlamp_test_support::{Amount, soak};

use crate::BINARY;

#[test]
fn pods_come_and_go_and_connections_are_cut_and_nothing_fails_or_grows() {
    let amount = Amount { replacements: 5, cuts: 2, megabytes: 64, watches: 150 };
    let report = soak(Path::new(BINARY), amount, &|_| {});
    assert!(report.failures().is_empty(), "{report}");
}
