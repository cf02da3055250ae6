//! The record layer of a connection that is being relayed: ciphertext in, plaintext out, and the
//! other way round, without any I/O of its own.
//!
//! The handshake, and HTTP, are rustls's. For the relay the connection is taken apart: its traffic
//! secrets come here, and records are opened and sealed from one scratch buffer of the worker's
//! into another, with nothing copied on the way and nothing held between two messages but the keys.
//! What else can come on a connection after its handshake is dealt with here as well: alerts,
//! changes of keys, tickets (RFC 8446 §4.6, §5, §6; RFC 5246 §6 and §7.2 for TLS 1.2).

mod buffer;
mod keys;
#[cfg(test)]
mod tests;

use std::io::{BufRead as _, Write as _};
use std::mem;

use rustls::{Connection, ProtocolVersion};

pub use buffer::{Buffer, READ_BYTES};
use keys::{ContentType, HEADER_BYTES, PLAIN_BYTES};
pub use keys::{Keys, Secret, Suite};

/// One side of a TLS connection after its handshake.
#[derive(Debug)]
pub struct Records {
    /// What opens and what seals; `None` for a connection that had failed before we took over.
    keys: Option<(Keys, Keys)>,
    role: Role,
    /// The beginning of a record whose rest has not come yet. Holds no memory while it is empty.
    partial: Vec<u8>,
    /// The same of a handshake message.
    message: Vec<u8>,
    /// Records of our own that wait to be written: alerts, changes of keys.
    waiting: Vec<u8>,
    /// How the peer's direction ended.
    end: Option<Result<(), RecordError>>,
    /// Whether we have said our last: `close_notify`, or a fatal alert.
    is_over: bool,
    patience: Patience,
}

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Towards an endpoint.
    Client,
    /// Towards a client.
    Server,
}

/// The traffic secrets that the two sides of a TLS 1.3 handshake have come to. A connection of TLS
/// 1.2 has none.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The client's first (`CLIENT_TRAFFIC_SECRET_0`).
    pub client: Option<Secret>,
    /// The server's first (`SERVER_TRAFFIC_SECRET_0`).
    pub server: Option<Secret>,
}

/// What a connection was taken apart into.
#[derive(Debug)]
pub struct TakenOver {
    /// The record layer from here on.
    pub records: Records,
    /// Plaintext that was opened and not read.
    pub plain: Vec<u8>,
    /// Records that were sealed and not written.
    pub sealed: Vec<u8>,
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// A record that was not sealed with these keys, or was changed on its way.
    #[error("a TLS record cannot be opened: it was changed on its way or is out of place")]
    Mac,
    /// A record that is longer than any may be.
    #[error("a TLS record is longer than 2^14 bytes")]
    Overflow,
    /// Content that does not belong there.
    #[error("unexpected TLS content after the handshake")]
    Unexpected,
    /// Content that cannot be read.
    #[error("a TLS message after the handshake cannot be read")]
    Malformed,
    /// A value that means nothing.
    #[error("a TLS message after the handshake says what it may not")]
    Illegal,
    /// Too much of what leads nowhere: changes of keys, empty records, warnings.
    #[error("too many TLS records without content")]
    Fruitless,
    /// The peer gave up.
    #[error("the peer gave up with TLS alert {0}")]
    Alert(u8),
    /// No more can be sealed on this connection.
    #[error("the keys of TLS 1.2 are used up after 2^24 records")]
    KeysUsedUp,
    /// What the cryptographic library refuses, or a suite that it does not have.
    #[error("the cryptographic library refuses")]
    Crypto,
    /// It had failed before.
    #[error(transparent)]
    Handshake(rustls::Error),
}

impl RecordError {
    /// The alert that tells the peer (RFC 8446 §6).
    fn alert(&self) -> Option<u8> {
        match self {
            Self::Mac => Some(20),
            Self::Overflow => Some(22),
            Self::Unexpected | Self::Fruitless => Some(10),
            Self::Illegal => Some(47),
            Self::Malformed => Some(50),
            Self::KeysUsedUp | Self::Crypto => Some(80),
            Self::Alert(_) | Self::Handshake(_) => None,
        }
    }
}

