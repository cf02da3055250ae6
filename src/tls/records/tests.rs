//! The record layer against rustls as its peer, which is another implementation of the same RFCs,
//! and against peers that do what they may not.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};

use super::*;
use crate::tls::handover::{Notary, noting};

/// A connection of which we have one side and rustls has the other.
struct Pair {
    ours: Records,
    theirs: Connection,
}

/// All that we speak with a key for ECDSA; with others the records are the same.
const SUITES: [SupportedCipherSuite; 6] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Both sides of a handshake that is done, and what its secrets are for the side that is to be
/// taken over.
fn shake_hands(suite: SupportedCipherSuite) -> (ClientConnection, ServerConnection, Secrets) {
    let made = rcgen::generate_simple_self_signed(["records.test".to_owned()]).expect("made");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let versions = [suite.version()];
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    client.key_log = Arc::new(Notary);
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(Notary);

    let name = ServerName::try_from("records.test").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    let handshake = noting(async {
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
            pass(&mut client, &mut server);
        }
    });
    let ((), secrets) = handshake.now_or_never().expect("there is nothing to wait for");
    (client, server, secrets)
}

/// Both send what they have to send.
fn pass(client: &mut ClientConnection, server: &mut ServerConnection) {
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("to memory");
    hand(&mut bytes, server);
    server.write_tls(&mut bytes).expect("to memory");
    hand(&mut bytes, client);
}

fn hand<S>(bytes: &mut Vec<u8>, to: &mut rustls::ConnectionCommon<S>) {
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("from memory");
        to.process_new_packets().expect("a handshake");
    }
    bytes.clear();
}

impl Pair {
    fn new(role: Role, suite: SupportedCipherSuite) -> Self {
        let (client, server, secrets) = shake_hands(suite);
        let (taken, mut theirs) = match role {
            Role::Client => {
                (Records::take_over(client, secrets, Vec::new()), Connection::from(server))
            }
            Role::Server => (Records::take_over(server, secrets, Vec::new()), client.into()),
        };
        assert_eq!(taken.plain, b"");
        theirs.set_buffer_limit(None);
        let mut pair = Self { ours: taken.records, theirs };
        pair.deliver(&taken.sealed);
        pair
    }

    /// What rustls reads of these bytes.
    fn deliver(&mut self, mut sealed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !sealed.is_empty() {
            self.theirs.read_tls(&mut sealed).expect("from memory");
            let state = self.theirs.process_new_packets().expect("records that rustls takes");
            let begin = plain.len();
            plain.resize(begin + state.plaintext_bytes_to_read(), 0);
            self.theirs.reader().read_exact(&mut plain[begin..]).expect("what is there");
        }
        plain
    }

