//! What a running process holds, as Linux tells it; elsewhere nothing is known of it.

use std::fs;

/// Memory and descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Resident, in KiB.
    pub memory: u64,
    /// The most that was ever resident, in KiB.
    pub peak: u64,
    /// Open ones.
    pub descriptors: usize,
}

impl Weight {
    /// Of the process with this id.
    pub fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        Some(Self { memory: kibibytes("VmRSS:")?, peak: kibibytes("VmHWM:")?, descriptors })
    }
}
