//! Networks of the test's own: namespaces of the kernel, joined by virtual cables, with routers between them that translate addresses and
//! filter as those at home do. It takes root.
//!
//! ```text
//! home ── router ──┐
//!                  ├── internet (203.0.113.1 and .2)
//! home ── router ──┘
//! ```

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Begins the names of all namespaces of such tests; the process's id and a number follow.
const PREFIX: &str = "peercam-test-";

/// The addresses of the server on the internet, where all of it listens.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// The same in IPv6.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// A second one, for what needs the same port.
pub const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

/// What a router does with the addresses of what goes out through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Nothing: the home's addresses are the internet's.
    None,
    /// One address for all, the same port for everybody; only who was spoken to may answer (RFC 4787: endpoint-independent mapping, address
    /// and port dependent filtering). Linux does this, and with it most routers.
    PortRestricted,
    /// Another port for each who is spoken to: mobile networks and companies.
    Symmetric,
}

/// What a router lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Open,
    NoUdp,
    /// TCP to port 443.
    Only443,
}

/// A home or an office, behind its router.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    pub nat: Nat,
    pub firewall: Firewall,
}

impl Home {
    pub const fn behind(nat: Nat) -> Self {
        Self {
            nat,
            firewall: Firewall::Open,
        }
    }
}

/// An internet, and homes on it. Dropped, all of it is removed; what still runs in it must have been ended before.
pub struct World {
    name: String,
    namespaces: Vec<String>,
    homes: u8,
}