/// How much of what leads nowhere is still to be borne (the numbers are BoringSSL's and rustls's).
#[derive(Debug)]
struct Patience {
    /// Changes of the peer's keys without application data in between.
    key_updates: u8,
    /// Records without content, one after the other.
    empty: u8,
    /// Alerts that are mere warnings.
    warnings: u8,
    /// Attempts to begin another handshake, in TLS 1.2.
    renegotiations: u8,
}

const KEY_UPDATES: u8 = 32;
const EMPTY: u8 = 32;

impl Default for Patience {
    fn default() -> Self {
        Self { key_updates: KEY_UPDATES, empty: EMPTY, warnings: 4, renegotiations: 1 }
    }
}

/// Takes one from what is left.
fn endure(left: &mut u8) -> Result<(), RecordError> {
    *left = left.checked_sub(1).ok_or(RecordError::Fruitless)?;
    Ok(())
}

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;

/// Handshake messages that may come after the handshake: RFC 8446 §4.6, RFC 5246 §7.4.1.
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// What they come to.
#[derive(Debug, Clone, Copy)]
enum Post {
    KeyUpdate,
    Ticket,
    Renegotiation,
}

/// Type and length.
const MESSAGE_HEADER_BYTES: usize = 4;
/// The longest that one may be: a ticket has two parts of 64 KiB at the most, and so has a
/// ClientHello (RFC 8446 §4.6.1, §4.1.2); what else is in them is short.
const MESSAGE_BYTES: usize = (1 << 17) + 512;

impl Records {
    /// Takes a connection apart whose handshake is done. `partial` is the beginning of a record
    /// whose rest was not read yet, `secrets` are those of its handshake.
    ///
    /// A connection that has failed is taken over as well: its end says why. A handshake message
    /// of which rustls has heard one record and not the next is lost; the rest of it is then an end.
    pub fn take_over(
        connection: impl Into<Connection>,
        secrets: Secrets,
        partial: Vec<u8>,
    ) -> TakenOver {
        let mut connection = connection.into();
        let role = match connection {
            Connection::Client(_) => Role::Client,
            Connection::Server(_) => Role::Server,
        };
        // The end may have come with the last bytes that the handshake or HTTP read.
        let end = match connection.process_new_packets() {
            Ok(state) => state.peer_has_closed().then_some(Ok(())),
            Err(error) => Some(Err(RecordError::Handshake(error))),
        };
        let mut plain = Vec::new();
        let mut reader = connection.reader();
        while let Ok(chunk) = reader.fill_buf() {
            let len = chunk.len();
            if len == 0 {
                break;
            }
            plain.extend_from_slice(chunk);
            reader.consume(len);
        }
        // An answer to a change of keys is kept by rustls until something is written behind it.
        let _ = connection.writer().write(&[]);
        let mut sealed = Vec::new();
        while connection.wants_write() {
            if connection.write_tls(&mut sealed).is_err() {
                break;
            }
        }
        let (keys, end) = match end {
            Some(Err(error)) => (None, Some(Err(error))),
            end => match keys_of(connection, role, secrets) {
                Ok(keys) => (Some(keys), end),
                Err(error) => (None, Some(Err(error))),
            },
        };
        let records = Self {
            keys,
            role,
            partial,
            message: Vec::new(),
            waiting: Vec::new(),
            end,
            is_over: false,
            patience: Patience::default(),
        };
        TakenOver { records, plain, sealed }
    }

    /// The records of one side of a connection whose handshake was made elsewhere: `theirs` open
    /// what comes, `ours` seal what goes.
    pub fn new(role: Role, theirs: Keys, ours: Keys) -> Self {
        Self {
            keys: Some((theirs, ours)),
            role,
            partial: Vec::new(),
            message: Vec::new(),
            waiting: Vec::new(),
            end: None,
            is_over: false,
            patience: Patience::default(),
        }
    }

