//! Hours of `open` in a few minutes: `cargo run --release --example soak`.
//!
//! Pods of Headlamp are replaced and all connections to the API server cut under a steady load of small
//! requests; two lists are kept by watches meanwhile, as a page keeps them; many watches are open at
//! once; mebibytes go each way; streams end badly. It prints what it saw, and fails if a request
//! failed, a list differs from the cluster's, a byte was wrong, or memory or descriptors grew.
//!
//! `--replacements N` (100), `--cuts N` (20), `--megabytes N` each way (1024), `--watches N` (150),
//! `--binary FILE` (the one beside this program, which is built first).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its reader")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use headlamp_test_support::{Amount, soak};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let report = Asked::read().and_then(|asked| {
        let binary = asked.binary.map_or_else(build, Ok)?;
        Ok(soak(&binary, asked.amount, &|step| eprintln!("{step}")))
    });
    match report {
        Ok(report) => {
            println!("{report}");
            if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

struct Asked {
    amount: Amount,
    binary: Option<PathBuf>,
}

impl Asked {
    fn read() -> Result<Self> {
        let mut amount = Amount { replacements: 100, cuts: 20, megabytes: 1024, watches: 150 };
        let mut binary = None;
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{word}` has no value"))?;
            match word.as_str() {
                "--replacements" => amount.replacements = value.parse()?,
                "--cuts" => amount.cuts = value.parse()?,
                "--megabytes" => amount.megabytes = value.parse()?,
                "--watches" => amount.watches = value.parse()?,
                "--binary" => binary = Some(PathBuf::from(value)),
                _ => return Err(format!("`{word}` is not known").into()),
            }
        }
        Ok(Self { amount, binary })
    }
}

/// The binary of the same profile as this program.
fn build() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).ok_or("this program has no folder")?;
    let profile = folder.file_name().unwrap_or_default().to_string_lossy().replace("debug", "dev");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        // What cargo tells this program of itself would make build scripts run again.
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    // Together with this example, for the same dependencies: none is compiled twice.
    command.args(["build", "--bin", "kubectl-headlamp", "--example", "soak", "--profile", &profile]);
    if !command.arg("--manifest-path").arg(manifest).status()?.success() {
        return Err("kubectl-headlamp could not be built".into());
    }
    Ok(folder.join("kubectl-headlamp"))
}
