#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use clap::{Command, FromArgMatches};

use super::*;

fn arguments(words: &str) -> Result<Arguments> {
    let command = Arguments::augment_args(Command::new("open")).no_binary_name(true);
    let matches = command.try_get_matches_from(words.split_whitespace()).unwrap();
    let arguments = Arguments::from_arg_matches(&matches).unwrap();
    arguments.check().map(|()| arguments)
}

#[test]
fn the_page_never_has_the_port_of_sign_ins() {
    assert_eq!(arguments("--port 8000").unwrap_err().kind(), Kind::Usage);
    assert!(arguments("--port 8000 --sign-in headlamp").is_ok());
    assert!(arguments("--port 20001").is_ok());
}

#[test]
fn other_machines_are_let_in_only_when_that_is_said() {
    assert_eq!(arguments("--address 0.0.0.0 --expose-to-network").unwrap_err().kind(), Kind::Usage);
    assert_eq!(arguments("--address 10.0.0.1").unwrap_err().kind(), Kind::Usage);
    assert!(arguments("--address 127.0.0.2").is_ok());
    assert!(arguments("--address ::1").is_ok());
    assert!(arguments("--address 10.0.0.1 --expose-to-network").is_ok());
}

#[test]
fn a_path_that_leads_elsewhere_is_refused_before_anything_is_asked() {
    for path in ["//evil.example", "/../x", "/.kubectl-headlamp/start/x", "/c%2fx"] {
        for mode in ["", " --sign-in headlamp"] {
            let error = arguments(&format!("--path {path}{mode}")).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.message().contains(path), "{error}");
        }
    }
    assert!(arguments("--path c/main/pods?namespace=a").is_ok());
}

#[test]
fn what_a_plain_forward_cannot_do_is_refused() {
    assert_eq!(arguments("--sign-in headlamp --ui /tmp").unwrap_err().kind(), Kind::Usage);
    assert_eq!(arguments("--sign-in headlamp --address 127.0.0.2").unwrap_err().kind(), Kind::Usage);
}