    /// How many bytes are held between two calls: parts of a record and of a message, and what
    /// waits to be written.
    pub fn held_bytes(&self) -> usize {
        self.partial.len() + self.message.len() + self.waiting.len()
    }

    /// How the peer's direction ended, once it has: by `close_notify` (RFC 8446 §6.1), or by
    /// something that is no TLS or an alert; an alert that says so is then waiting to be written.
    /// There may be plaintext from before it.
    pub fn end(&self) -> Option<&Result<(), RecordError>> {
        self.end.as_ref()
    }

    /// Opens as many records as `sealed` completes and appends their plaintext to `plain`. Part
    /// of a record is kept until the rest comes.
    pub fn open(&mut self, mut sealed: &[u8], plain: &mut Buffer) {
        if !self.partial.is_empty() {
            let mut record = mem::take(&mut self.partial);
            while self.end.is_none() {
                let whole = match self.whole_len(&record) {
                    Ok(whole) => whole,
                    Err(error) => return self.fail(error),
                };
                let lacking = whole.unwrap_or(HEADER_BYTES) - record.len();
                if lacking == 0 {
                    self.open_record(&record, plain);
                    break;
                }
                let Some((rest, further)) = sealed.split_at_checked(lacking) else {
                    record.extend_from_slice(sealed);
                    self.partial = record;
                    return;
                };
                record.extend_from_slice(rest);
                sealed = further;
            }
        }
        while self.end.is_none() && !sealed.is_empty() {
            let whole = match self.whole_len(sealed) {
                Ok(whole) => whole,
                Err(error) => return self.fail(error),
            };
            match whole.and_then(|whole| sealed.split_at_checked(whole)) {
                Some((record, rest)) => {
                    self.open_record(record, plain);
                    sealed = rest;
                }
                None => {
                    // Room for all of it, so that it is moved only once.
                    self.partial.reserve_exact(whole.unwrap_or(HEADER_BYTES));
                    self.partial.extend_from_slice(sealed);
                    return;
                }
            }
        }
    }

    /// How long the record is that begins so, as far as that can be told.
    fn whole_len(&self, record: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some((header, _)) = record.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let content = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let longest = self.keys.as_ref().map_or(0, |(theirs, _)| theirs.longest_content());
        if content > longest {
            Err(RecordError::Overflow)
        } else {
            Ok(Some(HEADER_BYTES + content))
        }
    }

    fn open_record(&mut self, record: &[u8], plain: &mut Buffer) {
        if let Err(error) = self.try_open_record(record, plain) {
            self.fail(error);
        }
    }

    fn try_open_record(&mut self, record: &[u8], plain: &mut Buffer) -> Result<(), RecordError> {
        let Some((theirs, _)) = &mut self.keys else { return Err(RecordError::Crypto) };
        let room = plain.room(record.len());
        let (kind, len) = theirs.open(record, room)?;
        let content = &room[..len];
        // Messages of the handshake come in one piece (RFC 8446 §5.1).
        if !self.message.is_empty() && kind != ContentType::HANDSHAKE {
            return Err(RecordError::Unexpected);
        }
        match kind {
            ContentType::APPLICATION_DATA if len == 0 => endure(&mut self.patience.empty),
            ContentType::APPLICATION_DATA => {
                self.patience.empty = EMPTY;
                self.patience.key_updates = KEY_UPDATES;
                plain.add(len);
                Ok(())
            }
            ContentType::ALERT => {
                let alert = <[u8; 2]>::try_from(content).map_err(|_| RecordError::Malformed)?;
                self.hear_alert(alert)
            }
            ContentType::HANDSHAKE => {
                if len == 0 {
                    return Err(RecordError::Unexpected);
                }
                self.message.extend_from_slice(content);
                self.hear_messages()
            }
            ContentType(_) => Err(RecordError::Unexpected),
        }
    }

