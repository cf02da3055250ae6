//! The floor: what it costs to splice two connections on this machine, and nothing else. One thread,
//! epoll(7), four system calls a round trip; no HTTP, no frames, no limits, no log. With TLS it has
//! tidegate's own record layer, after a handshake of rustls's.
//!
//! It is no proxy that anybody could use: it waits for each handshake, takes everything for one
//! stream, and knows no timeout. What a real one costs more than this is what it does besides.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{KeyLog, ServerConfig, ServerConnection};
use tidegate::tls::records::{Buffer, READ_BYTES, Records, Secret, Secrets, TakenOver};

use crate::peer::Site;

/// What makes this program the floor, and is followed by what [`arguments`] gives.
pub(crate) const FLAG: &str = "--floor";

/// How what `flag` stands for is started at a site.
pub(crate) fn arguments(flag: &str, site: &Site) -> Vec<OsString> {
    let addresses = [site.wss, site.ws, site.backend].map(|address| address.to_string().into());
    let files = [site.chain.clone().into(), site.key.clone().into()];
    [OsString::from(flag)].into_iter().chain(addresses).chain(files).collect()
}

/// What [`arguments`] said behind the flag.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) wss: SocketAddr,
    pub(crate) ws: SocketAddr,
    pub(crate) backend: SocketAddr,
    chain: String,
    key: String,
}

impl Given {
    /// # Errors
    ///
    /// Where that is not what it was.
    pub(crate) fn read(arguments: &[String]) -> io::Result<Self> {
        let [wss, ws, backend, chain, key] = arguments else {
            return Err(io::Error::other("it takes five arguments"));
        };
        let address = |text: &String| text.parse::<SocketAddr>().map_err(io::Error::other);
        let (wss, ws, backend) = (address(wss)?, address(ws)?, address(backend)?);
        Ok(Self { wss, ws, backend, chain: chain.clone(), key: key.clone() })
    }

    /// TLS as every peer speaks it.
    ///
    /// # Errors
    ///
    /// Where chain and key cannot be used.
    pub(crate) fn tls(&self) -> io::Result<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.chain).map_err(io::Error::other)?;
        let chain = chain.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(tidegate::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Splices until it is killed.
///
/// # Errors
///
/// What is wrong with the arguments, and what the system says.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let given = Given::read(arguments)?;
    let secrets = Arc::new(Noted::default());
    let mut tls = given.tls()?;
    tls.enable_secret_extraction = true;
    tls.key_log = secrets.clone();
    let mut floor = Floor {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        pairs: Vec::new(),
        free: Vec::new(),
        backend: given.backend,
        tls: Arc::new(tls),
        secrets,
        scratch: Scratch { read: vec![0; READ_BYTES], plain: Buffer::new(), sealed: Buffer::new() },
    };
    let listeners = [TcpListener::bind(given.wss)?, TcpListener::bind(given.ws)?];
    for (at, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        let data = EventData::new_u64(u64::MAX - at as u64);
        epoll::add(&floor.epoll, listener, data, EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(1024);
    // Whose turn was over before it had nothing left to read.
    let mut again = Vec::new();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        events.clear();
        let patience = (!again.is_empty()).then_some(&at_once);
        match epoll::wait(&floor.epoll, spare_capacity(&mut events), patience) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            match u64::MAX - data {
                which @ 0..2 => {
                    while let Ok((tcp, _)) = listeners[which as usize].accept() {
                        // Whoever leaves in the middle of a handshake is no concern of others.
                        let _ = floor.open(tcp, which == 0);
                    }
                }
                _ => {
                    let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                    let number = data as usize;
                    if !again.contains(&(number, false)) {
                        again.push((number, flags.intersects(ends)));
                    }
                }
            }
        }
        again.retain(|&(number, is_ending)| floor.splice(number, is_ending));
    }
}

struct Floor {
    epoll: std::os::fd::OwnedFd,
    pairs: Vec<Option<[Side; 2]>>,
    free: Vec<usize>,
    backend: SocketAddr,
    tls: Arc<ServerConfig>,
    secrets: Arc<Noted>,
    scratch: Scratch,
}

struct Scratch {
    read: Vec<u8>,
    plain: Buffer,
    sealed: Buffer,
}

