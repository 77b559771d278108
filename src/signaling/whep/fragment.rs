//! SDP as WHEP passes it around: fragments (RFC 8840) that name candidates or restart ICE, and the offers and answers they change.

/// Candidates taken from one fragment: as many as a session takes in all.
const MAX_CANDIDATES: usize = 32;

/// A user name fragment and a password (RFC 8839, 5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

/// What a viewer's fragment says.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The ICE session that it speaks of.
    pub credentials: Option<Credentials>,
    /// `candidate:…` lines, without `a=`.
    pub candidates: Vec<String>,
}

impl Fragment {
    /// Reads the body of a PATCH.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut candidates = Vec::new();
        let mut anything = false;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
                return Err("this is no SDP fragment: each line is a letter, `=` and a value");
            };
            anything = true;
            if kind == "a" && value.starts_with("candidate:") {
                candidates.push(value.trim_end().to_owned());
            }
        }
        if !anything {
            return Err("the fragment is empty");
        }
        if candidates.len() > MAX_CANDIDATES {
            return Err("the fragment has more than 32 candidates");
        }
        Ok(Self {
            credentials: credentials(text)?,
            candidates,
        })
    }
}

/// The ICE credentials of an offer, an answer or a fragment. In a bundle all sections have the same.
///
/// # Errors
/// Only one half is there, or it has a length or characters that RFC 8839 does not know.
pub fn credentials(sdp: &str) -> Result<Option<Credentials>, &'static str> {
    let value = |name: &str| sdp.lines().find_map(|line| line.trim_end().strip_prefix(name));
    match (value("a=ice-ufrag:"), value("a=ice-pwd:")) {
        (None, None) => Ok(None),
        (Some(ufrag), Some(pwd)) if is_ice(ufrag, 4) && is_ice(pwd, 22) => Ok(Some(Credentials {
            ufrag: ufrag.to_owned(),
            pwd: pwd.to_owned(),
        })),
        (Some(_), Some(_)) => Err("ice-ufrag has 4 to 256 and ice-pwd 22 to 256 of the characters A-Z a-z 0-9 + /"),
        _ => Err("ice-ufrag and ice-pwd belong together"),
    }
}

fn is_ice(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

/// What has to be kept of an offer to restart its ICE later: all but its candidates.
pub fn without_candidates(offer: &str) -> String {
    let kept = offer
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.starts_with("a=candidate:") && *line != "a=end-of-candidates");
    kept.fold(String::new(), |text, line| text + line + "\r\n")
}

/// The offer that restarts ICE: the viewer's first one with its new credentials.
pub fn restarted(offer: &str, credentials: &Credentials) -> String {
    let lines = offer.lines().map(|line| {
        if line.starts_with("a=ice-ufrag:") {
            format!("a=ice-ufrag:{}", credentials.ufrag)
        } else if line.starts_with("a=ice-pwd:") {
            format!("a=ice-pwd:{}", credentials.pwd)
        } else {
            line.to_owned()
        }
    });
    lines.fold(String::new(), |text, line| text + &line + "\r\n")
}

/// Says after the candidates of an answer that these are all: WHEP has no way to tell of more.
pub fn complete(answer: &str) -> String {
    let mut text = String::new();
    let mut lines = answer.lines().peekable();
    while let Some(line) = lines.next() {
        text = text + line + "\r\n";
        let last = line.starts_with("a=candidate:") && !lines.peek().is_some_and(|next| next.starts_with("a=candidate:"));
        if last && lines.peek() != Some(&"a=end-of-candidates") {
            text += "a=end-of-candidates\r\n";
        }
    }
    text
}

