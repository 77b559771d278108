//! Holds the picture in ARCHITECTURE.md true: who may use whom, how long a file may be, where `unsafe` may live.
//!
//! That every configuration key is documented is held by the tests beside `src/config`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may use: the table of ARCHITECTURE.md. `main` and `agent` may use everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("media", &[]),
    ("v4l2", &[]),
    ("capture", &["media", "v4l2", "config"]),
    ("encode", &["media", "v4l2"]),
    ("hub", &["media"]),
    ("session", &["media", "protocol"]),
    ("relay", &[]),
    ("protocol", &["media"]),
    ("identity", &["protocol"]),
    ("memory", &[]),
    ("net", &["session", "relay"]),
    ("signaling", &["protocol"]),
    ("control", &["protocol"]),
    ("record", &["media", "hub"]),
    ("http", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
    (
        "metrics",
        &[
            "hub",
            "net",
            "session",
            "signaling",
            "control",
            "protocol",
            "media",
            "config",
            "http",
        ],
    ),
];

/// Walls with a door in them: room, what it uses, and why.
const DOORS: &[(&str, &str, &str)] = &[
    (
        "capture",
        "encode",
        "the test pattern makes raw frames, and a raw camera's are encoded, on the thread that captures them",
    ),
    ("config", "media", "a bit rate in the configuration is media's `Bitrate`"),
    (
        "signaling",
        "config",
        "the broker's address, user and back-off come as one parsed section",
    ),
    ("http", "config", "the page's address comes as one parsed section"),
    ("control", "hub", "a request names a stream, and asks its encoder for a key frame"),
    ("control", "net", "what concerns a session goes to the driver that owns it"),
    ("net", "hub", "the driver takes pictures from its subscriptions"),
    ("net", "media", "what it takes from them"),
    ("net", "protocol", "the driver hands `Envelope`s to the session that they are for"),
    ("net", "tls", "TURN over TLS trusts whom the broker's connection trusts"),
    ("signaling", "tls", "the broker's connection"),
    ("net", "config", "addresses and port come as one parsed section"),
    (
        "signaling",
        "control",
        "the carrier hands its `Envelope`s to the dispatcher and awaits the replies",
    ),
    (
        "control",
        "net",
        "what concerns a session is carried out by the driver that owns it",
    ),
    ("control", "media", "`camera.set` becomes an order for the camera's thread"),
    ("control", "hub", "hello tells the streams and their formats"),
];

/// Use everything, and are used by nothing in the library.
const ROOTS: [&str; 3] = ["main", "agent", "lib"];

const SOFT_LIMIT: usize = 400;
const HARD_LIMIT: usize = 700;

