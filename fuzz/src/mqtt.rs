//! What comes from a broker.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use peercam::protocol::{MAX_MESSAGE_BYTES, Message, PeerId, Status};
use peercam::signaling::Counters;
use peercam::signaling::mqtt::{Addresses, Carrier, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::device::{Device, ID};

/// What no answer takes, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// After this a request is put again: the queue to the broker may have been full.
const AGAIN: Duration = Duration::from_millis(200);

/// A peer that asks after all that the input says.
const LAST: &str = "last-of-all";

/// The packets of a broker, after it has taken the device's subscriptions.
pub fn mqtt(bytes: &[u8]) {
    replies(bytes);
}

/// How many replies a seed of [`mqtt`] gets.
pub fn replies(bytes: &[u8]) -> usize {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Device::start("broker.url = \"tcp://127.0.0.1:1883\"\n"));
    // What a carrier leaves behind ends with its runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(play(device, bytes))
}

/// A connection, from its beginning to its end.
async fn play(device: &Device, bytes: &[u8]) -> usize {
    let listener = listener();
    let mut settings = device.config.broker.clone();
    settings.url.as_mut().expect("a URL").port = listener.local_addr().expect("an address").port();
    let (_stop, stopped) = watch::channel(false);
    let (_outgoing, outgoing) = mpsc::channel(1);
    let (_moved, moved) = watch::channel(());
    let carrier = Carrier {
        device: peercam::protocol::DeviceId::parse(ID).expect("an id"),
        broker: settings,
        dispatcher: Arc::clone(&device.dispatcher),
        counters: Arc::new(Counters::default()),
        status: device.status.subscribe(),
        outgoing,
        addresses: Addresses {
            changed: moved,
            has: |_| true,
        },
        stop: stopped,
    };
    let carrier = tokio::spawn(run(carrier, Instant::now));
    let (stream, _) = timeout(PATIENCE, listener.accept())
        .await
        .expect("the device connects")
        .expect("a connection");
    stream.set_nodelay(true).expect("a connection");
    let mut broker = Broker { stream, read: Vec::new() };
    let mut verdict = Verdict::new(bytes);
    broker.greet().await;
    // A broker may send anything; the device may then hang up.
    let _ = broker.stream.write_all(bytes).await;
    if is_whole(bytes) {
        verdict.answered = false;
        for number in 0..PATIENCE.as_millis() / AGAIN.as_millis() {
            // One that can't be asked any more has hung up.
            if broker.ask(number).await.is_err() {
                verdict.answered = true;
                break;
            }
            let listen = async { while !verdict.answered && broker.next(&mut verdict).await.is_some() {} };
            if timeout(AGAIN, listen).await.is_ok() {
                verdict.answered = true;
                break;
            }
        }
        assert!(verdict.answered, "the device neither answers nor hangs up");
    } else {
        // Half a packet: there is nothing to answer, and when the broker is gone the device has to see it.
        let _ = broker.stream.shutdown().await;
        let listen = async { while broker.next(&mut verdict).await.is_some() {} };
        timeout(PATIENCE, listen)
            .await
            .expect("the device does not see that the broker is gone");
    }
    assert!(!carrier.is_finished(), "the carrier has ended: it will not come back");
    verdict.replies
}

/// One port for all inputs: a port for each would be kept by the kernel for a minute after it, until none is left.
fn listener() -> TcpListener {
    static LISTENER: OnceLock<std::net::TcpListener> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        listener
    });
    // The device of the input before may have come back: it is gone with its runtime.
    while listener.accept().is_ok() {}
    TcpListener::from_std(listener.try_clone().expect("a listener")).expect("a listener")
}

/// Our end of the connection.
struct Broker {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Broker {
    /// CONNACK, and SUBACK for both subscriptions.
    async fn greet(&mut self) {
        let connect = self.packet().await.expect("the device says who it is");
        assert_eq!(connect[0] >> 4, 1);
        self.stream.write_all(&[0x20, 3, 0, 0, 0]).await.expect("the device listens");
        let subscribe = loop {
            let packet = self.packet().await.expect("the device subscribes");
            if packet[0] >> 4 == 8 {
                break packet;
            }
        };
        let (_, at) = length(&subscribe[1..]).expect("a whole packet");
        let id = &subscribe[1 + at..3 + at];
        self.stream
            .write_all(&[0x90, 5, id[0], id[1], 0, 1, 1])
            .await
            .expect("the device listens");
    }

