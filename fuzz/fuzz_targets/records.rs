//! A peer that holds the keys and sends what it likes, cut where it likes, among bytes that nobody
//! has sealed: what it says comes out as it was said, up to an end that is final; what we say back
//! can be opened; little is held. And the tracker of partial records against a reader that has all.

#![no_main]

use arbitrary::Arbitrary;
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use libfuzzer_sys::fuzz_target;
use tidegate::tls::handover::Tail;
use tidegate::tls::records::{Buffer, Keys, Records, Role, Secret, Suite};

#[derive(Debug, Arbitrary)]
struct Input<'i> {
    is_tls12: bool,
    is_client: bool,
    suite: u8,
    /// Where what is sent is cut; the first follows again on the last.
    cuts: [u16; 4],
    moves: Vec<Move<'i>>,
}

#[derive(Debug, Arbitrary)]
enum Move<'i> {
    /// The peer seals this.
    Sends { kind: u8, content: &'i [u8], padding: u8 },
    /// The same, again and again.
    Floods { kind: u8, content: &'i [u8], times: u8 },
    /// Application data of any length.
    Says { len: u16, byte: u8 },
    /// The peer changes its keys, as it may.
    ChangesKeys { wants_ours: bool },
    /// A bit of a good record is another.
    Corrupts { content: &'i [u8], bit: u16 },
    /// Nobody has sealed this.
    Garbage(&'i [u8]),
    /// What was sent so far arrives.
    Arrives,
    /// We say something.
    WeSay { len: u16, byte: u8 },
    /// What we have waiting is written.
    WeFlush,
    /// We say our last.
    WeEnd,
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const PLAIN_BYTES: usize = 1 << 14;
/// A record, a message, and a few of our own that are short.
const HELD_BYTES: usize = (PLAIN_BYTES + 2048 + 5) + (1 << 17) + 1024 + 4096;

/// Keys of one direction as the peer has them, made of the RFCs once more.
struct Direction {
    suite: Suite,
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    is_tls12: bool,
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

impl Direction {
    fn new(is_tls12: bool, suite: Suite, secret: Vec<u8>) -> Self {
        let algorithm = match suite {
            Suite::Aes128Gcm => &aead::AES_128_GCM,
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = Self::expand(suite, &secret, "key", algorithm.key_len());
        let iv = Self::expand(suite, &secret, "iv", 12).try_into().expect("twelve bytes");
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("a key"));
        Self { suite, secret, key, iv, sequence: 0, is_tls12 }
    }

    fn expand(suite: Suite, secret: &[u8], label: &str, len: usize) -> Vec<u8> {
        let hash = if suite == Suite::Aes256Gcm { HKDF_SHA384 } else { HKDF_SHA256 };
        let label = format!("tls13 {label}");
        let info = [&[0, len as u8, label.len() as u8][..], label.as_bytes(), &[0]];
        let mut out = vec![0; len];
        let prk = Prk::new_less_safe(hash, secret);
        prk.expand(&info, Len(len)).and_then(|okm| okm.fill(&mut out)).expect("short enough");
        out
    }

    /// The same keys for what is being tested.
    fn keys(&self) -> Keys {
        if self.is_tls12 {
            let len = if self.suite == Suite::Aes128Gcm { 16 } else { 32 };
            let key = Self::expand(self.suite, &self.secret, "key", len);
            Keys::of_tls12(self.suite, &key, self.iv, 0).expect("keys")
        } else {
            let secret = Secret::new(&self.secret).expect("a secret");
            Keys::of(self.suite, secret).expect("keys")
        }
    }

    fn update(&mut self) {
        let next = Self::expand(self.suite, &self.secret, "traffic upd", self.secret.len());
        *self = Self::new(self.is_tls12, self.suite, next);
    }

    fn explicit(&self) -> usize {
        if self.is_tls12 && self.suite != Suite::ChaCha20Poly1305 { 8 } else { 0 }
    }

    fn nonce(&self) -> [u8; 12] {
        let sequence = u128::from(self.sequence).to_be_bytes();
        std::array::from_fn(|at| self.iv[at] ^ sequence[4 + at])
    }

    fn tls12_aad(&self, kind: u8, len: usize) -> Vec<u8> {
        [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &(len as u16).to_be_bytes()].concat()
    }

    fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = content.to_vec();
        let nonce = self.nonce();
        if !self.is_tls12 {
            inner.push(kind);
            inner.resize(inner.len() + padding, 0);
        }
        let len = self.explicit() + inner.len() + 16;
        let outer = if self.is_tls12 { kind } else { DATA };
        let header = [&[outer, 3, 3][..], &(len as u16).to_be_bytes()].concat();
        let aad = if self.is_tls12 { self.tls12_aad(kind, inner.len()) } else { header.clone() };
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, Aad::from(aad), &mut inner).expect("sealed");
        self.sequence += 1;
        [&header, &nonce[12 - self.explicit()..], &inner].concat()
    }

    /// Opens a record that must be good.
    fn open(&mut self, record: &[u8]) -> (u8, Vec<u8>) {
        let (header, content) = record.split_at(5);
        let (explicit, content) = content.split_at(self.explicit());
        let nonce = self.nonce();
        assert_eq!(explicit, &nonce[12 - explicit.len()..]);
        let aad = if self.is_tls12 {
            self.tls12_aad(header[0], content.len() - 16)
        } else {
            header.to_vec()
        };
        let mut content = content.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let opened = self.key.open_in_place(unique, Aad::from(aad), &mut content);
        let mut opened = opened.expect("a record that its peer can open").to_vec();
        self.sequence += 1;
        let kind = if self.is_tls12 { header[0] } else { opened.pop().expect("a type") };
        (kind, opened)
    }
}

/// What is tested, its peer, and what there is to come of it.
struct Test {
    ours: Records,
    /// What the peer seals with.
    theirs: Direction,
    /// What the peer opens with.
    opening: Direction,
    /// Sent and not yet arrived.
    sent: Vec<u8>,
    /// All that was sent.
    all: Vec<u8>,
    tail: Tail,
    /// Application data that the peer has said, in order, and how much of it has come out.
    said: Vec<u8>,
    heard: usize,
    /// What we have said, and how much of it the peer has opened.
    we_said: Vec<u8>,
    they_heard: usize,
    /// Whether all that was sent is what a peer may send.
    is_lawful: bool,
    changes: u32,
    has_last_word: bool,
}

impl Test {
    /// The peer seals this.
    fn seal(&mut self, kind: u8, content: &[u8], padding: usize) {
        let sealed = self.theirs.seal(kind, content, padding);
        self.send(&sealed);
        match (kind, content) {
            (DATA, content) => self.said.extend_from_slice(content),
            // With a type of zero the content is padding, up to what is then the type.
            (0, content) if !self.theirs.is_tls12 => {
                let last = content.iter().rposition(|byte| *byte != 0);
                if let Some(last) = last.filter(|last| content[*last] == DATA) {
                    self.said.extend_from_slice(&content[..last]);
                }
            }
            _ => {}
        }
        self.changes = 0;
        let is_good = kind == DATA && !content.is_empty();
        self.is_lawful &= is_good && content.len() + padding <= PLAIN_BYTES;
    }

    fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.all.extend_from_slice(bytes);
    }

    fn arrive(&mut self, cuts: &mut impl Iterator<Item = u16>) {
        let sent = std::mem::take(&mut self.sent);
        let (mut sent, mut plain) = (&sent[..], Buffer::new());
        while !sent.is_empty() {
            let cut = usize::from(cuts.next().unwrap_or(u16::MAX)).clamp(1, sent.len());
            let (piece, rest) = sent.split_at(cut);
            sent = rest;
            self.tail.read(piece);
            let before = self.ours.end().cloned();
            plain.begin_with(b"");
            self.ours.open(piece, &mut plain);
            let opened = plain.filled();
            assert!(self.said[self.heard..].starts_with(opened), "not what was said");
            self.heard += opened.len();
            if before.is_some() {
                assert!(opened.is_empty(), "opened behind the end");
                assert_eq!(self.ours.end(), before.as_ref(), "another end");
            }
            assert!(self.ours.held_bytes() <= HELD_BYTES, "{} held", self.ours.held_bytes());
        }
        assert_eq!(self.tail.partial(), behind_the_last_record(&self.all));
        if self.is_lawful {
            assert_eq!(self.ours.end(), None);
            assert_eq!(self.heard, self.said.len());
        }
    }

    /// The peer opens what we have written.
    fn written(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            assert!(!self.has_last_word, "behind the last word");
            let len = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
            let (record, rest) = bytes.split_at(len);
            bytes = rest;
            let (kind, content) = self.opening.open(record);
            match kind {
                DATA => {
                    assert!(!content.is_empty() && content.len() <= PLAIN_BYTES);
                    assert!(self.we_said[self.they_heard..].starts_with(&content));
                    self.they_heard += content.len();
                }
                HANDSHAKE => {
                    assert_eq!(content, [24, 0, 0, 1, 0]);
                    self.opening.update();
                }
                ALERT => self.has_last_word = content[0] == 2 || content[1] == 0,
                kind => panic!("a record of type {kind}"),
            }
        }
    }
}

/// Reads all of it from the beginning.
fn behind_the_last_record(mut bytes: &[u8]) -> &[u8] {
    while bytes.len() >= 5 {
        let len = 5 + usize::from(bytes[3]) * 256 + usize::from(bytes[4]);
        let Some(rest) = bytes.get(len..) else { break };
        bytes = rest;
    }
    bytes
}

fuzz_target!(|input: Input| {
    let suites = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let suite = suites[usize::from(input.suite) % suites.len()];
    let len = if suite == Suite::Aes256Gcm { 48 } else { 32 };
    let theirs = Direction::new(input.is_tls12, suite, vec![1; len]);
    let opening = Direction::new(input.is_tls12, suite, vec![2; len]);
    let role = if input.is_client { Role::Client } else { Role::Server };
    let mut test = Test {
        ours: Records::new(role, theirs.keys(), opening.keys()),
        theirs,
        opening,
        sent: Vec::new(),
        all: Vec::new(),
        tail: Tail::default(),
        said: Vec::new(),
        heard: 0,
        we_said: Vec::new(),
        they_heard: 0,
        is_lawful: true,
        changes: 0,
        has_last_word: false,
    };
    let mut cuts = input.cuts.into_iter().cycle();
    for next in input.moves.iter().take(256) {
        match *next {
            Move::Sends { kind, content, padding } => test.seal(kind, content, padding.into()),
            Move::Floods { kind, content, times } => {
                (0..times).for_each(|_| test.seal(kind, content, 0));
            }
            Move::Says { len, byte } => {
                let content = vec![byte; usize::from(len) % (PLAIN_BYTES + 300)];
                test.seal(DATA, &content, 0);
            }
            Move::ChangesKeys { wants_ours } => {
                let sealed = test.theirs.seal(HANDSHAKE, &[24, 0, 0, 1, wants_ours.into()], 0);
                test.send(&sealed);
                test.changes += 1;
                if input.is_tls12 {
                    test.is_lawful = false;
                } else {
                    test.theirs.update();
                }
                test.is_lawful &= test.changes <= 32;
            }
            Move::Corrupts { content, bit } => {
                let mut sealed = test.theirs.seal(DATA, content, 0);
                let at = usize::from(bit / 8) % sealed.len();
                sealed[at] ^= 1 << (bit % 8);
                test.send(&sealed);
                test.is_lawful = false;
            }
            Move::Garbage(bytes) => {
                test.send(bytes);
                test.is_lawful &= bytes.is_empty();
            }
            Move::Arrives => test.arrive(&mut cuts),
            Move::WeSay { len, byte } => {
                let said = vec![byte; len.into()];
                let mut sealed = Buffer::new();
                let is_sealed = test.ours.seal(&said, &mut sealed).is_ok();
                let has_failed = matches!(test.ours.end(), Some(Err(_)));
                assert_eq!(is_sealed, !has_failed);
                test.we_said.extend_from_slice(&said);
                let before = test.they_heard;
                test.written(sealed.filled());
                assert!(!has_failed || sealed.filled().is_empty());
                if is_sealed && !test.has_last_word && !test.ours.has_waiting() {
                    assert_eq!(test.they_heard - before, said.len());
                }
                test.we_said.truncate(test.they_heard);
            }
            Move::WeFlush => {
                let waiting = test.ours.take_waiting();
                test.written(&waiting);
            }
            Move::WeEnd => test.ours.seal_end(),
        }
    }
    test.arrive(&mut cuts);
    let waiting = test.ours.take_waiting();
    test.written(&waiting);
    assert!(!test.ours.has_waiting());
});
