//! Which network interfaces carry pictures, by their names.

use std::fmt;

use super::value::FromText;

/// The bridges of container and virtual-machine programs on their host, as those name them: what is behind one reaches the host's other
/// addresses too, and nobody else reaches anything by it. Docker's further networks are `br-` and twelve digits.
const BRIDGES: [&str; 6] = ["docker*", "br-????????????", "podman*", "virbr*", "lxcbr*", "lxdbr*"];

/// The longest name that Linux has for an interface, with room for a pattern.
const MAX_PATTERN: usize = 32;

/// `network.interfaces` and `network.exclude_interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    /// `None`: all.
    only: Option<Vec<Pattern>>,
    except: Vec<Pattern>,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self::new(None, None)
    }
}

impl Interfaces {
    /// Those that one of `only` names, but for those that one of `except` names. Who names what is wanted wants nothing else left out.
    pub(super) fn new(only: Option<Vec<Pattern>>, except: Option<Vec<Pattern>>) -> Self {
        let bridges = || BRIDGES.map(|name| Pattern(name.to_owned())).to_vec();
        let except = except.unwrap_or_else(|| if only.is_some() { Vec::new() } else { bridges() });
        Self { only, except }
    }

    /// Whether the interface of this name carries pictures.
    #[must_use]
    pub fn carries(&self, name: &str) -> bool {
        // An address with a label of its own, such as eth0:1, is on the same interface.
        let name = name.split(':').next().unwrap_or(name);
        let named = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        self.only.as_deref().is_none_or(named) && !named(&self.except)
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[Pattern]| patterns.iter().map(|pattern| pattern.0.as_str()).collect::<Vec<_>>().join(", ");
        match &self.only {
            None => f.write_str("all addresses")?,
            Some(only) => write!(f, "the addresses of {}", list(only))?,
        }
        match &self.except[..] {
            [] => Ok(()),
            _ if *self == Self::default() => f.write_str(" but those of containers' bridges"),
            except => write!(f, " but those of {}", list(except)),
        }
    }
}

/// A name in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where the last star was, and how much of the name it has taken.
        let mut star = None;
        while seen < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || *byte == name[seen] => {
                    at += 1;
                    seen += 1;
                }
                Some(_) | None => {
                    let Some((place, taken)) = star else { return false };
                    star = Some((place, taken + 1));
                    (at, seen) = (place + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl FromText for Pattern {
    const ALLOWED: &'static str =
        "the name of a network interface as `ip link` lists it, such as \"eth0\", or with * for the rest, such as \"wl*\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let fits =
            (1..=MAX_PATTERN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        fits.then(|| Self(text.to_owned()))
            .ok_or_else(|| format!("{text:?} is no interface's name; write {}", Self::ALLOWED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(names: &[&str]) -> Option<Vec<Pattern>> {
        Some(names.iter().map(|name| Pattern::from_text(name).expect("a pattern")).collect())
    }

    #[test]
    fn a_star_stands_for_any_characters_and_a_question_mark_for_one() {
        for (pattern, name, is_it) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth0", "eth", false),
            ("eth*", "eth", true),
            ("*", "wg0", true),
            ("*0", "wlan10", true),
            ("*0", "wlan01", false),
            ("e*p?s*", "enp3s0", true),
            ("e*p?s*", "enp30s0", false),
            ("*a*b*a", "xaybza", true),
            ("?", "", false),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).matches(name), is_it, "{pattern} and {name}");
        }
    }

    #[test]
    fn bridges_of_containers_are_left_out_unless_the_file_says_which() {
        let shipped = Interfaces::default();
        for (name, carries) in [
            ("eth0", true),
            ("eth0:1", true),
            ("wg0", true),
            ("br-lan", true),
            ("br0", true),
            ("docker0", false),
            ("docker0:1", false),
            ("br-0a1b2c3d4e5f", false),
            ("virbr0", false),
        ] {
            assert_eq!(shipped.carries(name), carries, "{name}");
        }
        let only = Interfaces::new(patterns(&["docker0", "eth*"]), None);
        assert!(only.carries("docker0") && only.carries("eth1") && !only.carries("wg0"));
        let both = Interfaces::new(patterns(&["eth*"]), patterns(&["eth1"]));
        assert!(both.carries("eth0") && !both.carries("eth1") && !both.carries("docker0"));
        let except = Interfaces::new(None, patterns(&["wg*"]));
        assert!(
            except.carries("docker0") && !except.carries("wg0"),
            "the list is what is left out, and nothing else"
        );
    }
}