#[test]
fn a_room_uses_only_the_rooms_that_the_architecture_allows() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let room = room_of(&path);
        if ROOTS.contains(&room.as_str()) || is_test_file(&path) {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room `{room}` is not in the table of this test", path.display()));
            continue;
        };
        for used in rooms_used(&path, &room) {
            let door = DOORS.iter().any(|(from, to, _)| *from == room && *to == used);
            if !allowed.contains(&used.as_str()) && !door {
                wrong.push(format!(
                    "{}: `{room}` may not use `{used}`, only {allowed:?}; move the code, or the wall, here and in ARCHITECTURE.md",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_probe_uses_the_public_protocol_only() {
    for path in rust_files("crates/probe") {
        let mut used = names_after("peercam", &tokens(&code_only(&read(&path))));
        used.retain(|name| name != "protocol" && name != "media");
        assert!(
            used.is_empty(),
            "{}: the probe may use peercam::protocol and peercam::media, not {used:?}",
            path.display()
        );
    }
}

#[test]
fn unsafe_has_its_homes() {
    for path in ["src", "crates", "tests", "benches"].into_iter().flat_map(rust_files) {
        // The kernel's video devices, and one call to the C library.
        if ["v4l2", "memory"].contains(&room_of(&path).as_str()) {
            continue;
        }
        let found = tokens(&code_only(&read(&path))).iter().any(|token| token == "unsafe");
        assert!(
            !found,
            "{}: `unsafe` belongs in src/v4l2; use a crate's safe interface",
            path.display()
        );
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut long = Vec::new();
    for path in ["src", "crates", "web"].into_iter().flat_map(|folder| files(folder, &["rs", "js"])) {
        let lines = without_tests(&read(&path)).lines().count();
        if lines > SOFT_LIMIT && !is_test_file(&path) {
            println!("{}: {lines} lines; above {SOFT_LIMIT}, think of taking it apart", path.display());
        }
        if lines > HARD_LIMIT && !is_test_file(&path) {
            long.push(format!("{}: {lines} lines, at most {HARD_LIMIT}", path.display()));
        }
    }
    assert!(
        long.is_empty(),
        "take apart, tests beside the code don't count:\n{}",
        long.join("\n")
    );
}

#[test]
fn the_readers_of_this_test_see_what_is_there() {
    let code = "use crate::{media::{annexb, Bitrate}, hub}; /* crate::agent */ // crate::http\n\
                fn f<'a>(x: &'a str) { crate::net :: go(\"crate::record\", r#\"crate::v4l2 \"x\"#, 'c', '\"'); super::super::relay::x(); }\n\
                mod inner { use super::own; }\n#[cfg(test)]\nmod tests { use crate::agent; }\n";
    let used = used_in(&without_tests(code), &["session".to_owned(), "rate".to_owned()]);
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["hub", "media", "net", "relay"]);
    assert!(rust_files("src").len() > 10, "the source tree was not found");
}

fn rooms_used(path: &Path, room: &str) -> BTreeSet<String> {
    let mut used = used_in(&without_tests(&read(path)), &module_of(path));
    used.remove(room);
    used.retain(|name| ROOMS.iter().any(|(known, _)| known == name) || ROOTS.contains(&name.as_str()));
    used
}

/// The top-level modules that `code` in `module` names, through `crate::` or through enough `super::`.
fn used_in(code: &str, module: &[String]) -> BTreeSet<String> {
    let tokens = tokens(&code_only(code));
    let mut used = names_after("crate", &tokens);
    let supers: Vec<String> = (0..module.len()).flat_map(|_| ["super".to_owned(), "::".to_owned()]).collect();
    for start in 0..tokens.len() {
        let begins = start == 0 || tokens[start - 1] != "::";
        if begins && !supers.is_empty() && tokens[start..].starts_with(&supers) {
            let rest: Vec<String> = std::iter::once("super".to_owned())
                .chain(tokens[start + supers.len() - 1..].iter().cloned())
                .take(64)
                .collect();
            used.extend(names_at(&rest));
        }
    }
    used.remove("super");
    used
}

/// Every first name after `root::`, also in braces.
fn names_after(root: &str, tokens: &[String]) -> BTreeSet<String> {
    (0..tokens.len())
        .filter(|&start| tokens[start] == root && (start == 0 || tokens[start - 1] != "::"))
        .flat_map(|start| names_at(&tokens[start..]))
        .collect()
}

/// The names in `root :: name` or `root :: { name …, name … }`, where `tokens` begins with the root.
fn names_at(tokens: &[String]) -> Vec<String> {
    let [_, colons, first, rest @ ..] = tokens else { return Vec::new() };
    if colons != "::" {
        return Vec::new();
    }
    if first != "{" {
        return vec![first.clone()];
    }
    let mut names = Vec::new();
    let (mut depth, mut fresh) = (1, true);
    for token in rest {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => fresh = true,
            name if depth == 1 && fresh => {
                names.push(name.to_owned());
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut word = c.to_string();
            while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                word.push(next);
            }
            tokens.push(word);
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            tokens.push("::".to_owned());
        } else if !c.is_whitespace() {
            tokens.push(c.to_string());
        }
    }
    tokens
}

/// Rust without comments and without what strings say.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut code, mut i) = (String::new(), 0);
    while i < chars.len() {
        let word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
        } else if at(i) == 'r' && (at(i + 1) == '"' || at(i + 1) == '#') && (!word_before || code.ends_with('b')) {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            i += 1 + hashes;
            if at(i) != '"' {
                continue;
            }
            i += 1;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            // A character; anything else with such a mark is a lifetime.
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            code.push(at(i));
            i += 1;
        }
    }
    code
}

/// The code before its own tests, which stand last.
fn without_tests(source: &str) -> String {
    let mut lines = source.lines().peekable();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod ")) {
            break;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// `src/net/driver.rs` → `["net", "driver"]`, `src/net/mod.rs` → `["net"]`.
fn module_of(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix("src").unwrap_or(path).with_extension("");
    inside
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .filter(|part| part != "mod")
        .collect()
}

fn room_of(path: &Path) -> String {
    if !path.starts_with("src") {
        return String::new();
    }
    module_of(path).first().cloned().unwrap_or_default()
}

fn is_test_file(path: &Path) -> bool {
    let beside_the_code = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_tests"));
    beside_the_code || path.iter().any(|part| part == "tests" || part == "tests.rs")
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    files(folder, &["rs"])
}

/// Paths from the repository's top, sorted; none of others' making.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry of the source tree").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | "node_modules" | "vendor") {
                    folders.push(path);
                }
            } else if extensions.iter().any(|extension| name.ends_with(&format!(".{extension}"))) && !name.contains(".min.") {
                found.push(path.strip_prefix(root).expect("a path below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}