    /// RFC 8446 §6, RFC 5246 §7.2.
    fn hear_alert(&mut self, [level, alert]: [u8; 2]) -> Result<(), RecordError> {
        let is_tls13 = self.keys.as_ref().is_some_and(|(theirs, _)| theirs.is_tls13());
        match alert {
            CLOSE_NOTIFY => {
                self.end = Some(Ok(()));
                Ok(())
            }
            USER_CANCELED if is_tls13 => endure(&mut self.patience.warnings),
            // TLS 1.3 knows no other warnings, whatever the level says.
            _ if is_tls13 || level != WARNING => Err(RecordError::Alert(alert)),
            _ => endure(&mut self.patience.warnings),
        }
    }

    /// Takes whole messages from what has come of them. Of one that has not come whole, the header
    /// is judged as soon as it is there, so that no more is kept than something lawful can have.
    fn hear_messages(&mut self) -> Result<(), RecordError> {
        let mut messages = mem::take(&mut self.message);
        let mut heard = 0;
        while let Some((&[kind, length @ ..], behind)) =
            messages[heard..].split_first_chunk::<MESSAGE_HEADER_BYTES>()
        {
            let len = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            let post = self.expect_message(kind, len)?;
            let Some((body, behind)) = behind.split_at_checked(len) else { break };
            self.hear_message(post, body, behind.is_empty())?;
            heard = messages.len() - behind.len();
        }
        // One in many pieces is not copied with each of them.
        messages.drain(..heard);
        if !messages.is_empty() {
            self.message = messages;
        }
        Ok(())
    }

    /// What kind of message that is, if it has a place behind the handshake and may be so long.
    fn expect_message(&self, kind: u8, len: usize) -> Result<Post, RecordError> {
        let is_tls13 = self.keys.as_ref().is_some_and(|(theirs, _)| theirs.is_tls13());
        let (message, longest) = match (is_tls13, self.role, kind) {
            (true, _, KEY_UPDATE) => (Post::KeyUpdate, 1),
            (true, Role::Client, NEW_SESSION_TICKET) => (Post::Ticket, MESSAGE_BYTES),
            (false, Role::Client, HELLO_REQUEST) => (Post::Renegotiation, 0),
            (false, Role::Server, CLIENT_HELLO) => (Post::Renegotiation, MESSAGE_BYTES),
            _ => return Err(RecordError::Unexpected),
        };
        if len > longest { Err(RecordError::Malformed) } else { Ok(message) }
    }

    fn hear_message(
        &mut self,
        message: Post,
        body: &[u8],
        is_last: bool,
    ) -> Result<(), RecordError> {
        match message {
            // What follows is sealed with the new keys (RFC 8446 §5.1).
            Post::KeyUpdate if !is_last => Err(RecordError::Unexpected),
            Post::KeyUpdate => {
                let is_answer_wanted = match body {
                    [0] => false,
                    [1] => true,
                    // RFC 8446 §4.6.3.
                    [_] => return Err(RecordError::Illegal),
                    _ => return Err(RecordError::Malformed),
                };
                endure(&mut self.patience.key_updates)?;
                let Some((theirs, _)) = &mut self.keys else { return Err(RecordError::Crypto) };
                theirs.update()?;
                if is_answer_wanted { self.answer_key_update() } else { Ok(()) }
            }
            // rustls has those that came with the handshake, which do to connect again.
            Post::Ticket => Ok(()),
            Post::Renegotiation => {
                endure(&mut self.patience.renegotiations)?;
                self.say(ContentType::ALERT, &[WARNING, NO_RENEGOTIATION])
            }
        }
    }

    /// One answer does for several wishes (RFC 8446 §4.6.3).
    fn answer_key_update(&mut self) -> Result<(), RecordError> {
        if self.is_over || !self.waiting.is_empty() {
            return Ok(());
        }
        self.say(ContentType::HANDSHAKE, &key_update())?;
        self.keys.as_mut().map_or(Err(RecordError::Crypto), |(_, ours)| ours.update())
    }

