//! One run: connect, let the viewers join, watch, leave, report.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use peercam::protocol::{DeviceId, PeerId, Topics};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::Args;
use crate::broker::{Broker, Incoming, Options, Url};
use crate::moment::Moment;
use crate::report::{Account, Report};
use crate::samples::{Dice, Samples};
use crate::sockets::{Buffers, Sockets};
use crate::viewer::{Action, Viewer, Wishes};

/// How long to listen for retained statuses when no device was named.
const DISCOVERY: Duration = Duration::from_millis(500);

/// How long the broker may take to carry the viewers' goodbyes.
const GOODBYE: Duration = Duration::from_secs(1);

/// Statuses that are kept for the report.
const STATUSES: usize = 256;

/// What all viewers of a run share.
#[derive(Clone)]
struct Shared {
    broker: Broker,
    buffers: Buffers,
    addresses: Rc<[IpAddr]>,
    lag_ms: Rc<RefCell<Samples>>,
    stop: watch::Receiver<bool>,
}

/// Runs it all; the report has its thresholds checked.
///
/// # Errors
/// The broker or the device can't be reached, or the arguments make no sense here: exit code 2.
pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let addresses: Rc<[IpAddr]> = local_addresses(args)?.into();
    let save = match &args.save {
        Some(path) => Some(File::create(path).with_context(|| format!("creating {} for --save", path.display()))?),
        None => None,
    };
    let client_id = format!("probe-{}", random_id());
    let (broker, connection) = Broker::new(&Options {
        url: &args.broker,
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
    let mut statuses = broker.route(topics.status());
    let mut peers = Vec::new();
    for index in 0..args.viewers {
        // The first one's name is the connection's client id, as a page's is: an access list that knows pages lets it in too.
        let name = if index == 0 {
            client_id.clone()
        } else {
            format!("{client_id}-{index}")
        };
        let peer = PeerId::parse(&name).context("making a peer id")?;
        peers.push((broker.route(topics.to(&peer)), peer));
    }
    broker.subscribe()?;
    let discovered = usize::from(args.device.is_none());
    broker.ready(peers.len() + 1 + discovered, limit).await?;

    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        broker: broker.clone(),
        buffers: Buffers::default(),
        addresses: addresses.clone(),
        lag_ms: Rc::default(),
        stop: stopped,
    };
    let began = Instant::now();
    let mut dice = Dice::new(args.seed);
    let mut viewers = JoinSet::new();
    let mut save = save.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write>);
    for (index, (inbox, peer)) in peers.into_iter().enumerate() {
        let task = Task {
            at: began + Duration::from_millis(dice.below(u64::from(args.join_spread_ms) + 1)),
            topic: topics.from(&peer),
            inbox,
            wishes: Wishes {
                stream: args.stream.clone(),
                save: save.take(),
                no_twcc: args.no_twcc,
            },
        };
        let shared = shared.clone();
        viewers.spawn_local(async move { (index, peer.to_string(), task.watch(&shared).await) });
    }
    let end = began + Duration::from_millis(u64::from(args.join_spread_ms)) + Duration::from_secs_f64(args.seconds);
    let mut heard = Vec::new();
    let mut done = Vec::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end), if !*stop.borrow() => { stop.send_replace(true); }
            _ = interrupt.recv() => { stop.send_replace(true); }
            _ = terminate.recv() => { stop.send_replace(true); }
            Some(status) = statuses.recv() => {
                if let Ok(status) = serde_json::from_slice(&status.payload)
                    && heard.len() < STATUSES
                    // The broker may deliver once for each subscription that matches.
                    && heard.last().is_none_or(|(_, last)| *last != status)
                {
                    heard.push((began.elapsed().as_secs_f64() * 1e3, status));
                }
            }
            viewer = viewers.join_next() => match viewer {
                Some(viewer) => done.push(viewer.context("a viewer's task")?),
                None => break,
            },
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    broker.disconnect(GOODBYE).await;
    if tokio::time::timeout(2 * GOODBYE, connection).await.is_err() {
        tracing::warn!("the broker did not take the viewers' goodbyes in time");
    }

    done.sort_by_key(|(index, ..)| *index);
    let mut accounts = Vec::new();
    let mut save_error = None;
    for (index, peer, viewer) in done {
        let viewer = viewer.with_context(|| format!("viewer {index}"))?;
        save_error = save_error.or_else(|| viewer.save_error.as_ref().map(ToString::to_string));
        accounts.push(Account::of(index, peer, &viewer, &addresses, args.clock, Moment::now()));
    }
    let mut report = Report::of(device.to_string(), seconds, &shared.lag_ms.borrow(), accounts);
    report.statuses = heard;
    report.missed = args.thresholds.missed(&report);
    if let Some(error) = &save_error {
        report.missed.push(format!("saving the stream: {error}"));
    }
    report.save_error = save_error;
    Ok(report)
}

