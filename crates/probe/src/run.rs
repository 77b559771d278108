//! One run: connect, let the viewers join, watch, leave, report.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::Args;
use crate::broker::{Incoming, Url};
use crate::http;
use crate::join::{Joined, Outlet};
use crate::link::Link;
use crate::moment::Moment;
use crate::network::Weather;
use crate::report::{Account, Reading, Report};
use crate::samples::{Dice, Samples};
use crate::sockets::{Buffers, Sockets};
use crate::viewer::{Action, Viewer, Wishes};

/// Statuses that are kept for the report.
const STATUSES: usize = 256;

/// What all viewers of a run share.
#[derive(Clone)]
struct Shared {
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
    let mut joined = match (&args.broker, &args.http, &args.whep) {
        (Some(url), ..) => Joined::by_broker(url, args).await?,
        (None, Some(url), _) => Joined::by_http(&http::Url::parse(url)?, args.viewers).await?,
        (None, None, Some(url)) => Joined::by_whep(http::Url::parse(url)?, args.stream.as_deref(), args.viewers).await?,
        (None, None, None) => bail!("--broker, --http or --whep says how to reach the device"),
    };

    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        buffers: Buffers::default(),
        addresses: addresses.clone(),
        lag_ms: Rc::default(),
        stop: stopped,
    };
    // The first random numbers of a process take tens of milliseconds, which are not the device's.
    drop(str0m::crypto::from_feature_flags().dtls_provider.generate_certificate());
    let began = Instant::now();
    let mut dice = Dice::new(args.seed);
    let mut viewers = JoinSet::new();
    let mut save = save.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write>);
    for (index, line) in joined.lines.into_iter().enumerate() {
        let peer = line.peer;
        let task = Task {
            at: began + Duration::from_millis(dice.below(u64::from(args.join_spread_ms) + 1)),
            inbox: line.inbox,
            outlet: line.outlet,
            weather: args.weather,
            seed: args.seed.wrapping_add((index as u64) << 32),
            wishes: Wishes {
                stream: args.stream.clone(),
                quality: args.quality.into(),
                change_quality_every: args.change_quality_ms.map(|ms| Duration::from_millis(ms.into())),
                save: save.take(),
                no_twcc: args.no_twcc,
                settle: Duration::from_secs_f64(args.settle_seconds),
                pli_every: args.pli_per_second.map(|plis| Duration::from_secs(1) / u32::from(plis)),
            },
        };
        let shared = shared.clone();
        viewers.spawn_local(async move { (index, peer, task.watch(&shared).await) });
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
            Some(status) = joined.statuses.recv() => {
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
    joined.link.end().await;

    done.sort_by_key(|(index, ..)| *index);
    let mut accounts = Vec::new();
    let mut save_error = None;
    for (index, peer, viewer) in done {
        let viewer = viewer.with_context(|| format!("viewer {index}"))?;
        save_error = save_error.or_else(|| viewer.video.save_error.as_ref().map(ToString::to_string));
        let reading = Reading {
            own: &addresses,
            clock: args.clock,
            late_ms: args.late_ms,
            has_hello: args.whep.is_none(),
            end: Moment::now(),
        };
        accounts.push(Account::of(index, peer, &viewer, &reading));
    }
    let mut report = Report::of(joined.device, seconds, &shared.lag_ms.borrow(), accounts);
    report.statuses = heard;
    report.network = (!args.weather.is_calm()).then_some(args.weather);
    report.missed = args.thresholds.missed(&report);
    if report.unreachable() {
        report
            .missed
            .push("everything: the device did not answer, and nothing was measured".to_owned());
    }
    if let Some(error) = &save_error {
        report.missed.push(format!("saving the stream: {error}"));
    }
    report.save_error = save_error;
    Ok(report)
}

/// What one viewer's task needs of its own.
struct Task {
    at: Instant,
    inbox: mpsc::Receiver<Incoming>,
    outlet: Outlet,
    weather: Weather,
    /// Of the emulated network's luck.
    seed: u64,
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
        let mut link = Link::new(sockets, self.weather, self.seed);
        let mut viewer = Viewer::new(&addresses, self.wishes, Moment::now())?;
        loop {
            while let Some(action) = viewer.action() {
                match action {
                    Action::Transmit(transmit) => link.send(&transmit, Moment::now()),
                    Action::Publish(text) => {
                        if let Err(error) = self.outlet.send(text) {
                            tracing::warn!(%error, "a message to the device is lost");
                        }
                    }
                }
            }
            if viewer.ended() {
                return Ok(viewer);
            }
            let deadline = link.deadline().map_or(viewer.deadline(), |link| link.min(viewer.deadline()));
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => viewer.leave("the probe's run is over", Moment::now()),
                Some(message) = self.inbox.recv() => {
                    if !message.retained {
                        viewer.message(&message.payload, Moment::now());
                    }
                }
                () = link.readable() => receive(&mut link, &mut viewer, shared),
                () = tokio::time::sleep_until(Instant::from_std(deadline)) => {}
            }
            // A flood of datagrams must not starve the timers: they are looked at after every batch.
            let now = Moment::now();
            link.pass(now, |source, destination, bytes, arrived| {
                if !viewer.ended() {
                    viewer.datagram(source, destination, bytes, arrived);
                }
            });
            if viewer.deadline() <= now.mono && !viewer.ended() {
                viewer.timeout(now);
            }
        }
    }
}

fn receive(link: &mut Link, viewer: &mut Viewer, shared: &Shared) {
    let mut lag_ms = shared.lag_ms.borrow_mut();
    link.receive(
        |arrived| lag_ms.push(Moment::now().ms_since(arrived)),
        |source, destination, bytes, arrived| viewer.datagram(source, destination, bytes, arrived),
    );
}

/// The addresses to be offered: as the arguments say, else all but link-local ones.
fn local_addresses(args: &Args) -> anyhow::Result<Vec<IpAddr>> {
    for address in &args.address {
        // What is not ours would be offered in vain, and look like a firewall.
        if address.is_unspecified() || address.is_multicast() || UdpSocket::bind((*address, 0)).is_err() {
            bail!("--address {address}: this machine does not have this address (`ip address` lists them)");
        }
    }
    if !args.address.is_empty() {
        return Ok(args.address.clone());
    }
    let loopback = match (&args.broker, args.http.as_ref().or(args.whep.as_ref())) {
        (Some(url), _) => Url::parse(url)?.is_loopback(),
        (None, Some(url)) => http::Url::parse(url)?.is_loopback(),
        (None, None) => false,
    };
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