struct Side {
    tcp: TcpStream,
    records: Option<Box<Records>>,
    /// What the kernel did not take.
    stuck: Vec<u8>,
}

impl Floor {
    fn open(&mut self, client: TcpStream, over_tls: bool) -> io::Result<()> {
        client.set_nodelay(true)?;
        let records = if over_tls { Some(self.secure(&client)?) } else { None };
        let backend = TcpStream::connect(self.backend)?;
        backend.set_nodelay(true)?;
        let at = self.free.pop().unwrap_or(self.pairs.len());
        if at == self.pairs.len() {
            self.pairs.push(None);
        }
        let side = |tcp, records| Side { tcp, records, stuck: Vec::new() };
        let sides = [side(client, records), side(backend, None)];
        for (number, side) in sides.iter().enumerate() {
            side.tcp.set_nonblocking(true)?;
            let data = EventData::new_u64((at * 2 + number) as u64);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &side.tcp, data, flags)?;
        }
        self.pairs[at] = Some(sides);
        Ok(())
    }

    /// Makes the handshake, reading record by record, so that nothing is left behind in rustls.
    fn secure(&self, mut client: &TcpStream) -> io::Result<Box<Records>> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut tls = ServerConnection::new(self.tls.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            let mut record = vec![0; 5];
            client.read_exact(&mut record)?;
            let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
            record.resize(5 + len, 0);
            client.read_exact(&mut record[5..])?;
            let mut rest = &record[..];
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out)?;
            }
            client.write_all(&out)?;
        }
        let secrets = std::mem::take(&mut *self.secrets.lock());
        let TakenOver { records, .. } = Records::take_over(tls, secrets, Vec::new());
        Ok(Box::new(records))
    }

    /// Side `number` can be read, or written to again, or both. Whether there may be more to read.
    fn splice(&mut self, number: usize, is_ending: bool) -> bool {
        let Some(sides) = self.pairs.get_mut(number / 2).and_then(Option::as_mut) else {
            return false;
        };
        let (first, second) = sides.split_at_mut(1);
        let (woken, other) = match number % 2 {
            0 => (&mut first[0], &mut second[0]),
            _ => (&mut second[0], &mut first[0]),
        };
        let was_stuck = !woken.stuck.is_empty();
        let mut spliced = woken.flush().map(|()| false);
        if was_stuck {
            spliced = spliced.and_then(|_| pump(other, woken, &mut self.scratch, true));
        }
        let spliced = spliced.and_then(|_| pump(woken, other, &mut self.scratch, is_ending));
        spliced.unwrap_or_else(|_| {
            self.pairs[number / 2] = None;
            self.free.push(number / 2);
            false
        })
    }
}

/// Reads of one connection before others have their turn: as many as tidegate's.
const ROUNDS: usize = 8;

/// Passes on what there is, and says whether there may be more. After a short read nothing more is,
/// unless the end `is_near`.
fn pump(from: &mut Side, to: &mut Side, scratch: &mut Scratch, is_near: bool) -> io::Result<bool> {
    for _ in 0..ROUNDS {
        if !to.stuck.is_empty() {
            return Ok(false);
        }
        let len = match from.tcp.read(&mut scratch.read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut bytes = &scratch.read[..len];
        if let Some(records) = &mut from.records {
            scratch.plain.begin_with(&[]);
            records.open(bytes, &mut scratch.plain);
            bytes = scratch.plain.filled();
        }
        if let Some(records) = &mut to.records {
            scratch.sealed.begin_with(&[]);
            records.seal(bytes, &mut scratch.sealed).map_err(io::Error::other)?;
            bytes = scratch.sealed.filled();
        }
        to.send(bytes)?;
        if len < scratch.read.len() && !is_near {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Side {
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.tcp.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck = bytes.to_vec();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let stuck = std::mem::take(&mut self.stuck);
        self.send(&stuck)
    }
}

/// The secrets of the handshake that is being made: one at a time.
#[derive(Debug, Default)]
struct Noted(Mutex<Secrets>);

impl Noted {
    fn lock(&self) -> std::sync::MutexGuard<'_, Secrets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyLog for Noted {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => self.lock().client = Secret::new(secret),
            "SERVER_TRAFFIC_SECRET_0" => self.lock().server = Secret::new(secret),
            _ => {}
        }
    }
}
