//! The keys of one direction of a TLS connection, and what they do with one record: RFC 8446 §5
//! and §7 for TLS 1.3; RFC 5246 §6.2, RFC 5288 and RFC 7905 for TLS 1.2.

use std::fmt;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::RecordError;

/// Content type, protocol version, length (RFC 8446 §5.1).
pub(super) const HEADER_BYTES: usize = 5;
/// The plaintext of one record at the most (RFC 8446 §5.1).
pub(super) const PLAIN_BYTES: usize = 1 << 14;
const TAG_BYTES: usize = 16;
/// What AES-GCM in TLS 1.2 sends of its nonce (RFC 5288 §3).
const EXPLICIT_NONCE_BYTES: usize = 8;
/// By how much the content of a record may exceed its plaintext: RFC 8446 §5.2, RFC 5246 §6.2.3.
const TLS13_EXPANSION: usize = 256;
const TLS12_EXPANSION: usize = 2048;
/// AES-GCM seals 2^24.5 full records under one key at the most (RFC 8446 §5.5). We stop long
/// before that, with a number that leaves enough for alerts.
const AES_GCM_RECORDS: u64 = (1 << 24) - (1 << 16);
const SECRET_BYTES: usize = 48;
/// Generations of keys that a connection may have gone through before we take it over.
const GENERATIONS: usize = 1 << 10;

/// What kind of content a record has (RFC 8446 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentType(pub(super) u8);

impl ContentType {
    pub(super) const ALERT: Self = Self(21);
    pub(super) const HANDSHAKE: Self = Self(22);
    pub(super) const APPLICATION_DATA: Self = Self(23);
}

/// A traffic secret of TLS 1.3, of as many bytes as the hash of the suite has. It stays in its
/// place when its owner moves, so that nothing of it is left behind when it is wiped.
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes it down. `None` if it is longer than that of any suite.
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() <= SECRET_BYTES).then(|| Self(Zeroizing::new(secret.into())))
    }

    /// HKDF-Expand-Label without a context (RFC 8446 §7.1).
    fn expand(&self, suite: Suite, label: &[u8], out: &mut [u8]) -> Result<(), RecordError> {
        struct Length(usize);
        impl KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        const PREFIX: &[u8] = b"tls13 ";
        let (Ok(length), Ok(label_len)) =
            (u16::try_from(out.len()), u8::try_from(PREFIX.len() + label.len()))
        else {
            return Err(RecordError::Crypto);
        };
        let info = [&length.to_be_bytes()[..], &[label_len], PREFIX, label, &[0]];
        if self.0.len() != suite.secret_bytes() {
            return Err(RecordError::Crypto);
        }
        Prk::new_less_safe(suite.hash(), &self.0)
            .expand(&info, Length(out.len()))
            .and_then(|expanded| expanded.fill(out))
            .map_err(|_| RecordError::Crypto)
    }

    /// The secret behind the next generation of keys (RFC 8446 §7.2).
    fn next(&self, suite: Suite) -> Result<Self, RecordError> {
        let mut next = self.clone();
        self.expand(suite, b"traffic upd", &mut next.0)?;
        Ok(next)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How records are sealed. In TLS 1.3 it also says which hash keys are derived with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// AES-GCM with a key of 16 bytes, and SHA-256.
    Aes128Gcm,
    /// AES-GCM with a key of 32 bytes, and SHA-384.
    Aes256Gcm,
    /// ChaCha20-Poly1305, and SHA-256.
    ChaCha20Poly1305,
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => HKDF_SHA256,
            Self::Aes256Gcm => HKDF_SHA384,
        }
    }

    fn secret_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 32,
            Self::Aes256Gcm => SECRET_BYTES,
        }
    }

    fn records(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => AES_GCM_RECORDS,
            Self::ChaCha20Poly1305 => u64::MAX - (1 << 16),
        }
    }
}

/// Which protocol's records they are.
#[derive(Debug, Clone)]
enum Protocol {
    /// With part of the nonce in each record, or without.
    Tls12 { is_nonce_explicit: bool },
    /// With the secret that the keys, or those before them, followed from.
    Tls13(Secret),
}

/// The keys of one direction.
pub struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// Records that were sealed or opened with this key.
    sequence: u64,
    /// How many may be sealed with it.
    limit: u64,
    suite: Suite,
    protocol: Protocol,
}