impl World {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut world = Self {
            name,
            namespaces: Vec::new(),
            homes: 0,
        };
        let internet = world.add("internet");
        ip(&format!("-n {internet} link add bridge type bridge"));
        for address in [SERVER, SECOND] {
            ip(&format!("-n {internet} addr add {address}/24 dev bridge"));
        }
        ip(&format!("-n {internet} addr add {SERVER_V6}/64 dev bridge nodad"));
        ip(&format!("-n {internet} link set bridge up"));
        world
    }

    /// A place right on the internet, with a public address; returns that.
    pub fn public(&mut self, name: &str) -> IpAddr {
        let (place, number) = self.wired(name);
        let address = Ipv4Addr::new(203, 0, 113, 10 + number);
        ip(&format!("-n {place} addr add {address}/24 dev net"));
        ip(&format!("-n {place} link set net up"));
        ip(&format!("-n {place} route add default via {SERVER}"));
        address.into()
    }

    /// The same in IPv6, and in that alone.
    pub fn public_v6(&mut self, name: &str) -> IpAddr {
        let (place, number) = self.wired(name);
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10 + u16::from(number));
        ip(&format!("-n {place} addr add {address}/64 dev net nodad"));
        ip(&format!("-n {place} link set net up"));
        ip(&format!("-n {place} route add default via {SERVER_V6}"));
        address.into()
    }

    /// A place with a cable to the internet, and a number that no other has.
    fn wired(&mut self, name: &str) -> (String, u8) {
        let place = self.add(name);
        self.homes += 1;
        let internet = self.namespace("internet");
        ip(&format!("-n {internet} link add {name} type veth peer name net netns {place}"));
        ip(&format!("-n {internet} link set {name} master bridge up"));
        (place, self.homes)
    }

    /// A second cable, between two places and past the internet; returns their addresses on it.
    pub fn cable(&mut self, one: &str, other: &str) -> [IpAddr; 2] {
        self.homes += 1;
        let (first, second, number) = (self.namespace(one), self.namespace(other), self.homes);
        ip(&format!("-n {first} link add cable type veth peer name cable netns {second}"));
        [(first, 1), (second, 2)].map(|(place, host)| {
            let address = Ipv4Addr::new(10, 200, number, host);
            ip(&format!("-n {place} addr add {address}/24 dev cable"));
            ip(&format!("-n {place} link set cable up"));
            address.into()
        })
    }

    /// What comes to `place` meets this rule of a firewall, in the words of `nft`.
    pub fn close(&self, place: &str, rule: &str) {
        let table = format!("table inet closed {{\n chain in {{\n type filter hook input priority 0\n {rule}\n }}\n }}\n");
        nft(&self.namespace(place), &table);
    }

    /// Lets no more than `rate` ("600kbit") through to `place`; what comes beyond it waits at most 300 ms.
    pub fn narrow(&self, place: &str, rate: &str) {
        let rule = format!(
            "-n {} qdisc replace dev {place} root tbf rate {rate} burst 6kb latency 300ms",
            self.namespace("internet")
        );
        run("tc", &rule.split(' ').collect::<Vec<_>>());
    }

    /// Takes [`narrow`](Self::narrow) back.
    pub fn widen(&self, place: &str) {
        let rule = format!("-n {} qdisc del dev {place} root", self.namespace("internet"));
        run("tc", &rule.split(' ').collect::<Vec<_>>());
    }

    /// A counter of the kernel's at `place`, as /proc/net/snmp has it: `Ip`, `FragCreates`.
    pub fn counted(&self, place: &str, protocol: &str, counter: &str) -> u64 {
        let text = self
            .inside(place, || fs::read_to_string("/proc/thread-self/net/snmp"))
            .expect("the counters");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let place = names.split(' ').position(|name| name == counter).expect("the counter");
        values.split(' ').nth(place).and_then(|value| value.parse().ok()).expect("a number")
    }

    /// A place behind a router; returns its own address, which nobody outside can use unless the router translates nothing.
    pub fn home(&mut self, name: &str, home: Home) -> IpAddr {
        let (router, place) = (self.add(&format!("{name}-router")), self.add(name));
        self.homes += 1;
        let (internet, number) = (self.namespace("internet"), self.homes);
        ip(&format!("-n {internet} link add {name} type veth peer name wan netns {router}"));
        ip(&format!("-n {internet} link set {name} master bridge up"));
        ip(&format!("-n {router} link add lan type veth peer name net netns {place}"));
        let wan = Ipv4Addr::new(203, 0, 113, 10 + number);
        let (gateway, own) = (Ipv4Addr::new(10, number, 0, 1), Ipv4Addr::new(10, number, 0, 2));
        ip(&format!("-n {router} addr add {wan}/24 dev wan"));
        ip(&format!("-n {router} addr add {gateway}/24 dev lan"));
        ip(&format!("-n {place} addr add {own}/24 dev net"));
        for (place, link) in [(&router, "wan"), (&router, "lan"), (&place, "net")] {
            ip(&format!("-n {place} link set {link} up"));
        }
        ip(&format!("-n {place} route add default via {gateway}"));
        if home.nat == Nat::None {
            // Whoever is on the same wire as the router learns of the home behind it from the server.
            ip(&format!("-n {internet} route add 10.{number}.0.0/24 via {wan}"));
        }
        run(
            "ip",
            &["netns", "exec", &router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
        );
        run(
            "ip",
            &["netns", "exec", &internet, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
        );
        // Other routers send what is for this home by way of the internet.
        ip(&format!("-n {router} route add default via {SERVER}"));
        nft(&router, &rules(home));
        own.into()
    }

    /// Lets the router of the home `name` forward a UDP port to this address in the home.
    pub fn forward(&self, name: &str, port: u16, to: SocketAddr) {
        let table = format!(
            "table ip forwarded {{\n\
               chain in {{\n type nat hook prerouting priority -100\n iifname \"wan\" udp dport {port} dnat to {to}\n }}\n\
             }}\n\
             insert rule ip home through iifname \"wan\" ct status dnat accept\n"
        );
        nft(&self.namespace(&format!("{name}-router")), &table);
    }

    /// Runs `act` as if this thread were at `place`: its sockets, and the programs and threads that it starts.
    pub fn inside<T>(&self, place: &str, act: impl FnOnce() -> T) -> T {
        let _back = Stay::at(&self.namespace(place));
        act()
    }

    /// Changes something of the network at `place`, in the words of `ip`.
    pub fn ip(&self, place: &str, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.namespace(place)));
    }

    /// The name of the namespace of `place`, for `ip netns exec`.
    pub fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    fn add(&mut self, place: &str) -> String {
        let namespace = self.namespace(place);
        ip(&format!("netns add {namespace}"));
        self.namespaces.push(namespace.clone());
        ip(&format!("-n {namespace} link set lo up"));
        namespace
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// While it lives, this thread is somewhere else.
struct Stay(File);

impl Stay {
    fn at(namespace: &str) -> Self {
        let before = File::open("/proc/thread-self/ns/net").expect("this thread's namespace");
        enter(&File::open(format!("/run/netns/{namespace}")).expect("the namespace"));
        Self(before)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        enter(&self.0);
    }
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering a network namespace");
}

fn rules(home: Home) -> String {
    let translation = match home.nat {
        Nat::None => "",
        Nat::PortRestricted => "oifname \"wan\" masquerade",
        Nat::Symmetric => "oifname \"wan\" masquerade fully-random",
    };
    let filter = match home.firewall {
        Firewall::Open => "",
        Firewall::NoUdp => "meta l4proto udp drop",
        Firewall::Only443 => "meta l4proto udp drop\n iifname \"lan\" tcp dport != 443 drop",
    };
    // A packet that nobody asked for must not take the port that a translation is about to use.
    let closed = if home.nat == Nat::None {
        ""
    } else {
        "iifname \"wan\" ct state new drop"
    };
    format!(
        "table ip home {{\n\
           chain out {{\n type nat hook postrouting priority 100\n {translation}\n }}\n\
           chain through {{\n type filter hook forward priority 0\n {filter}\n {closed}\n }}\n\
           chain in {{\n type filter hook input priority 0\n {closed}\n }}\n\
         }}\n"
    )
}

/// Of tests that were killed.
fn remove_leftovers() {
    let Ok(all) = fs::read_dir("/run/netns") else { return };
    for name in all.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !fs::exists(format!("/proc/{process}")).unwrap_or(true)) {
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
        }
    }
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn nft(namespace: &str, rules: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules");
    fs::write(&file, rules).expect("a file");
    run("ip", &["netns", "exec", namespace, "nft", "-f", &file.to_string_lossy()]);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("running {program} (apt install iproute2 nftables): {error}"));
    assert!(
        output.status.success(),
        "{program} {} (it takes root): {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
