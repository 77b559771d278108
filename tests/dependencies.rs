//! What is linked keeps to `deny.toml`. cargo-deny says more, but takes minutes to install; this takes a second.

use std::collections::BTreeSet;
use std::process::Command;

/// What a cargo command prints.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--locked")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn rules() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    let text = std::fs::read_to_string(path).expect("deny.toml is there");
    text.parse().expect("deny.toml is TOML")
}

fn strings(values: &toml::Value, key: Option<&str>) -> BTreeSet<String> {
    let values = values.as_array().expect("a list");
    values
        .iter()
        .map(|value| key.map_or(value, |key| &value[key]))
        .map(|value| value.as_str().expect("a string").to_owned())
        .collect()
}

/// Name and licence expression of every package that agent and probe are built from.
fn linked() -> Vec<(String, String)> {
    let rules = rules();
    let mut arguments = vec![
        "tree",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--all-features",
        "--format",
        "{p}|{l}",
    ];
    arguments.extend(["-p", "peercam", "-p", "peercam-probe"]);
    let targets = strings(&rules["graph"]["targets"], None);
    for target in &targets {
        arguments.extend(["--target", target]);
    }
    let tree = cargo(&arguments);
    let packages: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, licence)| {
            (
                package.split(' ').next().unwrap_or_default().to_owned(),
                licence.trim_end_matches(" (*)").to_owned(),
            )
        })
        .collect();
    assert!(
        packages.iter().any(|(name, _)| name == "str0m"),
        "what is linked cannot be read:\n{tree}"
    );
    packages
}

/// Whether an SPDX expression (with cargo's old `/` for OR) can be met by what is allowed.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens: Vec<&str> = spaced.split_whitespace().rev().collect();
    either(&mut tokens, allowed) && tokens.is_empty()
}

fn either(tokens: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut fine = both(tokens, allowed);
    while tokens.last() == Some(&"OR") {
        tokens.pop();
        fine |= both(tokens, allowed);
    }
    fine
}

fn both(tokens: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut fine = one(tokens, allowed);
    while tokens.last() == Some(&"AND") {
        tokens.pop();
        fine &= one(tokens, allowed);
    }
    fine
}

fn one(tokens: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let Some(token) = tokens.pop() else { return false };
    if token == "(" {
        return either(tokens, allowed) && tokens.pop() == Some(")");
    }
    let mut licence = token.to_owned();
    if tokens.last() == Some(&"WITH") {
        tokens.pop();
        licence = format!("{licence} WITH {}", tokens.pop().unwrap_or_default());
    }
    allowed.contains(&licence)
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in [
        "MIT",
        "GPL-3.0/MIT",
        "GPL-3.0 OR MIT",
        "ISC AND (GPL-3.0 OR MIT)",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "ISC AND (GPL-3.0 OR AGPL-3.0)",
        "Apache-2.0",
        "(MIT",
        "MIT MIT",
    ] {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_licence_is_one_that_is_allowed() {
    let allowed = strings(&rules()["licenses"]["allow"], None);
    for (name, licence) in linked() {
        assert!(
            permits(&licence, &allowed),
            "{name} is under “{licence}”, which deny.toml does not allow"
        );
    }
}

#[test]
fn nothing_that_is_banned_is_linked() {
    let banned = strings(&rules()["bans"]["deny"], Some("crate"));
    for (name, _) in linked() {
        assert!(
            !banned.contains(&name),
            "{name} is banned in deny.toml, which says why; `cargo tree -i {name}` says who wants it"
        );
    }
}

#[test]
fn everything_comes_from_the_public_registry() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock: toml::Table = std::fs::read_to_string(path)
        .expect("Cargo.lock is there")
        .parse()
        .expect("it is TOML");
    for package in lock["package"].as_array().expect("packages") {
        let source = package
            .get("source")
            .map_or("this workspace", |source| source.as_str().expect("a string"));
        let known = ["this workspace", "registry+https://github.com/rust-lang/crates.io-index"].contains(&source);
        assert!(known, "{:?} comes from {source}", package["name"]);
    }
}
