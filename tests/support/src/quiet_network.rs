//! Programs that do not hear that the machine's network changes.
//!
//! Chromium gives up requests that wait for a connection when an address of the machine comes or
//! goes (`ERR_NETWORK_CHANGED`). Each pod of a cluster on the same machine brings one, and so would
//! fail a test that has nothing to do with it. The kernel tells of addresses by sockets of
//! `NETLINK_ROUTE`: a program that gets none takes the network for one that stays as it is.

use std::io;
use std::process::{Child, Command};

/// Starts a program that gets no such socket, nor do its children.
#[cfg(target_os = "linux")]
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, SeccompCondition, SeccompFilter,
        SeccompRule, apply_filter,
    };

    let is = |argument, value: i32| SeccompCondition::new(argument, Dword, Eq, value.unsigned_abs().into());
    let of_addresses = is(0, libc::AF_NETLINK).and_then(|family| Ok(vec![family, is(2, libc::NETLINK_ROUTE)?]));
    let rule = of_addresses.and_then(SeccompRule::new);
    let rules = [(libc::SYS_socket, vec![rule.expect("a rule")])].into();
    let refused = SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs());
    let machine = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, machine).expect("a filter");
    let filter = BpfProgram::try_from(filter).expect("a program");
    // What a thread is refused its children are too, and no other thread is.
    std::thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            apply_filter(&filter).expect("a filter");
            command.spawn()
        });
        spawning.join().expect("a thread")
    })
}

/// The same, where the kernel tells in another way: it is heard.
#[cfg(not(target_os = "linux"))]
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn filters(spawn: impl Fn(&mut Command) -> io::Result<Child>) -> u32 {
        let child = spawn(Command::new("cat").arg("/proc/self/status").stdout(Stdio::piped())).unwrap();
        let status = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        filters.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_program_has_one_filter_more_and_this_thread_has_none_more() {
        let before = filters(Command::spawn);
        assert_eq!(filters(spawn), before + 1);
        assert_eq!(filters(Command::spawn), before);
    }
}