impl Keys {
    /// Of a TLS 1.2 connection, as rustls gives them away.
    ///
    /// # Errors
    ///
    /// [`RecordError::Crypto`] for a suite that we do not know.
    pub(super) fn tls12(
        (sequence, traffic): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordError> {
        let (suite, key, iv) = parts(&traffic)?;
        Self::of_tls12(suite, key, iv, sequence)
    }

    /// Of a TLS 1.2 connection: what its key block has for one direction, all twelve bytes of the
    /// nonce in `iv`, and how many records went that way.
    ///
    /// # Errors
    ///
    /// [`RecordError::Crypto`] for a key of another length than the suite's.
    pub fn of_tls12(
        suite: Suite,
        key: &[u8],
        iv: [u8; NONCE_LEN],
        sequence: u64,
    ) -> Result<Self, RecordError> {
        let is_nonce_explicit = suite != Suite::ChaCha20Poly1305;
        Self::new(suite, key, iv, sequence, Protocol::Tls12 { is_nonce_explicit })
    }

    /// Of a TLS 1.3 connection: as rustls gives them away, and the secret that they began with.
    ///
    /// # Errors
    ///
    /// [`RecordError::Crypto`] for a suite that we do not know.
    pub(super) fn tls13(
        (sequence, traffic): (u64, ConnectionTrafficSecrets),
        secret: Secret,
    ) -> Result<Self, RecordError> {
        let (suite, key, iv) = parts(&traffic)?;
        Self::new(suite, key, iv, sequence, Protocol::Tls13(secret))
    }

    /// Those that follow from a secret of TLS 1.3, at their beginning.
    ///
    /// # Errors
    ///
    /// [`RecordError::Crypto`] for a secret of another length than the suite's hash.
    pub fn of(suite: Suite, secret: Secret) -> Result<Self, RecordError> {
        let (key, iv) = derive(suite, &secret)?;
        let key = &key[..suite.algorithm().key_len()];
        Self::new(suite, key, iv, 0, Protocol::Tls13(secret))
    }

    fn new(
        suite: Suite,
        key: &[u8],
        iv: [u8; NONCE_LEN],
        sequence: u64,
        protocol: Protocol,
    ) -> Result<Self, RecordError> {
        let key = UnboundKey::new(suite.algorithm(), key).map_err(|_| RecordError::Crypto)?;
        let limit = suite.records();
        Ok(Self { key: LessSafeKey::new(key), iv, sequence, limit, suite, protocol })
    }

    /// Goes on to the next generation (RFC 8446 §7.2).
    ///
    /// # Errors
    ///
    /// [`RecordError::Unexpected`] in TLS 1.2, which knows no such thing; [`RecordError::Crypto`]
    /// if the secret that was given is none of this connection's.
    pub(super) fn update(&mut self) -> Result<(), RecordError> {
        let Protocol::Tls13(secret) = &self.protocol else { return Err(RecordError::Unexpected) };
        let (suite, mut secret) = (self.suite, secret.clone());
        for _ in 0..GENERATIONS {
            let is_current = derive(suite, &secret)?.1 == self.iv;
            secret = secret.next(suite)?;
            if is_current {
                *self = Self { limit: self.limit, ..Self::of(suite, secret)? };
                return Ok(());
            }
            // The keys had been changed between the handshake and the relay.
        }
        Err(RecordError::Crypto)
    }

    pub(super) fn is_tls13(&self) -> bool {
        matches!(self.protocol, Protocol::Tls13(_))
    }

    /// Whether so many more records may be sealed with this key.
    pub(super) fn lasts_for(&self, records: u64) -> bool {
        self.sequence.saturating_add(records) <= self.limit
    }

    /// Has them last for no more than so many records.
    #[cfg(test)]
    pub(super) fn limit_to(&mut self, records: u64) {
        self.limit = records;
    }

    /// The content of a record at the most, as its header may announce it.
    pub(super) fn longest_content(&self) -> usize {
        match self.protocol {
            Protocol::Tls12 { .. } => PLAIN_BYTES + TLS12_EXPANSION,
            Protocol::Tls13(_) => PLAIN_BYTES + TLS13_EXPANSION,
        }
    }

    /// The length of the record that `len` bytes become.
    pub(super) fn sealed_len(&self, len: usize) -> usize {
        let expansion = match self.protocol {
            Protocol::Tls12 { is_nonce_explicit: true } => EXPLICIT_NONCE_BYTES,
            Protocol::Tls12 { is_nonce_explicit: false } => 0,
            Protocol::Tls13(_) => 1,
        };
        HEADER_BYTES + expansion + len + TAG_BYTES
    }

    /// Seals `plain`, [`PLAIN_BYTES`] of it at the most, as one record into `out`, which is
    /// [`Keys::sealed_len`] bytes.
    ///
    /// # Errors
    ///
    /// [`RecordError::Crypto`] where the lengths are not these.
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<(), RecordError> {
        let content_len = out.len().checked_sub(HEADER_BYTES).ok_or(RecordError::Crypto)?;
        let content_len = u16::try_from(content_len).map_err(|_| RecordError::Crypto)?;
        let nonce = self.nonce();
        if out.len() != self.sealed_len(plain.len()) {
            return Err(RecordError::Crypto);
        }
        let (header, content) = out.split_at_mut(HEADER_BYTES);
        let outer = match self.protocol {
            Protocol::Tls12 { .. } => kind,
            Protocol::Tls13(_) => ContentType::APPLICATION_DATA,
        };
        header[..3].copy_from_slice(&[outer.0, 3, 3]);
        header[3..].copy_from_slice(&content_len.to_be_bytes());
        let sealed = match self.protocol {
            Protocol::Tls13(_) => {
                let (sealed, tag) = content.split_at_mut(plain.len());
                let aad = Aad::from(&*header);
                self.key.seal_out_of_place_scatter(
                    Nonce::assume_unique_for_key(nonce),
                    aad,
                    plain,
                    sealed,
                    &[kind.0],
                    tag,
                )
            }
            Protocol::Tls12 { is_nonce_explicit } => {
                let aad = Aad::from(self.tls12_aad([kind.0, 3, 3], plain.len())?);
                let explicit = if is_nonce_explicit { EXPLICIT_NONCE_BYTES } else { 0 };
                let (explicit, content) = content.split_at_mut(explicit);
                explicit.copy_from_slice(&nonce[NONCE_LEN - explicit.len()..]);
                let (sealed, tag) = content.split_at_mut(plain.len());
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.key.seal_out_of_place_scatter(nonce, aad, plain, sealed, &[], tag)
            }
        };
        self.sequence += 1;
        sealed.map_err(|_| RecordError::Crypto)
    }

    /// Opens one whole record into `out`, which is as long as the record at least; and says what
    /// it is and how long.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; what is in `out` is then worth nothing.
    pub(super) fn open(
        &mut self,
        record: &[u8],
        out: &mut [u8],
    ) -> Result<(ContentType, usize), RecordError> {
        let (header, content) =
            record.split_first_chunk::<HEADER_BYTES>().ok_or(RecordError::Mac)?;
        let type_and_version = [header[0], header[1], header[2]];
        let outer = ContentType(header[0]);
        // Whatever it is, it is not sealed (RFC 8446 §5).
        if self.is_tls13() && outer != ContentType::APPLICATION_DATA {
            return Err(RecordError::Unexpected);
        }
        let sealed_len = content.len().checked_sub(TAG_BYTES).ok_or(RecordError::Mac)?;
        let (sealed, tag) = content.split_at(sealed_len);
        match self.protocol {
            Protocol::Tls13(_) => {
                let nonce = Nonce::assume_unique_for_key(self.nonce());
                let out = out.get_mut(..sealed_len).ok_or(RecordError::Crypto)?;
                let opened =
                    self.key.open_separate_gather(nonce, Aad::from(header), sealed, tag, out);
                opened.map_err(|_| RecordError::Mac)?;
                self.sequence += 1;
                // Padding, which counts as well (RFC 8446 §5.4).
                if out.len() > PLAIN_BYTES + 1 {
                    return Err(RecordError::Overflow);
                }
                let last = out.iter().rposition(|byte| *byte != 0);
                let last = last.ok_or(RecordError::Unexpected)?;
                Ok((ContentType(out[last]), last))
            }
            Protocol::Tls12 { is_nonce_explicit } => {
                let mut nonce = self.nonce();
                let mut sealed = sealed;
                if is_nonce_explicit {
                    let (explicit, rest) =
                        sealed.split_at_checked(EXPLICIT_NONCE_BYTES).ok_or(RecordError::Mac)?;
                    nonce[NONCE_LEN - EXPLICIT_NONCE_BYTES..].copy_from_slice(explicit);
                    sealed = rest;
                }
                let aad = Aad::from(self.tls12_aad(type_and_version, sealed.len())?);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let out = out.get_mut(..sealed.len()).ok_or(RecordError::Crypto)?;
                let opened = self.key.open_separate_gather(nonce, aad, sealed, tag, out);
                opened.map_err(|_| RecordError::Mac)?;
                self.sequence += 1;
                if sealed.len() > PLAIN_BYTES {
                    return Err(RecordError::Overflow);
                }
                Ok((outer, sealed.len()))
            }
        }
    }

    /// The sequence number, padded to the left and added to the IV: RFC 8446 §5.3, RFC 7905 §2.
    /// AES-GCM in TLS 1.2 leaves it to each side how to keep its nonces apart (RFC 5288 §3); rustls
    /// does it so, and we go on as it began.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        for (byte, of_sequence) in nonce[NONCE_LEN - sequence.len()..].iter_mut().zip(sequence) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// RFC 5246 §6.2.3.3.
    fn tls12_aad(&self, type_and_version: [u8; 3], len: usize) -> Result<[u8; 13], RecordError> {
        let len = u16::try_from(len).map_err(|_| RecordError::Overflow)?;
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&type_and_version);
        aad[11..].copy_from_slice(&len.to_be_bytes());
        Ok(aad)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suite, sequence, .. } = self;
        f.debug_struct("Keys").field("suite", suite).field("sequence", sequence).finish()
    }
}

