//! What is wrong with a configuration: file, line, column, the line itself with a caret, and a sentence that helps.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why there is no configuration. Its `Display` is several lines for people; [`ConfigError::summary`] is one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("reading {}: {error}; {}", path.display(), advice(error))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is larger than [`super::MAX_BYTES`].
    #[error("{} is larger than 1 MiB; that is not a configuration, check the path", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{} is not text (UTF-8); write it again with a text editor", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// The file has become empty.
    #[error("{} is empty, and was not; to have everything as shipped, write config/peercam.toml there", path.display())]
    Emptied {
        /// Which file.
        path: PathBuf,
    },
    /// The file says something that is not allowed.
    #[error("{0}")]
    Invalid(Box<Invalid>),
}

impl ConfigError {
    /// One line: where, and what is wrong.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::NotText { .. } | Self::Emptied { .. } => self.to_string(),
            Self::Invalid(invalid) => invalid.headline(),
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "copy config/peercam.toml there, or name another file with --config",
        io::ErrorKind::PermissionDenied => "let the user that runs peercam read it",
        io::ErrorKind::IsADirectory => "name the file in it with --config",
        _ => "is the disk in order?",
    }
}

/// A place in the file, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The file.
    pub origin: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong and what is allowed, without the place.
    pub message: String,
    /// For an unknown key: all keys that are allowed there.
    pub allowed_keys: Vec<String>,
    excerpt: String,
}

impl Invalid {
    fn headline(&self) -> String {
        format!("{}:{}:{}: {}", self.origin.display(), self.line, self.column, self.message)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.headline(), self.excerpt)?;
        if !self.allowed_keys.is_empty() {
            write!(f, "\nallowed here: {}", self.allowed_keys.join(", "))?;
        }
        Ok(())
    }
}

/// Something wrong at a span of the text, before it is known what file the text came from.
#[derive(Debug)]
pub(super) struct Fault {
    pub span: Range<usize>,
    pub message: String,
    pub allowed_keys: Vec<String>,
}

impl Fault {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            allowed_keys: Vec::new(),
        }
    }

    /// Puts what `toml` says of a text that is no TOML into words for somebody who doesn't know it.
    pub fn from_toml(error: &toml::de::Error, text: &str) -> Self {
        let raw = error.message().trim_end();
        let span = error.span().unwrap_or(0..0);
        if raw.starts_with("duplicate key") {
            return Self::new(span, "this key or section is there a second time; keep one of them");
        }
        // The parser takes a bare word for a number or a truth value that went wrong: `info` for `inf`, `tcp` for `true`.
        let before = text.get(..span.start).unwrap_or_default().trim_end_matches([' ', '\t']);
        let is_word = text
            .get(span.start..)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic()));
        let hint = if raw.contains("string values must be quoted") || raw.contains("unquoted") || (before.ends_with('=') && is_word) {
            "; text stands in double quotes, such as \"this\""
        } else {
            ""
        };
        Self::new(span, format!("this is not TOML: {raw}{hint}"))
    }

    /// Puts what `serde` says of a TOML that is no configuration into the same words.
    pub fn from_serde(error: &toml::de::Error, text: &str) -> Self {
        let raw = error.message().trim_end();
        let span = error.span().unwrap_or(0..0);
        let quoted = |part: &str| -> Vec<String> { part.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        if let Some(rest) = raw.strip_prefix("unknown field ") {
            let mut names = quoted(rest).into_iter();
            let key = names.next().unwrap_or_default();
            let mut allowed_keys: Vec<String> = names.collect();
            allowed_keys.sort();
            let message = match nearest(&key, &allowed_keys) {
                Some(known) => format!("unknown key `{key}`; did you mean `{known}`?"),
                None => format!("unknown key `{key}`; it is misspelt, or it belongs in another section"),
            };
            return Self {
                span,
                message,
                allowed_keys,
            };
        }
        if let Some(rest) = raw.strip_prefix("missing field ") {
            let key = quoted(rest).pop().unwrap_or_default();
            return Self::new(first_line(span, text), format!("this section needs the key `{key}`"));
        }
        for prefix in ["invalid type: ", "invalid value: "] {
            if let Some((found, expected)) = raw.strip_prefix(prefix).and_then(|rest| rest.split_once(", expected ")) {
                let span = first_line(span, text);
                if found == "map" && expected == "a sequence" {
                    let what = "this section may be there several times, so its name stands in double brackets, such as [[camera]]";
                    return Self::new(span, what);
                }
                return Self::new(span, format!("expected {}, found {}", plain_type(expected), plain_found(found)));
            }
        }
        // Our own types say it in a sentence.
        Self::new(span, raw)
    }

    pub fn at(self, origin: &Path, text: &str) -> ConfigError {
        let place = Place::of(&self.span, text);
        ConfigError::Invalid(Box::new(Invalid {
            origin: origin.to_owned(),
            line: place.line,
            column: place.column,
            excerpt: place.excerpt(),
            message: self.message,
            allowed_keys: self.allowed_keys,
        }))
    }
}

/// The line of `offset`, from 1.
pub(super) fn line_of(offset: usize, text: &str) -> usize {
    Place::of(&(offset..offset), text).line
}

fn first_line(span: Range<usize>, text: &str) -> Range<usize> {
    let end = text
        .get(span.clone())
        .and_then(|part| part.find('\n'))
        .map_or(span.end, |end| span.start + end);
    span.start..end
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list in square brackets",
        "a map" => "a section",
        "a string" => "text in double quotes",
        other => other,
    }
}

