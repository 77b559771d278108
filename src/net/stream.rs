//! A connection by TCP or TLS, to a TURN server or of a viewer, that never waits: what can't be sent now stays in a bounded queue.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};

/// What may wait here beside what the kernel has: a key frame for each of a few viewers. What comes on top is dropped and counted.
const MAX_QUEUED: usize = 1024 * 1024;
/// With more than this waiting, pictures stay in the hub, which clears what becomes too old up to the next key frame.
const FULL: usize = 32 * 1024;
/// What the kernel may hold beside what is on its way. Left to itself it would take seconds of video, which all come late.
const UNSENT_BYTES: u32 = 16 * 1024;
/// What goes into a TLS record.
const RECORD: usize = 16 * 1024;
/// Reads in a row, so that a server that floods us leaves the others their turn.
const READS_A_TURN: usize = 16;

/// How to speak TLS, and to whom.
#[derive(Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// A connection, from the moment it is tried.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    connecting: bool,
    /// What is still to be sent, from `sent` on.
    queue: Vec<u8>,
    sent: usize,
    was_full: bool,
}

impl Stream {
    /// Begins to connect, from an address of ours if one is named.
    ///
    /// # Errors
    /// There is no way to `server`.
    pub fn connect(server: SocketAddr, from: Option<IpAddr>, tls: Option<Tls>) -> Result<Self, String> {
        let tls = tls.map(|Tls { config, name }| {
            let connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
            Ok::<_, String>(Box::new(connection))
        });
        let socket = begin(server, from).map_err(|error| about_io(&error))?;
        Ok(Self {
            socket,
            tls: tls.transpose()?,
            connecting: true,
            queue: Vec::new(),
            sent: 0,
            was_full: false,
        })
    }

    /// A connection that was made to us.
    ///
    /// # Errors
    /// It is over already, as the system says it.
    pub fn accepted(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        Ok(Self {
            socket: socket.into(),
            tls: None,
            connecting: false,
            queue: Vec::new(),
            sent: 0,
            was_full: false,
        })
    }

    /// For polling.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether it is open: connected, and the TLS handshake done.
    pub fn is_open(&self) -> bool {
        !self.connecting && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        let writes = self.connecting || self.waiting() > 0 || self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }

    /// Whether pictures had better wait.
    pub fn is_full(&self) -> bool {
        self.waiting() > FULL
    }

    /// Whether there is room again since the last call.
    pub fn has_emptied(&mut self) -> bool {
        let full = self.is_full();
        std::mem::replace(&mut self.was_full, full) && !full
    }

    fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Queues a message; `false` if there is no room for it.
    pub fn push(&mut self, message: &[u8]) -> bool {
        if self.waiting() + message.len() > MAX_QUEUED {
            return false;
        }
        if self.sent > MAX_QUEUED / 2 {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        self.queue.extend_from_slice(message);
        self.was_full |= self.is_full();
        true
    }

    /// Reads what is there and gives it to `each`.
    ///
    /// # Errors
    /// The connection is over; why, in words.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), String> {
        if self.connecting && !self.has_connected()? {
            return Ok(());
        }
        let mut bytes = [0; RECORD];
        for _ in 0..READS_A_TURN {
            let read = match &mut self.tls {
                None => self.socket.read(&mut bytes),
                Some(tls) => tls.read_tls(&mut self.socket),
            };
            let read = match read {
                Ok(0) => return Err("it closed the connection".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(about_io(&error)),
            };
            match &mut self.tls {
                None => each(&bytes[..read]),
                Some(tls) => {
                    tls.process_new_packets().map_err(|error| about_tls(&error))?;
                    while let Ok(plain @ 1..) = tls.reader().read(&mut bytes) {
                        each(&bytes[..plain]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// As [`Stream::receive`].
    pub fn send(&mut self) -> Result<(), String> {
        if self.connecting && !self.has_connected()? {
            return Ok(());
        }
        match self.write() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(about_io(&error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        loop {
            let rest = &self.queue[self.sent..];
            let taken = match &mut self.tls {
                None if rest.is_empty() => break,
                None => match self.socket.write(rest) {
                    Ok(taken) => taken,
                    Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                    Err(error) => return Err(error),
                },
                Some(tls) if tls.wants_write() => {
                    tls.write_tls(&mut self.socket)?;
                    0
                }
                Some(tls) if rest.is_empty() || tls.is_handshaking() => break,
                Some(tls) => tls.writer().write(&rest[..rest.len().min(RECORD)])?,
            };
            self.sent += taken;
        }
        if self.waiting() == 0 {
            self.queue.clear();
            self.queue.shrink_to(FULL);
            self.sent = 0;
        }
        Ok(())
    }

    /// Whether the attempt to connect has succeeded by now.
    fn has_connected(&mut self) -> Result<bool, String> {
        if let Ok(Some(error)) | Err(error) = self.socket.take_error() {
            return Err(about_io(&error));
        }
        match self.socket.peer_addr() {
            Ok(_) => self.connecting = false,
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => return Err(about_io(&error)),
        }
        Ok(!self.connecting)
    }
}

fn begin(server: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Else a small message waits for the answer to the one before.
    socket.set_tcp_nodelay(true)?;
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// What an error of a socket means here.
pub fn about_io(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there; does the server run, and is the port right?".into(),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => "there is no way to it from this network".into(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof | ErrorKind::ConnectionAborted => {
            "it broke the connection".into()
        }
        ErrorKind::TimedOut => "it does not answer; does a firewall let it through?".into(),
        _ => error.to_string(),
    }
}

fn about_tls(error: &rustls::Error) -> String {
    use CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            "its certificate is not trusted; set `ca_file` of this ice_server to the certificate of the authority that signed it".into()
        }
        rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired; if it has not, this machine's clock is wrong".into()
        }
        rustls::Error::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
            "its certificate is not valid yet; most likely this machine's clock is wrong".into()
        }
        rustls::Error::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "its certificate is for another name; write into `urls` a name or address that the certificate holds".into()
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS at this port; is the scheme or the port of the URL wrong?".into(),
        other => format!("no TLS with it: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    /// Turns until `done`, or fails with `what`.
    fn turn(stream: &mut Stream, what: &str, mut done: impl FnMut(&mut Stream) -> bool) {
        let end = Instant::now() + Duration::from_secs(15);
        while !done(stream) {
            assert!(Instant::now() < end, "{what}: waited in vain");
            stream.receive(|_| {}).expect("the connection stands");
            stream.send().expect("the connection stands");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_not_taken_waits_up_to_a_bound_and_goes_on_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut stream = Stream::connect(listener.local_addr().expect("bound"), None, None).expect("begun");
        let (mut server, _) = listener.accept().expect("a connection");
        turn(&mut stream, "it opens", |stream| stream.is_open());
        assert!(!stream.is_full() && !stream.has_emptied());

        let message = |number: u32| [&number.to_be_bytes()[..], &[7; 1_196]].concat();
        let mut taken = 0;
        turn(&mut stream, "it fills up", |stream| {
            (0..100).any(|_| {
                let room = stream.push(&message(taken));
                taken += u32::from(room);
                !room
            })
        });
        assert!(stream.is_full() && stream.waiting() <= MAX_QUEUED);
        assert!(
            stream.queue.capacity() <= 4 * MAX_QUEUED,
            "{} bytes are held",
            stream.queue.capacity()
        );
        assert!(!stream.has_emptied(), "it is full still");

        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; 1_200];
            for number in 0..taken {
                server.read_exact(&mut bytes).expect("a message");
                assert_eq!(bytes, message(number), "message {number}");
            }
            server
        });
        turn(&mut stream, "it empties", |stream| stream.waiting() == 0);
        assert!(stream.has_emptied(), "pictures may go on");
        assert!(!stream.has_emptied(), "that is told once");
        assert!(stream.queue.capacity() <= FULL, "memory is given back");
        drop(reader.join().expect("all came in order"));
        let end = Instant::now() + Duration::from_secs(15);
        let reason = loop {
            match stream.receive(|_| {}) {
                Ok(()) => assert!(Instant::now() < end, "its end is noticed"),
                Err(reason) => break reason,
            }
        };
        assert!(reason.contains("closed the connection"), "{reason}");
    }

    #[test]
    fn where_nobody_listens_it_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let reason = match Stream::connect(address, None, None) {
            Err(reason) => reason,
            Ok(mut stream) => {
                let end = Instant::now() + Duration::from_secs(15);
                loop {
                    match stream.send() {
                        Ok(()) => assert!(Instant::now() < end, "it is noticed"),
                        Err(reason) => break reason,
                    }
                }
            }
        };
        assert!(reason.contains("nobody listens there"), "{reason}");
    }
}
