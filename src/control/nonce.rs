//! Nonces that cost the device no memory: anybody may ask for one, and only this boot of this device can have made it.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::protocol::PeerId;

/// How long a nonce is good for.
const LIFETIME: Duration = Duration::from_secs(600);

/// Makes and checks nonces of the form `<seconds since boot>-<random>-<MAC>`.
pub struct Nonces {
    key: hmac::Key,
    epoch: Instant,
}

impl Nonces {
    /// With a secret that dies with this process.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(epoch: Instant) -> anyhow::Result<Self> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            epoch,
        })
    }

    /// A nonce for `peer`.
    #[must_use]
    pub fn make(&self, peer: &PeerId, now: Instant) -> String {
        let mut random = [0; 8];
        // Without random numbers the nonce still binds peer, time and boot; the system had some when the agent started.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let body = format!("{}-{}", self.seconds(now), hex(&random));
        let tag = hmac::sign(&self.key, format!("{peer} {body}").as_bytes());
        format!("{body}-{}", hex(tag.as_ref()))
    }

    /// Whether this boot made `nonce` for `peer`, not longer ago than ten minutes.
    #[must_use]
    pub fn is_good(&self, nonce: &str, peer: &PeerId, now: Instant) -> bool {
        let Some((body, tag)) = nonce.rsplit_once('-') else { return false };
        let Some(tag) = unhex(tag) else { return false };
        let genuine = hmac::verify(&self.key, format!("{peer} {body}").as_bytes(), &tag).is_ok();
        let made = body.split_once('-').and_then(|(seconds, _)| seconds.parse::<u64>().ok());
        genuine && made.is_some_and(|made| self.seconds(now).saturating_sub(made) <= LIFETIME.as_secs())
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 != 0 || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_peer_its_boot_and_ten_minutes() {
        let boot = Instant::now();
        let nonces = Nonces::new(boot).expect("random numbers");
        let [alice, mallory] = ["alice", "mallory"].map(|name| PeerId::parse(name).expect("a name"));
        let nonce = nonces.make(&alice, boot);
        assert!(nonces.is_good(&nonce, &alice, boot + Duration::from_secs(599)));
        assert!(!nonces.is_good(&nonce, &alice, boot + Duration::from_secs(700)), "too old");
        assert!(!nonces.is_good(&nonce, &mallory, boot), "somebody else's");
        let next_boot = Nonces::new(boot).expect("random numbers");
        assert!(!next_boot.is_good(&nonce, &alice, boot), "of an earlier boot");
        for rubbish in ["", "-", "0-00-", "0-00-zz", "9999999999999999999999-0-00", "é-é-é"] {
            assert!(!nonces.is_good(rubbish, &alice, boot), "{rubbish}");
        }
    }
}