/// The key, with room for the longest, and the IV of a generation (RFC 8446 §7.3).
fn derive(
    suite: Suite,
    secret: &Secret,
) -> Result<(Zeroizing<[u8; 32]>, [u8; NONCE_LEN]), RecordError> {
    let mut key = Zeroizing::new([0; 32]);
    let mut iv = [0; NONCE_LEN];
    secret.expand(suite, b"key", &mut key[..suite.algorithm().key_len()])?;
    secret.expand(suite, b"iv", &mut iv)?;
    Ok((key, iv))
}

fn parts(
    traffic: &ConnectionTrafficSecrets,
) -> Result<(Suite, &[u8], [u8; NONCE_LEN]), RecordError> {
    use ConnectionTrafficSecrets as Traffic;
    let (suite, key, iv) = match traffic {
        Traffic::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        Traffic::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        Traffic::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20Poly1305, key, iv),
        _ => return Err(RecordError::Crypto),
    };
    let iv = iv.as_ref().try_into().map_err(|_| RecordError::Crypto)?;
    Ok((suite, key.as_ref(), iv))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hex digits");
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    fn keys(secret: &str, sequence: u64) -> Keys {
        let secret = Secret::new(&hex(secret)).expect("a secret");
        let keys = Keys::of(Suite::Aes128Gcm, secret).expect("keys");
        Keys { sequence, ..keys }
    }

    /// Of RFC 8448 §3: "derive secret `tls13 c ap traffic`", "… `tls13 s ap traffic`".
    const CLIENT: &str = "9e40646ce79a7f9dc05af8889bce6552 875afa0b06df0087f792ebb7c17504a5";
    const SERVER: &str = "a11af9f05531f856ad47116b45a95032 8204b4f44bfb6b3a4b4f1f3fcb631643";

    /// Of RFC 8448 §3: "{client} send application_data record" and "{server} send application_data
    /// record", the payload of both being the bytes from 0 to 49. The server's second record: the
    /// first one had a ticket.
    const CLIENT_RECORD: &str = "
        17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55
        cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39
        5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd
        1e 3d ea e6 3a ee bb 21 69 49 15 e4";
    const SERVER_RECORD: &str = "
        17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4
        a4 69 32 fc 32 25 d0 5f 82 aa 1b 36 e3 0e fa f9 7d 90 e6 df
        fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2
        ab f3 32 54 0d d0 32 e1 67 c2 95 5d";

    /// RFC 8448 §3: "derive write traffic keys for application data".
    #[test]
    fn keys_follow_from_secrets_as_in_rfc_8448() {
        for (secret, key, iv) in [
            (CLIENT, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"),
            (SERVER, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"),
        ] {
            let secret = Secret::new(&hex(secret)).expect("a secret");
            let (derived, derived_iv) = derive(Suite::Aes128Gcm, &secret).expect("keys");
            assert_eq!(derived[..16], hex(key));
            assert_eq!(derived_iv[..], hex(iv));
        }
    }

    #[test]
    fn records_are_sealed_and_opened_as_in_rfc_8448() {
        let payload: Vec<u8> = (0..50).collect();
        for (secret, sequence, record) in [(CLIENT, 0, CLIENT_RECORD), (SERVER, 1, SERVER_RECORD)] {
            let record = hex(record);
            let mut ours = keys(secret, sequence);
            let mut sealed = vec![0; ours.sealed_len(payload.len())];
            ours.seal(ContentType::APPLICATION_DATA, &payload, &mut sealed).expect("a record");
            assert_eq!(sealed, record);

            let mut opened = vec![0; record.len()];
            let (kind, len) = keys(secret, sequence).open(&record, &mut opened).expect("content");
            assert_eq!((kind, &opened[..len]), (ContentType::APPLICATION_DATA, &payload[..]));
        }
    }

    #[test]
    fn a_record_out_of_its_place_does_not_open() {
        let record = hex(CLIENT_RECORD);
        for sequence in [1, 2, 255, 256, u64::MAX - 1] {
            let opened = keys(CLIENT, sequence).open(&record, &mut [0; 128]);
            assert_eq!(opened, Err(RecordError::Mac), "at {sequence}");
        }
        assert_eq!(keys(SERVER, 0).open(&record, &mut [0; 128]), Err(RecordError::Mac));
    }

    /// The additional data covers the header, and the tag all of the content.
    #[test]
    fn a_record_with_one_bit_changed_does_not_open() {
        let record = hex(CLIENT_RECORD);
        for at in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let opened = keys(CLIENT, 0).open(&changed, &mut [0; 128]);
            assert!(opened.is_err(), "with bit {at} changed");
        }
    }
}