fn plain_found(found: &str) -> String {
    match found {
        "map" => "a section".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => match found.split_once(' ') {
            Some(("string", text)) => format!("the text {text}"),
            Some(("integer" | "boolean", value)) => value.replace('`', ""),
            Some(("floating", value)) => value.trim_start_matches("point ").replace('`', ""),
            _ => found.to_owned(),
        },
    }
}

struct Place<'a> {
    line: usize,
    column: usize,
    content: &'a str,
    /// In characters, at least 1.
    width: usize,
}

impl<'a> Place<'a> {
    fn of(span: &Range<usize>, text: &'a str) -> Self {
        // An error at the end of the text belongs to the last line that says something.
        let mut start = span.start.min(text.len());
        if start == text.len() {
            start = start.min(text.trim_end().len());
        }
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let content = text[line_start..].lines().next().unwrap_or_default();
        let column = text[line_start..start].chars().count();
        let left = content.chars().count().saturating_sub(column);
        let marked = text.get(start..span.end.max(start)).map_or(1, |part| part.chars().count());
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: column + 1,
            content,
            width: marked.min(left).max(1),
        }
    }

    fn excerpt(&self) -> String {
        /// What fits on a terminal's line with the number in front.
        const SHOWN: usize = 100;
        let masked: Vec<char> = mask(self.content).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let from = (self.column + 20).saturating_sub(SHOWN).min(masked.len());
        let shown: String = masked[from..].iter().take(SHOWN).collect();
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let caret = "^".repeat(self.width.min(SHOWN - 20));
        let indent = " ".repeat(self.column - 1 - from.min(self.column - 1));
        format!("{gutter} |\n{number} | {}\n{gutter} | {indent}{caret}", shown.trim_end())
    }
}

/// Hides what may be a secret somebody wrote where none belongs: an error is logged and published. Keeps every column.
fn mask(line: &str) -> String {
    const SECRET: [&str; 5] = ["password", "passwd", "credential", "secret", "token"];
    let key_end = line.find('=').unwrap_or(line.len());
    let key = line[..key_end].trim().to_ascii_lowercase();
    let holds_secret = SECRET.iter().any(|word| key.contains(word)) && !key.ends_with("_file");
    let user_info = line
        .rfind('@')
        .map(|at| (line[..at].find("://").or_else(|| line[..at].find('"')).unwrap_or(0), at));
    line.char_indices()
        .map(|(index, c)| {
            let hidden = (holds_secret && index > key_end && !c.is_whitespace())
                || user_info.is_some_and(|(from, at)| index > from + 2 && index < at);
            if hidden { '*' } else { c }
        })
        .collect()
}

/// The known word somebody most likely meant.
pub(super) fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let reach = (word.chars().count() / 3).clamp(1, 3);
    // The key without its unit or its `_file` is the commonest slip of all.
    let begins = |known: &str| known.strip_prefix(&word).is_some_and(|rest| rest.starts_with('_'));
    known
        .iter()
        .map(|known| (if begins(known) { 0 } else { distance(&word, known) }, known))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many letters to insert, remove, change or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_that_was_meant() {
        let known = ["broker", "camera", "bitrate_kbps", "password_file", "fps", "viewers"].map(str::to_owned);
        for (slip, meant) in [
            ("brokr", Some("broker")),
            ("camrea", Some("camera")),
            ("cameras", Some("camera")),
            ("bitrate", Some("bitrate_kbps")),
            ("password", Some("password_file")),
            ("Bitrate-kbps", Some("bitrate_kbps")),
            ("fsp", Some("fps")),
            ("ptz", None),
            ("horse", None),
        ] {
            assert_eq!(nearest(slip, &known).map(String::as_str), meant, "{slip}");
        }
    }

    #[test]
    fn an_excerpt_never_shows_a_secret_and_keeps_its_columns() {
        for line in [
            "password = \"hunter2\"",
            "url = \"tcp://me:hunter2@broker\"",
            "urls = [\"turn:me:hunter2@t\"]",
            "  api_token='hunter2'",
        ] {
            let masked = mask(line);
            assert!(!masked.contains("hunter2"), "{masked}");
            assert_eq!(masked.chars().count(), line.chars().count());
        }
        assert_eq!(mask("password_file = \"pw\""), "password_file = \"pw\"");
        assert_eq!(mask("name = \"Tür\" # secret"), "name = \"Tür\" # secret");
    }

    #[test]
    fn the_caret_stands_under_the_word_whatever_is_before_it() {
        let text = "a = 1\n\tname = \"Tür\" x\r\n";
        let start = text.find('x').expect("an x");
        let ConfigError::Invalid(invalid) = Fault::new(start..start + 1, "no").at(Path::new("c.toml"), text) else {
            panic!("a fault in the text is invalid text");
        };
        assert_eq!((invalid.line, invalid.column), (2, 15));
        assert_eq!(
            invalid.to_string(),
            "c.toml:2:15: no\n  |\n2 |  name = \"Tür\" x\n  |               ^"
        );
        let long = format!("key = \"{}\" y", "z".repeat(500));
        let shown = Fault::new(long.len() - 1..long.len(), "no").at(Path::new("c"), &long).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find('y'), lines[3].find('^'), "{shown}");
        for (start, end) in [(0, 0), (99, 120), (3, 1)] {
            let _ = Fault::new(start..end, "no").at(Path::new("c"), "").to_string();
        }
    }
}