    /// What rustls reads of what we say.
    fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Buffer::new();
        self.ours.seal(plain, &mut sealed).expect("keys that last");
        self.deliver(sealed.filled())
    }

    /// What rustls sends when it says this.
    fn sealed_by_them(&mut self, plain: &[u8]) -> Vec<u8> {
        self.theirs.writer().write_all(plain).expect("to memory");
        let mut sealed = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut sealed).expect("to memory");
        }
        sealed
    }

    /// What we read of these bytes when they come in pieces of so many.
    fn hear(&mut self, sealed: &[u8], piece: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut plain = Buffer::new();
        for piece in sealed.chunks(piece.max(1)) {
            plain.begin_with(&[]);
            self.ours.open(piece, &mut plain);
            heard.extend_from_slice(plain.filled());
        }
        heard
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

#[test]
fn every_suite_is_spoken_in_both_roles() {
    for suite in SUITES {
        for role in [Role::Client, Role::Server] {
            let mut pair = Pair::new(role, suite);
            for len in [1, 17, 1024, 16_383, 16_384, 16_385, 70_000, 1] {
                let said = payload(len);
                assert_eq!(pair.say(&said), said, "{role:?} {suite:?}");
                let sealed = pair.sealed_by_them(&said);
                assert_eq!(pair.hear(&sealed, READ_BYTES), said, "{role:?} {suite:?}");
            }
            assert_eq!(pair.ours.end(), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the bytes come, and whatever both sides say how often.
    #[test]
    fn pieces_of_any_size_are_put_together(
        suite in prop::sample::select(&SUITES[..]),
        lengths in prop::collection::vec(1..40_000_usize, 1..5),
        piece in prop_oneof![1..40_usize, 1000..70_000_usize],
    ) {
        let mut pair = Pair::new(Role::Server, suite);
        let said: Vec<_> = lengths.iter().flat_map(|len| payload(*len)).collect();
        let sealed: Vec<_> =
            lengths.iter().flat_map(|len| pair.sealed_by_them(&payload(*len))).collect();
        prop_assert_eq!(pair.hear(&sealed, piece), said);
        prop_assert!(pair.ours.partial.is_empty());
        prop_assert_eq!(pair.ours.partial.capacity(), 0);
    }

    /// Bytes that nobody has sealed: an end, and no panic.
    #[test]
    fn garbage_is_an_end(garbage in prop::collection::vec(any::<u8>(), 0..400), piece in 1..50_usize) {
        let mut pair = Pair::new(Role::Server, cipher_suite::TLS13_AES_128_GCM_SHA256);
        prop_assert_eq!(pair.hear(&garbage, piece), b"");
        let is_whole = pair.ours.partial.len() < garbage.len();
        prop_assert!(!is_whole || garbage.is_empty() || pair.ours.end().is_some());
    }
}

#[test]
fn what_the_handshake_and_http_left_behind_is_taken_over() {
    for suite in SUITES {
        let (mut client, mut server, secrets) = shake_hands(suite);
        // Two records, of which rustls has read one and a half; and an answer that was not written.
        client.writer().write_all(b"first").expect("to memory");
        let mut first = Vec::new();
        client.write_tls(&mut first).expect("to memory");
        client.writer().write_all(b"second").expect("to memory");
        let mut second = Vec::new();
        client.write_tls(&mut second).expect("to memory");
        let (begin, rest) = second.split_at(9);
        hand(&mut [&first[..], begin].concat(), &mut server);
        server.writer().write_all(b"answer").expect("to memory");

        let TakenOver { records, plain, sealed } =
            Records::take_over(server, secrets, begin.to_vec());
        assert_eq!(plain, b"first");
        let mut pair = Pair { ours: records, theirs: client.into() };
        assert_eq!(pair.deliver(&sealed), b"answer");
        assert_eq!(pair.hear(rest, 3), b"second");
        assert_eq!(pair.say(b"third"), b"third");
    }
}

/// RFC 8446 §4.6.3: the peer changes its keys again and again, and wants ours changed.
#[test]
fn the_peer_changes_its_keys() {
    for suite in SUITES.into_iter().take(3) {
        for role in [Role::Client, Role::Server] {
            let mut pair = Pair::new(role, suite);
            for round in 0..40 {
                pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
                let said = payload(100 + round);
                let sealed = pair.sealed_by_them(&said);
                assert_eq!(pair.hear(&sealed, 64), said);
                // Our answer comes before anything else that we say.
                assert!(pair.ours.has_waiting());
                assert_eq!(pair.say(&said), said);
            }
        }
    }
}

#[test]
fn keys_that_were_changed_before_the_relay_are_found() {
    let (mut client, mut server, secrets) = shake_hands(cipher_suite::TLS13_AES_256_GCM_SHA384);
    for _ in 0..3 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        pass(&mut client, &mut server);
        server.writer().write_all(b"x").expect("to memory");
        pass(&mut client, &mut server);
    }
    // An answer to a change of keys waits in rustls for something to be written behind it.
    client.refresh_traffic_keys().expect("TLS 1.3");
    pass(&mut client, &mut server);
    let TakenOver { records, sealed, .. } = Records::take_over(server, secrets, Vec::new());
    let mut pair = Pair { ours: records, theirs: client.into() };
    assert_eq!(pair.deliver(&sealed), b"xxx");
    assert_eq!(pair.say(b"here"), b"here");
    pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
    let sealed = pair.sealed_by_them(b"there");
    assert_eq!(pair.hear(&sealed, 7), b"there");
    assert_eq!(pair.say(b"and here"), b"and here");
}

/// A flood of wishes gets one answer at a time, and an end (RFC 8446 §4.6.3).
#[test]
fn too_many_changes_of_keys_are_an_end() {
    let mut pair = Pair::new(Role::Server, cipher_suite::TLS13_AES_128_GCM_SHA256);
    let mut sealed = Vec::new();
    for _ in 0..100 {
        pair.theirs.refresh_traffic_keys().expect("TLS 1.3");
        while pair.theirs.wants_write() {
            pair.theirs.write_tls(&mut sealed).expect("to memory");
        }
    }
    pair.hear(&sealed, READ_BYTES);
    assert_eq!(pair.ours.end(), Some(&Err(RecordError::Fruitless)));
    assert!(pair.ours.take_waiting().len() < 100, "one answer, and an alert");
}

/// RFC 8446 §5.5: ours are changed before they are used up.
#[test]
fn our_keys_are_changed_in_time() {
    let mut pair = Pair::new(Role::Server, cipher_suite::TLS13_AES_128_GCM_SHA256);
    let (_, ours) = pair.ours.keys.as_mut().expect("keys");
    ours.limit_to(4);
    let said = payload(100_000);
    for _ in 0..10 {
        assert_eq!(pair.say(&said), said);
        assert_eq!(pair.say(b"x"), b"x");
        let (_, ours) = pair.ours.keys.as_ref().expect("keys");
        assert!(ours.lasts_for(0), "more than may be sealed");
    }
}

/// TLS 1.2 cannot change keys: then it is over, and nothing of the message has gone out.
#[test]
fn keys_of_tls_1_2_are_used_up() {
    let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let mut pair = Pair::new(Role::Server, suite);
    let (_, ours) = pair.ours.keys.as_mut().expect("keys");
    ours.limit_to(3); // one of them was Finished
    assert_eq!(pair.say(b"x"), b"x");
    let mut sealed = Buffer::new();
    let refused = pair.ours.seal(&payload(20_000), &mut sealed);
    assert_eq!(refused, Err(RecordError::KeysUsedUp));
    assert_eq!(sealed.filled(), b"");
    assert_eq!(pair.say(b"x"), b"x");
    pair.ours.seal_end();
    let end = pair.ours.take_waiting();
    pair.deliver(&end);
    assert!(pair.theirs.process_new_packets().expect("a state").peer_has_closed());
}

#[test]
fn close_notify_is_said_and_heard() {
    for suite in SUITES {
        let mut pair = Pair::new(Role::Server, suite);
        pair.theirs.writer().write_all(b"last").expect("to memory");
        pair.theirs.send_close_notify();
        let mut sealed = pair.sealed_by_them(b"");
        sealed.extend(b"what comes behind it is nothing to us (RFC 8446 6.1)");
        assert_eq!(pair.hear(&sealed, READ_BYTES), b"last");
        assert_eq!(pair.ours.end(), Some(&Ok(())));
        // Ours is not ended by that.
        assert_eq!(pair.say(b"answer"), b"answer");
        pair.ours.seal_end();
        let end = pair.ours.take_waiting();
        pair.deliver(&end);
        assert!(pair.theirs.process_new_packets().expect("a state").peer_has_closed());
    }
}

/// A peer of ours, to do with its keys what rustls does not.
fn peers() -> (Records, Records) {
    let secret = |byte| Secret::new(&[byte; 32]).expect("a secret");
    let keys = |byte| Keys::of(Suite::Aes128Gcm, secret(byte)).expect("keys");
    (Records::new(Role::Server, keys(1), keys(2)), Records::new(Role::Client, keys(2), keys(1)))
}

/// The same in TLS 1.2.
fn peers_of_tls12() -> (Records, Records) {
    let suite = Suite::Aes128Gcm;
    let keys = |byte| Keys::of_tls12(suite, &[byte; 16], [byte; 12], 0).expect("keys");
    (Records::new(Role::Server, keys(1), keys(2)), Records::new(Role::Client, keys(2), keys(1)))
}

#[test]
fn what_has_no_place_behind_a_handshake_is_an_end() {
    use ContentType as Of;
    let cases: [(&str, Of, &[u8], RecordError); 15] = [
        ("change_cipher_spec", ContentType(20), &[1], RecordError::Unexpected),
        ("no type that there is", ContentType(99), &[1], RecordError::Unexpected),
        ("a fatal alert", Of::ALERT, &[2, 40], RecordError::Alert(40)),
        ("a warning", Of::ALERT, &[1, 40], RecordError::Alert(40)),
        ("half an alert", Of::ALERT, &[2], RecordError::Malformed),
        ("two alerts", Of::ALERT, &[1, 0, 1, 0], RecordError::Malformed),
        ("an empty handshake record", Of::HANDSHAKE, &[], RecordError::Unexpected),
        ("a ClientHello", Of::HANDSHAKE, &[1, 0, 0, 0], RecordError::Unexpected),
        ("a ticket for a server", Of::HANDSHAKE, &[4, 0, 0, 1, 0], RecordError::Unexpected),
        ("a KeyUpdate of 2", Of::HANDSHAKE, &[24, 0, 0, 1, 2], RecordError::Illegal),
        ("a KeyUpdate of nothing", Of::HANDSHAKE, &[24, 0, 0, 0], RecordError::Malformed),
        ("a long KeyUpdate", Of::HANDSHAKE, &[24, 0, 0, 2, 0, 0], RecordError::Malformed),
        ("the header of what has no place", Of::HANDSHAKE, &[1, 1, 0, 0], RecordError::Unexpected),
        ("the header of a longer KeyUpdate", Of::HANDSHAKE, &[24, 1, 0, 0], RecordError::Malformed),
        (
            "a KeyUpdate with more behind it",
            Of::HANDSHAKE,
            &[24, 0, 0, 1, 0, 24],
            RecordError::Unexpected,
        ),
    ];
    for (what, kind, content, error) in cases {
        let (mut ours, mut theirs) = peers();
        theirs.say(kind, content).expect("keys");
        let mut plain = Buffer::new();
        ours.open(&theirs.take_waiting(), &mut plain);
        assert_eq!(ours.end(), Some(&Err(error.clone())), "{what}");
        assert_eq!(plain.filled(), b"");
        assert_eq!(ours.has_waiting(), error.alert().is_some(), "{what}");
        // And what we say of it can be read.
        theirs.open(&ours.take_waiting(), &mut plain);
        assert_eq!(theirs.end().is_some(), error.alert().is_some(), "{what}");
    }
}

/// RFC 8446 §5: what is not sealed is out of its place, and not merely a record that does not open.
#[test]
fn a_record_that_nobody_has_sealed_is_unexpected() {
    for record in [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 0]] {
        let (mut ours, _) = peers();
        ours.open(record, &mut Buffer::new());
        assert_eq!(ours.end(), Some(&Err(RecordError::Unexpected)));
    }
}

#[test]
fn a_handshake_message_may_come_in_pieces_but_not_among_others() {
    let (mut ours, mut theirs) = peers();
    let mut plain = Buffer::new();
    for piece in [&[24, 0][..], &[0, 1], &[0]] {
        theirs.say(ContentType::HANDSHAKE, piece).expect("keys");
    }
    ours.open(&theirs.take_waiting(), &mut plain);
    theirs.keys.as_mut().expect("keys").1.update().expect("TLS 1.3");
    let mut sealed = Buffer::new();
    theirs.seal(b"with new keys", &mut sealed).expect("keys");
    ours.open(sealed.filled(), &mut plain);
    assert_eq!(plain.filled(), b"with new keys");

    theirs.say(ContentType::HANDSHAKE, &[24, 0]).expect("keys");
    theirs.say(ContentType::APPLICATION_DATA, b"among them").expect("keys");
    ours.open(&theirs.take_waiting(), &mut plain);
    assert_eq!(ours.end(), Some(&Err(RecordError::Unexpected)));
}

/// A message without end is not kept for ever.
#[test]
fn an_endless_handshake_message_is_an_end() {
    let (mut theirs, mut ours) = peers();
    let mut plain = Buffer::new();
    let mut said = vec![4, 1, 255, 255];
    said.resize(16_000, 0);
    for _ in 0..20 {
        theirs.say(ContentType::HANDSHAKE, &said).expect("keys");
        ours.open(&theirs.take_waiting(), &mut plain);
        assert!(ours.message.len() <= MESSAGE_BYTES);
    }
    assert!(ours.end().is_some());
}

/// A ticket of 60,000 bytes in as many records: each is put behind the others where they are.
#[test]
fn a_handshake_message_in_many_pieces_is_not_copied_with_each() {
    let (mut theirs, mut ours) = peers();
    let mut plain = Buffer::new();
    let mut said = vec![4, 0, 0xEA, 0x60];
    said.resize(4 + 60_000, 0);
    let mut moves = 0;
    for byte in &said {
        let before = ours.message.capacity();
        theirs.say(ContentType::HANDSHAKE, &[*byte]).expect("keys");
        ours.open(&theirs.take_waiting(), &mut plain);
        moves += u32::from(ours.message.capacity() != before);
    }
    assert!(moves < 32, "moved {moves} times");
    assert_eq!(ours.message.capacity(), 0);
    assert_eq!(ours.end(), None);
    theirs.say(ContentType::APPLICATION_DATA, b"behind it").expect("keys");
    ours.open(&theirs.take_waiting(), &mut plain);
    assert_eq!(plain.filled(), b"behind it");
}

/// RFC 8446 §6.1 and §6.2: behind our `close_notify`, and behind a fatal alert of either side, we say
/// nothing: no data, no answer to a change of keys, no alert and no second end.
#[test]
fn nothing_is_said_behind_the_last_word() {
    let update = [KEY_UPDATE, 0, 0, 1, 1];
    let mut plain = Buffer::new();
    let (mut ours, mut theirs) = peers();
    ours.seal_end();
    theirs.open(&ours.take_waiting(), &mut plain);
    assert_eq!(theirs.end(), Some(&Ok(())));
    assert_eq!(ours.seal(b"late", &mut plain), Ok(()));
    theirs.say(ContentType::HANDSHAKE, &update).expect("keys");
    theirs.keys.as_mut().expect("keys").1.update().expect("TLS 1.3");
    theirs.say(ContentType::APPLICATION_DATA, b"still heard").expect("keys");
    theirs.say(ContentType::HANDSHAKE, b"").expect("keys");
    ours.open(&theirs.take_waiting(), &mut plain);
    ours.seal_end();
    assert_eq!(plain.filled(), b"still heard");
    assert_eq!(ours.end(), Some(&Err(RecordError::Unexpected)));
    assert!(!ours.has_waiting());

    let cases = [
        (ContentType::ALERT, &[FATAL, 80][..], RecordError::Alert(80)),
        (ContentType(99), &[1], RecordError::Unexpected),
    ];
    for (kind, content, error) in cases {
        let (mut ours, mut theirs) = peers();
        theirs.say(kind, content).expect("keys");
        plain.begin_with(&[]);
        ours.open(&theirs.take_waiting(), &mut plain);
        let last = ours.take_waiting();
        assert_eq!(last.is_empty(), error.alert().is_none());
        assert_eq!(ours.seal(b"late", &mut plain), Err(error));
        ours.seal_end();
        assert_eq!((plain.filled(), ours.has_waiting()), (&b""[..], false));
    }
}

/// RFC 8446 §5.1: empty records are legal, and a flood of them is not borne.
#[test]
fn empty_records_are_borne_for_a_while() {
    let (mut ours, mut theirs) = peers();
    let mut plain = Buffer::new();
    for _ in 0..5 {
        for _ in 0..30 {
            theirs.say(ContentType::APPLICATION_DATA, b"").expect("keys");
        }
        theirs.say(ContentType::APPLICATION_DATA, b"x").expect("keys");
    }
    ours.open(&theirs.take_waiting(), &mut plain);
    assert_eq!(plain.filled(), b"xxxxx");
    assert_eq!(ours.end(), None);
    for _ in 0..40 {
        theirs.say(ContentType::APPLICATION_DATA, b"").expect("keys");
    }
    ours.open(&theirs.take_waiting(), &mut plain);
    assert_eq!(ours.end(), Some(&Err(RecordError::Fruitless)));
}

/// RFC 8446 §5.4: padding is taken away, and a record that is nothing else is an error.
#[test]
fn padding_is_taken_away() {
    let (mut ours, mut theirs) = peers();
    let (_, keys) = theirs.keys.as_mut().expect("keys");
    let mut plain = Buffer::new();
    // The type of what is sealed goes behind the padding: a zero, and the real one before it.
    let content = [&b"padded"[..], &[23], &[0; 100]].concat();
    let mut sealed = vec![0; keys.sealed_len(content.len())];
    keys.seal(ContentType(0), &content, &mut sealed).expect("keys");
    ours.open(&sealed, &mut plain);
    assert_eq!(plain.filled(), b"padded");
    let mut sealed = vec![0; keys.sealed_len(100)];
    keys.seal(ContentType(0), &[0; 100], &mut sealed).expect("keys");
    ours.open(&sealed, &mut plain);
    assert_eq!(ours.end(), Some(&Err(RecordError::Unexpected)));
}

/// RFC 8446 §5.4: padding makes no record longer than it may be.
#[test]
fn padding_counts() {
    for (padding, end) in [(16_384 - 6, None), (16_384 - 5, Some(&Err(RecordError::Overflow)))] {
        let (mut ours, mut theirs) = peers();
        let (_, keys) = theirs.keys.as_mut().expect("keys");
        let mut content = b"padded\x17".to_vec();
        content.resize(6 + padding, 0);
        let mut sealed = vec![0; keys.sealed_len(content.len())];
        keys.seal(ContentType(0), &content, &mut sealed).expect("keys");
        let mut plain = Buffer::new();
        ours.open(&sealed, &mut plain);
        assert_eq!(ours.end(), end, "{padding}");
    }
}

/// RFC 8446 §5.2: what may be 2^14 bytes is not one more, and a header that says so is not waited
/// for.
#[test]
fn records_have_a_greatest_length() {
    let cases = [(peers as fn() -> _, 16_384 + 256), (peers_of_tls12, 16_384 + 2048)];
    for (peers, longest) in cases {
        let (mut ours, mut theirs) = peers();
        let (_, keys) = theirs.keys.as_mut().expect("keys");
        let mut plain = Buffer::new();
        for (len, end) in [(16_384, None), (16_385, Some(&Err(RecordError::Overflow)))] {
            let content = payload(len);
            let mut sealed = vec![0; keys.sealed_len(len)];
            keys.seal(ContentType::APPLICATION_DATA, &content, &mut sealed).expect("keys");
            ours.open(&sealed, &mut plain);
            assert_eq!(ours.end(), end);
        }
        assert_eq!(plain.filled().len(), 16_384);

        for (len, end) in [(longest, None), (longest + 1, Some(&Err(RecordError::Overflow)))] {
            let (mut ours, _) = peers();
            let [high, low] = u16::try_from(len).expect("two bytes").to_be_bytes();
            ours.open(&[23, 3, 3, high, low], &mut plain);
            assert_eq!(ours.end(), end);
        }
    }
}

/// A HelloRequest, or a ClientHello, in TLS 1.2 (RFC 5246 §7.4.1.1): refused once with a warning,
/// and no second time.
#[test]
fn renegotiation_is_refused() {
    let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let (client, server, secrets) = shake_hands(suite);
    let mut theirs = Records::take_over(server, secrets.clone(), Vec::new()).records;
    let mut ours = Records::take_over(client, secrets, Vec::new()).records;
    let mut plain = Buffer::new();
    theirs.say(ContentType::HANDSHAKE, &[HELLO_REQUEST, 0, 0, 0]).expect("keys");
    ours.open(&theirs.take_waiting(), &mut plain);
    assert_eq!(ours.end(), None);
    theirs.open(&ours.take_waiting(), &mut plain);
    assert_eq!(theirs.end(), None, "a warning is borne");
    theirs.say(ContentType::HANDSHAKE, &[HELLO_REQUEST, 0, 0, 0]).expect("keys");
    ours.open(&theirs.take_waiting(), &mut plain);
    assert_eq!(ours.end(), Some(&Err(RecordError::Fruitless)));
}

/// A warning that waits is not lost where there is no room for a message behind it.
#[test]
fn what_waits_outlasts_the_keys() {
    let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let (client, server, secrets) = shake_hands(suite);
    let mut theirs = Records::take_over(client, secrets.clone(), Vec::new()).records;
    let mut ours = Records::take_over(server, secrets, Vec::new()).records;
    let mut plain = Buffer::new();
    theirs.say(ContentType::HANDSHAKE, &[CLIENT_HELLO, 0, 0, 0]).expect("keys");
    ours.open(&theirs.take_waiting(), &mut plain);
    ours.keys.as_mut().expect("keys").1.limit_to(2);
    assert_eq!(ours.seal(b"x", &mut plain), Err(RecordError::KeysUsedUp));
    ours.seal_end();
    theirs.open(&ours.take_waiting(), &mut plain);
    assert_eq!(theirs.end(), Some(&Ok(())), "the warning, and the end behind it");
}

/// The header of a record of TLS 1.2 is covered by its tag, all of it (RFC 5246 §6.2.3.3).
#[test]
fn a_record_of_tls_1_2_with_one_bit_changed_does_not_open() {
    for suite in &SUITES[3..] {
        let (client, server, secrets) = shake_hands(*suite);
        let mut theirs = Records::take_over(client, secrets.clone(), Vec::new()).records;
        let mut ours = Records::take_over(server, secrets, Vec::new()).records;
        theirs.say(ContentType::APPLICATION_DATA, b"sealed").expect("keys");
        let record = theirs.take_waiting();
        let (keys, _) = ours.keys.as_mut().expect("keys");
        // The length is told by where the record ends.
        for at in (0..record.len() * 8).filter(|at| !matches!(at / 8, 3 | 4)) {
            let mut changed = record.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(keys.open(&changed, &mut [0; 128]).is_err(), "with bit {at} changed");
        }
        assert!(keys.open(&record, &mut [0; 128]).is_ok());
    }
}

/// A connection that has failed while HTTP had it is taken over with its end and its alert.
#[test]
fn a_connection_that_has_failed_ends() {
    let (_, mut server, secrets) = shake_hands(cipher_suite::TLS13_AES_128_GCM_SHA256);
    let mut garbage = &b"\x17\x03\x03\x00\x20 thirty-two bytes that nobody seals"[..];
    server.read_tls(&mut garbage).expect("from memory");
    let TakenOver { mut records, sealed, .. } = Records::take_over(server, secrets, Vec::new());
    assert!(matches!(records.end(), Some(Err(RecordError::Handshake(_)))));
    assert!(!sealed.is_empty(), "an alert");
    assert_eq!(records.seal(b"x", &mut Buffer::new()), Err(RecordError::Crypto));
    records.seal_end();
    assert!(!records.has_waiting());
}