/// The fragment that answers an ICE restart, from the answer to the offer of [`restarted`].
pub fn of_answer(answer: &str) -> String {
    const TOLD: [&str; 7] = [
        "a=ice-lite",
        "a=ice-options:",
        "a=group:BUNDLE",
        "a=mid:",
        "a=ice-ufrag:",
        "a=ice-pwd:",
        "a=candidate:",
    ];
    let (mut session, mut section) = (String::new(), String::new());
    // 0 before the first section, 1 in the first that is not rejected, 2 elsewhere.
    let mut place = 0;
    for line in answer.lines() {
        if line.starts_with("m=") {
            let rejected = line.split(' ').nth(1) == Some("0");
            place = if !rejected && section.is_empty() { 1 } else { 2 };
        }
        let told = TOLD.iter().any(|known| line.starts_with(known));
        match place {
            0 if told => session = session + line + "\r\n",
            1 if told || line.starts_with("m=") => section = section + line + "\r\n",
            _ => {}
        }
    }
    session + &section + "a=end-of-candidates\r\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANDIDATE: &str = "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1";

    fn example() -> String {
        format!(
            "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
             a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na={CANDIDATE}\r\na=end-of-candidates\r\n"
        )
    }

    #[test]
    fn the_drafts_own_example_is_read() {
        let fragment = Fragment::parse(&example()).expect("a fragment");
        assert_eq!(fragment.candidates, [CANDIDATE]);
        assert_eq!(fragment.credentials.map(|found| found.ufrag).as_deref(), Some("EsAw"));
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        for text in ["", "\r\n", "hello", "{\"a\":1}", "a=ice-ufrag:EsAw\r\n", "aa=b"] {
            Fragment::parse(text).expect_err(text);
        }
        let short = example().replace("P2uYro0UCOQ4zxjKXaWCBui1", "short");
        Fragment::parse(&short).expect_err("a password of five characters");
        let injected = example().replace("EsAw\r\na=ice-pwd", "Es Aw\r\na=ice-pwd");
        Fragment::parse(&injected).expect_err("a ufrag with a space");
        let many = format!("a={CANDIDATE}\r\n").repeat(MAX_CANDIDATES + 1);
        Fragment::parse(&many).expect_err("too many candidates");
    }

    #[test]
    fn a_restart_changes_the_credentials_of_every_section_and_nothing_else() {
        let section = "m=video 9 X 96\r\na=ice-ufrag:old1\r\na=ice-pwd:oldoldoldoldoldoldoldold\r\na=fingerprint:sha-256 AB\r\n";
        let offer = format!("v=0\r\n{section}a={CANDIDATE}\r\na=end-of-candidates\r\n{section}");
        let kept = without_candidates(&offer);
        assert_eq!(kept, format!("v=0\r\n{section}{section}"));
        let new = Credentials {
            ufrag: "newU".into(),
            pwd: "newnewnewnewnewnewnewnew".into(),
        };
        let again = restarted(&kept, &new);
        assert_eq!(credentials(&again), Ok(Some(new)));
        assert!(!again.contains("old"), "{again}");
        assert_eq!(again.matches("a=fingerprint:sha-256 AB\r\n").count(), 2);
    }

    #[test]
    fn an_answer_says_that_its_candidates_are_all_and_its_fragment_tells_ice_only() {
        let answer = "v=0\r\na=group:BUNDLE 1\r\nm=audio 0 X 0\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:abcd\r\n\
             a=rtpmap:96 H264/90000\r\na=candidate:1\r\na=candidate:2\r\nm=application 9 X y\r\na=mid:2\r\n";
        let told = complete(answer);
        assert!(
            told.contains("a=candidate:1\r\na=candidate:2\r\na=end-of-candidates\r\nm=application"),
            "{told}"
        );
        assert_eq!(complete(&told), told, "said once");
        assert_eq!(
            of_answer(answer),
            "a=group:BUNDLE 1\r\nm=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:abcd\r\na=candidate:1\r\na=candidate:2\r\na=end-of-candidates\r\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "((a|m|v)=|candidate:|ice-(ufrag|pwd):|end-of-candidates|video 0?|[ -~]{0,30}|\\PC|\r?\n){0,40}") {
            if let Ok(Fragment { credentials: Some(credentials), .. }) = Fragment::parse(&text) {
                let again = restarted(&without_candidates(&text), &credentials);
                prop_assert_eq!(super::credentials(&again), Ok(Some(credentials)));
            }
            let told = complete(&text);
            prop_assert_eq!(complete(&told), told.clone());
            prop_assert!(of_answer(&told).ends_with("a=end-of-candidates\r\n"));
        }
    }
}
