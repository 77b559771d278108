//! How a session begins, and how it begins anew.

use super::{MAX_ADDRESSES, Offered, Sessions, Slot};
use crate::media::Quality;
use crate::protocol::{ErrorCode, Offer, OfferReply, PeerId, Role, RpcError};
use crate::session::{Ending, Session, Setup, WallClock};

/// ICE user names by which a session is found: its own, and the one it had before a restart.
const UFRAGS: usize = 2;

impl Sessions {
    pub(super) fn accept(&mut self, peer: PeerId, role: Role, offer: &Offer, clock: &WallClock) -> Result<(u64, OfferReply), RpcError> {
        let offered = self.stream(offer.stream.as_deref())?.clone();
        let stream = offered.stream.clone();
        // The SDP is agreed on for the high rung, whatever is shown first: its decoder decodes the low one too.
        let hub = &stream.high;
        let format = hub.format().ok_or_else(|| {
            let sentence = match hub.trouble() {
                Some(reason) => format!("the camera `{}` shows nothing: {reason}", hub.name()),
                None => format!("the camera `{}` is starting; try again in a moment", hub.name()),
            };
            RpcError::new(ErrorCode::CameraUnavailable, sentence)
        })?;
        let earlier = self
            .slots
            .iter()
            .find(|(_, slot)| *slot.session.peer() == peer)
            .map(|(key, _)| *key);
        // Its own seat will do for the new session.
        let seated = earlier.and_then(|key| self.slots.get(&key)).is_some_and(|slot| slot.seat.is_some());
        if !seated {
            self.make_room(clock)?;
        }
        let id = random_id()?;
        let rung = stream.rung(offer.quality);
        let quality = rung.quality();
        let setup = Setup {
            id: &id,
            peer,
            role,
            certificate: &self.shared.certificate,
            format,
            bitrate: offered.bitrate(quality),
            high: offered.bitrate,
            quality,
            playout: offer.playout,
            locals: &self.locals,
            tcp_port: self.tcp_port,
            reflexive: &self.reflexive,
            relayed: self.relayed.addresses(),
        };
        let (mut session, sdp) = Session::accept(setup, &offer.sdp, clock.instant)?;
        // Not before: an offer that is refused ends nothing.
        if let Some(key) = earlier {
            self.close(key, Ending::Replaced, "the viewer opened a new session", clock);
        }
        // Asked for now, the key frame is there when the connection is.
        drop(rung.subscribe(clock.instant));
        let key = self.next_key;
        self.next_key += 1;
        let ufrag = session.ufrag();
        self.by_ufrag.insert(ufrag.clone(), key);
        let slot = Slot {
            id: id.clone(),
            session,
            seat: None,
            stream,
            wished: offer.quality,
            carried: Quality::High,
            watch: None,
            addresses: Vec::new(),
            ufrags: vec![ufrag],
            scheduled: None,
        };
        self.slots.insert(key, slot);
        self.figures.counted.opened += 1;
        self.count_viewers();
        tracing::info!(session = %id, viewers = self.slots.len(), "viewer joins");
        Ok((key, OfferReply { session: id, sdp, quality }))
    }

    pub(super) fn restart(&mut self, peer: &PeerId, id: &str, offer: &Offer, clock: &WallClock) -> Result<(u64, OfferReply), RpcError> {
        let key = self
            .key_of(id)
            .filter(|key| self.slots.get(key).is_some_and(|slot| slot.session.peer() == peer));
        let Some((key, slot)) = key.and_then(|key| Some((key, self.slots.get_mut(&key)?))) else {
            return Err(RpcError::new(ErrorCode::Conflict, "this session is over; open a new one"));
        };
        let sdp = slot.session.restart(&offer.sdp, clock.instant, &mut self.outbox)?;
        // The viewer is somewhere else now, and needs room for new addresses; the oldest are those of where it was.
        let left = slot.addresses.len().saturating_sub(MAX_ADDRESSES / 2);
        for address in slot.addresses.drain(..left) {
            self.by_address.remove(&address);
        }
        let ufrag = slot.session.ufrag();
        // An offer of the same name is no restart.
        if !slot.ufrags.contains(&ufrag) {
            slot.ufrags.push(ufrag.clone());
            self.by_ufrag.insert(ufrag, key);
        }
        // Checks under the one before may still be on their way.
        let old = slot.ufrags.len().saturating_sub(UFRAGS);
        for ufrag in slot.ufrags.drain(..old) {
            self.by_ufrag.remove(&ufrag);
        }
        let quality = slot.rung().quality();
        self.figures.counted.restarted += 1;
        self.settle(key, clock);
        Ok((
            key,
            OfferReply {
                session: id.to_owned(),
                sdp,
                quality,
            },
        ))
    }

    fn stream(&self, name: Option<&str>) -> Result<&Offered, RpcError> {
        let mut streams = self.shared.streams.iter();
        let found = match name {
            Some(name) => streams.find(|offered| offered.stream.name() == name),
            None => streams.next(),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.shared.streams.iter().map(|offered| offered.stream.name()).collect();
            RpcError::new(
                ErrorCode::InvalidParams,
                format!("there is no such stream; this device has: {}", names.join(", ")),
            )
        })
    }
}

/// 128 random bits in hexadecimal.
fn random_id() -> Result<String, RpcError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RpcError::new(ErrorCode::Unavailable, "the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
