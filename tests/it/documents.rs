//! What `tests/README.md` says of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rows of the table under this heading, without its head.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(here("tests/README.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn here(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The tests that a cell names: `file::name` of a file in tests/it, `src/file.rs::name` of another.
fn tests_in(cell: &str) -> Vec<(String, String)> {
    let named = cell.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::"));
    named
        .map(|(file, name)| {
            let path = if file.contains('/') { file.to_owned() } else { format!("tests/it/{file}.rs") };
            (path, name.to_owned())
        })
        .collect()
}

/// Whether the file has a function of this name that is a test.
fn is_test(path: &str, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(here(path)) else { return false };
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    // The lines above the function's own.
    let above = before.rsplit_once('\n').map_or("", |(above, _)| above);
    let mut attributes = above.lines().rev().map(str::trim).take_while(|line| line.starts_with(['#', '/']));
    attributes.any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

#[test]
fn every_test_named_in_the_tables_exists() {
    let all: Vec<Vec<String>> = rows("Parity").into_iter().chain(rows("Hostile inputs")).collect();
    let named: Vec<(String, String)> = all.iter().flat_map(|row| tests_in(row.last().unwrap())).collect();
    assert!(named.len() > 150, "only {} tests are named", named.len());
    let missing: BTreeSet<&(String, String)> = named.iter().filter(|(path, name)| !is_test(path, name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_line_of_the_tables_names_a_test_or_a_decision() {
    for row in rows("Parity").into_iter().chain(rows("Hostile inputs")) {
        let proof = row.last().unwrap();
        let decided = ["decided", "not part of signing in yet"].iter().any(|words| proof.contains(words));
        assert!(decided || !tests_in(proof).is_empty(), "{row:?}");
    }
}

#[test]
fn every_line_of_the_parity_list_has_its_row() {
    let mut seen = BTreeSet::new();
    for row in rows("Parity") {
        let (first, last) = row[0].split_once('-').unwrap_or((&row[0], &row[0]));
        let lines = first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap();
        for line in lines {
            assert!(seen.insert(line), "{line} has two rows");
        }
    }
    assert_eq!(seen, (1..=99).collect());
}