    /// Has a record of our own wait to be written, unless we have said our last.
    fn say(&mut self, kind: ContentType, content: &[u8]) -> Result<(), RecordError> {
        if self.is_over {
            return Ok(());
        }
        let Some((_, ours)) = &mut self.keys else { return Err(RecordError::Crypto) };
        let begin = self.waiting.len();
        self.waiting.resize(begin + ours.sealed_len(content.len()), 0);
        let said = ours.seal(kind, content, &mut self.waiting[begin..]);
        if said.is_err() {
            self.waiting.truncate(begin);
        }
        said
    }

    fn fail(&mut self, error: RecordError) {
        if let Some(alert) = error.alert() {
            // Where that cannot be said either, the connection just ends.
            let _ = self.say(ContentType::ALERT, &[FATAL, alert]);
        }
        // Nothing is said behind a fatal alert, whoever it came from (RFC 8446 §6.2).
        self.is_over = true;
        self.end = Some(Err(error));
    }

    /// Seals `plain` into full records and appends them to `out`, behind what waits. Behind our own
    /// `close_notify` it goes nowhere (RFC 8446 §6.1).
    ///
    /// # Errors
    ///
    /// [`RecordError::KeysUsedUp`]; nothing of `plain` was sealed. Why the connection has failed, if
    /// it has.
    pub fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), RecordError> {
        let Some((_, ours)) = &mut self.keys else { return Err(RecordError::Crypto) };
        if let Some(Err(error)) = &self.end {
            return Err(error.clone());
        }
        if self.is_over {
            return Ok(());
        }
        let records = plain.len().div_ceil(PLAIN_BYTES) as u64;
        if !ours.is_tls13() && !ours.lasts_for(records) {
            return Err(RecordError::KeysUsedUp);
        }
        if !self.waiting.is_empty() {
            out.append(&mem::take(&mut self.waiting));
        }
        for chunk in plain.chunks(PLAIN_BYTES) {
            // Leaves one for the change of keys itself.
            if ours.is_tls13() && !ours.lasts_for(2) {
                let change = key_update();
                let len = ours.sealed_len(change.len());
                ours.seal(ContentType::HANDSHAKE, &change, out.room(len))?;
                out.add(len);
                ours.update()?;
            }
            let len = ours.sealed_len(chunk.len());
            ours.seal(ContentType::APPLICATION_DATA, chunk, out.room(len))?;
            out.add(len);
        }
        Ok(())
    }

    /// Says `close_notify`: nothing of ours will follow.
    pub fn seal_end(&mut self) {
        // Where that cannot be said, the connection just ends.
        let _ = self.say(ContentType::ALERT, &[WARNING, CLOSE_NOTIFY]);
        self.is_over = true;
    }

    /// Whether records of our own are waiting to be written.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes them, to be written before anything that is sealed from now on.
    pub fn take_waiting(&mut self) -> Vec<u8> {
        mem::take(&mut self.waiting)
    }
}

/// Our keys change, and the peer's need not.
fn key_update() -> [u8; MESSAGE_HEADER_BYTES + 1] {
    [KEY_UPDATE, 0, 0, 1, 0]
}

/// The keys of the peer's direction and of ours.
fn keys_of(
    connection: Connection,
    role: Role,
    secrets: Secrets,
) -> Result<(Keys, Keys), RecordError> {
    let version = connection.protocol_version();
    let extracted = connection.dangerous_extract_secrets().map_err(RecordError::Handshake)?;
    if version == Some(ProtocolVersion::TLSv1_2) {
        return Ok((Keys::tls12(extracted.rx)?, Keys::tls12(extracted.tx)?));
    }
    let (Some(client), Some(server)) = (secrets.client, secrets.server) else {
        return Err(RecordError::Crypto);
    };
    let (theirs, ours) = match role {
        Role::Client => (server, client),
        Role::Server => (client, server),
    };
    Ok((Keys::tls13(extracted.rx, theirs)?, Keys::tls13(extracted.tx, ours)?))
}
