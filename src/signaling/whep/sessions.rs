//! What WHEP has to remember of a session between two requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fragment::Credentials;
use crate::protocol::PeerId;

/// One viewer's session.
#[derive(Debug)]
pub struct Watching {
    pub peer: PeerId,
    /// The stream's name.
    pub stream: String,
    /// The offer without its candidates: an ICE restart is this offer again with other credentials.
    pub offer: String,
    /// The viewer's, of the running ICE session.
    pub credentials: Credentials,
    /// The running ICE session's entity tag, with its quotation marks.
    pub tag: String,
}

/// Every session that was opened and is not over.
pub struct Sessions {
    most: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<String, Arc<tokio::sync::Mutex<Watching>>>,
    /// Oldest first; may name some that are over.
    order: VecDeque<String>,
}

impl Sessions {
    /// Remembers at most `most`. The driver tells of each end, so this many are there only when a notice got lost.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            table: Mutex::default(),
        }
    }

    /// A new session; the oldest is forgotten where there are too many. Returns how many were.
    pub fn insert(&self, id: String, watching: Watching) -> u64 {
        let mut forgotten = 0;
        let mut table = self.table();
        let Table { sessions, order } = &mut *table;
        order.retain(|known| sessions.contains_key(known));
        while order.len() >= self.most {
            let Some(oldest) = order.pop_front() else { break };
            sessions.remove(&oldest);
            forgotten += 1;
        }
        order.push_back(id.clone());
        sessions.insert(id, Arc::new(tokio::sync::Mutex::new(watching)));
        forgotten
    }

    pub fn get(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<Watching>>> {
        self.table().sessions.get(id).cloned()
    }

    pub fn remove(&self, id: &str) {
        self.table().sessions.remove(id);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Door;

    fn watching(name: &str) -> Watching {
        Watching {
            peer: PeerId::at(Door::Whep, name).expect("a name"),
            stream: "camera".into(),
            offer: String::new(),
            credentials: Credentials {
                ufrag: String::new(),
                pwd: String::new(),
            },
            tag: String::new(),
        }
    }

    #[test]
    fn the_memory_is_bounded_and_the_newest_stay() {
        let sessions = Sessions::new(3);
        let forgotten: u64 = (0..1_000)
            .map(|number| sessions.insert(number.to_string(), watching("viewer")))
            .sum();
        assert_eq!(forgotten, 997);
        assert!(sessions.get("996").is_none());
        assert!(["997", "998", "999"].iter().all(|id| sessions.get(id).is_some()));
        sessions.remove("998");
        assert_eq!(sessions.insert("new".into(), watching("viewer")), 0);
        assert!(sessions.get("997").is_some(), "one that has ended makes room");
        let table = sessions.table();
        assert_eq!((table.sessions.len(), table.order.len()), (3, 3));
    }
}
