//! What the system says of this process. What can't be read is left out.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// The kernel tells times in these to programs, whatever it counts in itself: USER_HZ, 100 on every architecture that peercam
/// is built for (Linux, include/asm-generic/param.h).
const TICKS_PER_SECOND: f64 = 100.0;

/// The clock was set, rather than kept: systems without a clock of their own are set once the network is there.
const CLOCK_WAS_SET: f64 = 2.0;

/// Names and meanings are those of every Prometheus client library.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
    /// Seconds since 1970, by the clock as it is now.
    pub start_seconds: Option<f64>,
    /// Datagrams that found the receive buffer of one of the UDP sockets full.
    pub datagrams_overflowed: Option<u64>,
}

impl Process {
    /// Reads it anew; the start stays what it was `before` unless the clock was set.
    pub fn read(before: Option<&Self>) -> Self {
        let file = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let open = open_files();
        let (status, limits, stat) = (file("status"), file("limits"), file("stat"));
        Self {
            cpu_seconds: seconds(ClockId::ProcessCPUTime),
            resident_bytes: field(&status, "VmRSS:", 0).map(|kib| kib * 1_024),
            open_fds: open.as_ref().map(|open| open.len() as u64),
            max_fds: field(&limits, "Max open files", 0),
            threads: field(&status, "Threads:", 0),
            start_seconds: start(&stat).map(|start| steady(before.and_then(|before| before.start_seconds), start)),
            datagrams_overflowed: open.map(|open| overflows(&file("net/udp"), &open) + overflows(&file("net/udp6"), &open)),
        }
    }
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What each open descriptor leads to.
fn open_files() -> Option<Vec<String>> {
    let links = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let targets = links.filter_map(|link| Some(fs::read_link(link.path()).ok()?.to_string_lossy().into_owned()));
    // The folder that is read was open itself.
    Some(
        targets
            .filter(|target| !(target.starts_with("/proc/") && target.ends_with("/fd")))
            .collect(),
    )
}

/// The last column, `drops`, of those lines of `/proc/net/udp` or `udp6` whose socket is one of `open`.
fn overflows(table: &str, open: &[String]) -> u64 {
    let drops = |line: &str| {
        let mut columns = line.split_whitespace();
        let socket = format!("socket:[{}]", columns.nth(9)?);
        let drops: u64 = columns.next_back()?.parse().ok()?;
        open.contains(&socket).then_some(drops)
    };
    table.lines().skip(1).filter_map(drops).sum()
}

/// The number at `index` after `name`, at the start of a line.
fn field(text: &str, name: &str, index: usize) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().nth(index)?.parse().ok()
}

/// Field 22 of `/proc/self/stat` is the start in ticks since boot (proc_pid_stat(5)). The second may hold blanks, in brackets.
fn start(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: u64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let age = seconds(ClockId::Boottime) - ticks as f64 / TICKS_PER_SECOND;
    Some(seconds(ClockId::Realtime) - age)
}

/// The same value as long as it is the same start: a start that changes means a restart to whoever watches.
fn steady(before: Option<f64>, now: f64) -> f64 {
    before.filter(|before| (before - now).abs() < CLOCK_WAS_SET).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_is_read() {
        let before = Process::read(None);
        let file = fs::File::open("/proc/self/stat").expect("a file");
        let thread = std::thread::spawn(|| Process::read(None).threads);
        let now = Process::read(Some(&before));
        drop(file);
        assert!(now.cpu_seconds > 0.0 && now.cpu_seconds < 3_600.0, "{now:?}");
        assert!(now.resident_bytes > Some(1 << 20), "{now:?}");
        assert!(now.open_fds > Some(3) && now.open_fds < now.max_fds, "{now:?}");
        assert!(thread.join().expect("it ends") > Some(1));
        let start = now.start_seconds.expect("a start");
        assert_eq!(Some(start), before.start_seconds);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let age = since_1970.as_secs_f64() - start;
        assert!((0.0..3_600.0).contains(&age), "the tests began {age} s ago");
    }

    #[test]
    fn overflows_are_those_of_this_process() {
        let table = "  sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref pointer drops\n\
            2488: 0100007F:61F9 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 852203 2 00000000d75f7f9d 7\n\
            2488: 0100007F:61FA 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 852204 2 00000000d75f7f9d 9\n";
        assert_eq!(overflows(table, &["/dev/null".into(), "socket:[852203]".into()]), 7);
        assert_eq!(overflows(table, &[]), 0);
        assert_eq!(overflows("", &["socket:[1]".into()]), 0);
    }

    #[test]
    fn the_start_moves_only_when_the_clock_was_set() {
        assert_eq!(steady(None, 50.0), 50.0);
        assert_eq!(steady(Some(50.0), 50.3), 50.0);
        assert_eq!(steady(Some(50.0), 1_700_000_000.0), 1_700_000_000.0);
    }

    #[test]
    fn a_program_name_with_brackets_and_blanks_is_passed_over() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 250 0 0";
        let age = seconds(ClockId::Boottime) - 2.5;
        let start = start(stat).expect("a start");
        assert!((start - (seconds(ClockId::Realtime) - age)).abs() < 1.0, "{start}");
        assert_eq!(
            field("Max open files            1024                 4096 files", "Max open files", 0),
            Some(1_024)
        );
        assert_eq!(field("", "Threads:", 0), None);
    }
}
