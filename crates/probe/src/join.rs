//! How the viewers' messages travel: by a broker, by the device's HTTP carrier, or by WHEP.

use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use peercam::protocol::{DeviceId, PeerId, Topics};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::args::Args;
use crate::broker::{Broker, INBOX, Incoming, Options};
use crate::doors::{Inbox, by_http, by_whep};
use crate::http::Url;

/// How long to listen for retained statuses when no device was named.
const DISCOVERY: Duration = Duration::from_millis(500);

/// How long the broker may take to carry the viewers' goodbyes.
const GOODBYE: Duration = Duration::from_secs(1);

/// The way to the device, with a line for each viewer.
pub struct Joined {
    /// Its id; for WHEP, which knows none, the address that was asked.
    pub device: String,
    pub lines: Vec<Line>,
    pub statuses: mpsc::Receiver<Incoming>,
    pub link: Link,
}

/// One viewer's line.
pub struct Line {
    pub peer: String,
    pub inbox: mpsc::Receiver<Incoming>,
    pub outlet: Outlet,
}

/// Where a viewer's messages leave.
pub enum Outlet {
    Broker { broker: Broker, topic: String },
    Task(mpsc::Sender<String>),
}

impl Outlet {
    /// # Errors
    /// Too many wait already.
    pub fn send(&self, text: String) -> anyhow::Result<()> {
        match self {
            Self::Broker { broker, topic } => broker.publish(topic, text),
            Self::Task(sender) => sender.try_send(text).context("the queue to the device is full"),
        }
    }
}

/// What carries the lines.
pub enum Link {
    Broker { broker: Broker, connection: JoinHandle<()> },
    Tasks(JoinSet<()>),
}

impl Link {
    /// Sends what is on its way, then ends.
    pub async fn end(self) {
        match self {
            Self::Broker { broker, connection } => {
                broker.disconnect(GOODBYE).await;
                if tokio::time::timeout(2 * GOODBYE, connection).await.is_err() {
                    tracing::warn!("the broker did not take the viewers' goodbyes in time");
                }
            }
            Self::Tasks(mut tasks) => {
                let ended = async { while tasks.join_next().await.is_some() {} };
                if tokio::time::timeout(2 * GOODBYE, ended).await.is_err() {
                    tracing::warn!("the device did not take the viewers' goodbyes in time");
                }
            }
        }
    }
}

impl Joined {
    /// # Errors
    /// The broker can't be reached, or the device is not known to it.
    pub async fn by_broker(url: &str, args: &Args) -> anyhow::Result<Self> {
        let client_id = format!("probe-{}", random_id());
        let (broker, connection) = Broker::new(&Options {
            url,
            client_id: client_id.clone(),
            ca: args.ca.as_deref(),
            username: args.username.as_deref(),
            password_file: args.password_file.as_deref(),
            queue: 64 + 16 * usize::from(args.viewers),
        })?;
        let limit = Duration::from_secs_f64(args.connect_secs);
        let connection = tokio::task::spawn_local(connection.run());
        let device = match &args.device {
            Some(device) => {
                DeviceId::parse(device).with_context(|| format!("--device {device}: a device's id is 1 to 64 of A-Z a-z 0-9 - _"))?
            }
            None => discover(&broker, limit).await?,
        };
        let topics = Topics::new(&device);
        let statuses = broker.route(topics.status());
        let mut lines = Vec::new();
        // The first one's name is the connection's client id, as a page's is: an access list that knows pages lets it in too.
        for name in names(&client_id, args.viewers) {
            let peer = PeerId::parse(&name).context("making a peer id")?;
            lines.push(Line {
                peer: name,
                inbox: broker.route(topics.to(&peer)),
                outlet: Outlet::Broker {
                    broker: broker.clone(),
                    topic: topics.from(&peer),
                },
            });
        }
        broker.subscribe()?;
        let discovered = usize::from(args.device.is_none());
        broker.ready(lines.len() + 1 + discovered, limit).await?;
        Ok(Self {
            device: device.to_string(),
            lines,
            statuses,
            link: Link::Broker { broker, connection },
        })
    }