    /// A request that is answered in any case.
    async fn ask(&mut self, number: u128) -> std::io::Result<()> {
        let topic = format!("peercam/v1/{ID}/from/{LAST}");
        let payload = format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"session.hello","params":{{"version":1}}}}"#);
        let rest = [
            &u16::try_from(topic.len()).expect("short").to_be_bytes()[..],
            topic.as_bytes(),
            &[0],
            payload.as_bytes(),
        ]
        .concat();
        // Two bytes of length: between 128 and 16,383.
        let size = [
            u8::try_from(rest.len() % 128).expect("a digit") | 0x80,
            u8::try_from(rest.len() / 128).expect("a digit"),
        ];
        self.stream.write_all(&[&[0x30][..], &size, &rest].concat()).await
    }

    /// One packet of the device, looked at; `None` when it has hung up.
    async fn next(&mut self, verdict: &mut Verdict<'_>) -> Option<()> {
        let packet = self.packet().await?;
        verdict.look_at(&packet);
        Some(())
    }

    /// Keeps what it has read when it is dropped midway.
    async fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((size, at)) = self.read.get(1..).and_then(length) {
                let end = 1 + at + size;
                if self.read.len() >= end {
                    return Some(self.read.drain(..end).collect());
                }
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// What the device may say to its broker.
struct Verdict<'a> {
    input: &'a [u8],
    replies: usize,
    answered: bool,
}

impl<'a> Verdict<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            replies: 0,
            answered: true,
        }
    }

    fn look_at(&mut self, packet: &[u8]) {
        let (_, at) = length(&packet[1..]).expect("a whole packet");
        if packet[0] >> 4 != 3 {
            return;
        }
        let (topic, rest) = field(&packet[1 + at..]);
        let topic = std::str::from_utf8(topic).expect("a topic is text");
        let rest = if packet[0] & 6 == 0 { rest } else { &rest[2..] };
        let (size, at) = length(rest).expect("properties");
        let (properties, payload) = rest[at..].split_at(size);
        if topic == format!("peercam/v1/{ID}/status") {
            let status: Status = serde_json::from_slice(payload).expect("a status is JSON");
            assert!(status.online);
            return;
        }
        let own = topic
            .strip_prefix(&format!("peercam/v1/{ID}/to/"))
            .unwrap_or_else(|| panic!("the device writes to {topic:?}"));
        let name = own.split('/').next().unwrap_or_default();
        assert!(PeerId::parse(name).is_some(), "{name:?} is a peer's name");
        assert!(
            !topic.contains(|c: char| c.is_control() || "+#".contains(c)),
            "nobody can publish to {topic:?}"
        );
        assert!(packet.len() <= MAX_MESSAGE_BYTES + 4_096, "a reply of {} bytes", packet.len());
        assert!(matches!(Message::parse(payload), Ok(Message::Reply(_))), "what it says is no reply");
        if name == LAST {
            self.answered = true;
            return;
        }
        assert!(contains(self.input, name.as_bytes()), "{name:?} is answered, and has not asked");
        for (id, value) in properties_of(properties) {
            // Correlation data, by which the asker knows its reply.
            assert!(id != 9 || contains(self.input, value), "the reply carries what nobody gave");
        }
        self.replies += 1;
        let asked = self.input.iter().filter(|byte| *byte >> 4 == 3).count();
        assert!(self.replies <= asked, "{} replies to {asked} requests", self.replies);
    }
}

/// The properties that the device writes: a message's expiry (2), and correlation data (9).
fn properties_of(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let [id, rest @ ..] = bytes {
        let (value, after) = match id {
            2 => rest.split_at(4),
            9 => field(rest),
            _ => panic!("property {id} is not one that the device writes"),
        };
        found.push((*id, value));
        bytes = after;
    }
    found
}

/// A field behind two bytes of length, and what follows.
fn field(bytes: &[u8]) -> (&[u8], &[u8]) {
    let size = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    bytes[2..].split_at(size)
}

/// A variable byte integer (MQTT 5, 1.5.5) and how many bytes it has; `None` if it is not whole.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let digits = bytes[..=end].iter().rev();
    Some((digits.fold(0, |sum, byte| sum * 128 + usize::from(byte & 0x7f)), end + 1))
}

/// Whether these bytes are packets, the last one to its end.
fn is_whole(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((size, at)) = length(&bytes[1..]) else { return false };
        let Some(rest) = bytes.get(1 + at + size..) else { return false };
        bytes = rest;
    }
    true
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