/// What one viewer's task needs of its own.
struct Task {
    at: Instant,
    topic: String,
    inbox: mpsc::Receiver<Incoming>,
    wishes: Wishes,
}

impl Task {
    /// Joins at its moment, watches until the end, leaves.
    async fn watch(mut self, shared: &Shared) -> anyhow::Result<Viewer> {
        let mut stop = shared.stop.clone();
        let sockets = Sockets::bind(&shared.addresses, &shared.buffers)
            .context("opening a UDP socket; is the limit on open files (ulimit -n) too low?")?;
        tokio::select! {
            () = tokio::time::sleep_until(self.at) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let addresses = sockets.addresses(&shared.addresses);
        let mut viewer = Viewer::new(&addresses, self.wishes, Moment::now())?;
        loop {
            while let Some(action) = viewer.action() {
                match action {
                    Action::Transmit(transmit) => sockets.send(transmit.source, transmit.destination, &transmit.contents),
                    Action::Publish(text) => {
                        if let Err(error) = shared.broker.publish(&self.topic, text) {
                            tracing::warn!(%error, "a message to the device is lost");
                        }
                    }
                }
            }
            if viewer.ended() {
                return Ok(viewer);
            }
            let deadline = Instant::from_std(viewer.deadline());
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => viewer.leave("the probe's run is over", Moment::now()),
                Some(message) = self.inbox.recv() => {
                    if !message.retained {
                        viewer.message(&message.payload, Moment::now());
                    }
                }
                () = sockets.readable() => receive(&sockets, &mut viewer, shared),
                () = tokio::time::sleep_until(deadline) => viewer.timeout(Moment::now()),
            }
            // A flood of datagrams must not starve the timers: they are looked at after every batch.
            if viewer.deadline() <= Moment::now().mono && !viewer.ended() {
                viewer.timeout(Moment::now());
            }
        }
    }
}

fn receive(sockets: &Sockets, viewer: &mut Viewer, shared: &Shared) {
    let mut lag_ms = shared.lag_ms.borrow_mut();
    sockets.receive(|source, destination, bytes, arrived| {
        lag_ms.push(Moment::now().ms_since(arrived));
        viewer.datagram(source, destination, bytes, arrived);
    });
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

/// The addresses to be offered: as the arguments say, else all but link-local ones.
fn local_addresses(args: &Args) -> anyhow::Result<Vec<IpAddr>> {
    if !args.address.is_empty() {
        return Ok(args.address.clone());
    }
    let loopback = Url::parse(&args.broker)?.is_loopback();
    let interfaces = if_addrs::get_if_addrs().context("listing this machine's addresses")?;
    let addresses: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| !interface.is_link_local() && (loopback || !interface.is_loopback()))
        .map(if_addrs::Interface::ip)
        .collect();
    if addresses.is_empty() {
        bail!("this machine has no address to be reached at; name one with --address");
    }
    Ok(addresses)
}

/// Eight hexadecimal digits that differ from run to run; no secret.
fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}", RandomState::new().hash_one(std::process::id()) as u32)
}