    /// # Errors
    /// Nobody answers there, or it is no device.
    pub async fn by_http(url: &Url, viewers: u16) -> anyhow::Result<Self> {
        let page = url.at(format!("{}/peercam.json", url.path));
        let answer = page.request(Method::GET, &[], String::new()).await?;
        let config: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let device = config["device"]
            .as_str()
            .context("there is no device at this address: it has no peercam.json")?;
        let device = device.to_owned();
        if config["http"] == false {
            let broker = config["broker"]
                .as_str()
                .map_or_else(|| "--broker".to_owned(), |url| format!("--broker {url}"));
            bail!("the device takes no viewers by HTTP; use its broker ({broker}), or set http.signaling in its configuration");
        }
        Ok(Self::by_tasks(device, viewers, |peer, outgoing, inbox, tasks| {
            tasks.spawn_local(by_http(url.clone(), peer, outgoing, inbox));
        }))
    }

    /// # Errors
    /// Nobody answers there, it is no WHEP endpoint, or `stream` can't be appended to it.
    pub async fn by_whep(url: Url, stream: Option<&str>, viewers: u16) -> anyhow::Result<Self> {
        let mut names = url.path.split('/').skip_while(|name| *name != "whep");
        if let (Some(stream), Some(named)) = (stream, names.nth(1)) {
            bail!("{url} names the stream {named} already; leave --stream {stream} or /{named} out");
        }
        let answer = url.request(Method::OPTIONS, &[], String::new()).await?;
        // By this a WHEP endpoint is known (the draft, 4.2); a page that somebody serves has none.
        if !answer.headers.contains_key("accept-post") {
            let status = answer.status;
            bail!("{url} is no WHEP endpoint ({status}): it is at http://HOST:PORT/whep, where http.whep in the configuration is true");
        }
        Ok(Self::by_tasks(format!("at {url}"), viewers, |_, outgoing, inbox, tasks| {
            tasks.spawn_local(by_whep(url.clone(), outgoing, inbox));
        }))
    }

    fn by_tasks(device: String, viewers: u16, spawn: impl Fn(String, mpsc::Receiver<String>, Inbox, &mut JoinSet<()>)) -> Self {
        let (status_sender, statuses) = mpsc::channel(INBOX);
        let mut status_sender = Some(status_sender);
        let mut tasks = JoinSet::new();
        let first = format!("probe-{}", random_id());
        let lines = names(&first, viewers).map(|peer| {
            let (outlet, outgoing) = mpsc::channel(INBOX);
            let (messages, inbox) = mpsc::channel(INBOX);
            let to = Inbox {
                messages,
                statuses: status_sender.take(),
            };
            spawn(peer.clone(), outgoing, to, &mut tasks);
            Line {
                peer,
                inbox,
                outlet: Outlet::Task(outlet),
            }
        });
        Self {
            device,
            lines: lines.collect(),
            statuses,
            link: Link::Tasks(tasks),
        }
    }
}

fn names(first: &str, count: u16) -> impl Iterator<Item = String> {
    (0..count).map(move |index| if index == 0 { first.to_owned() } else { format!("{first}-{index}") })
}

/// The one device whose retained status the broker has.
async fn discover(broker: &Broker, limit: Duration) -> anyhow::Result<DeviceId> {
    let mut statuses = broker.route("peercam/v1/+/status".to_owned());
    broker.ready(1, limit).await?;
    let mut found = Vec::new();
    let until = Instant::now() + DISCOVERY;
    while let Ok(Some(status)) = tokio::time::timeout_at(until, statuses.recv()).await {
        let id = status.topic.split('/').nth(2).and_then(DeviceId::parse);
        found.extend(id.filter(|id| !found.contains(id) && !status.payload.is_empty()));
    }
    match &found[..] {
        [device] => Ok(device.clone()),
        [] => bail!("the broker has no device's status; start the agent, or name the device with --device"),
        several => {
            let names: Vec<_> = several.iter().map(ToString::to_string).collect();
            bail!("the broker knows several devices; choose one with --device: {}", names.join(", "))
        }
    }
}

/// Eight hexadecimal digits that differ from run to run; no secret.
fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}", RandomState::new().hash_one(std::process::id()) as u32)
}
