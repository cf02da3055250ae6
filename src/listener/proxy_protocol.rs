//! The header by which a proxy says for whom it has connected: versions 1 and 2 of HAProxy's PROXY
//! protocol (`doc/proxy-protocol.txt` there, called "the specification" here). Bytes in, meaning
//! out, and back; who is believed is for `introduction` to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header begins with: version 1, and version 2.
const V1: &[u8] = b"PROXY";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 1 with its CRLF (§2.1 of the specification).
const V1_LONGEST: usize = 107;
/// What of a header of version 2 comes before the part whose length it tells.
const V2_FIXED: usize = 16;
/// The longest such part that is taken. It may tell up to 65535, but what is known to be sent
/// (addresses, names from TLS, identifiers of clouds) is a few hundred bytes, and a peer should not
/// make us hold more for it; nginx draws the line at the same place.
const V2_LONGEST: usize = 4096;

/// The longest header of either version that is taken.
pub const LONGEST: usize = V2_FIXED + V2_LONGEST;

/// Between whom a connection is, as its first proxy saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub client: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is for somebody else.
    Proxied(Addresses),
    /// It is the proxy's own (LOCAL), as for a health check.
    Local,
    /// It is for somebody without an IP address that could be told (UNKNOWN, a Unix socket).
    Unknown,
}

/// What the front of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A header, of this many bytes.
    Complete(Header, usize),
    /// The beginning of a header, or of what may become one.
    Incomplete,
    /// Something else.
    Absent,
}

/// The version of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What is wrong with something that began like a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A line of version 1 did not end in time.
    #[error("the line of version 1 has no CRLF within 107 bytes")]
    Endless,
    /// A line of version 1 does not have the form that it must have.
    #[error("the line of version 1 is malformed")]
    Line,
    /// The 13th byte of version 2.
    #[error("{0:#04x} is no version and command")]
    Command(u8),
    /// The 14th.
    #[error("{0:#04x} is no family and transport")]
    Family(u8),
    /// The 15th and 16th.
    #[error("the rest of the header is to be {0} bytes long, and 4096 is the most that is taken")]
    TooLong(u16),
    /// There are not enough bytes for its addresses.
    #[error("the header is too short for its addresses")]
    TooShort,
    /// A TLV goes beyond the end, or there is a rest that is none.
    #[error("the TLVs do not end where the header does")]
    Tlv,
    /// What was sent is not what arrived.
    #[error("the checksum is wrong")]
    Checksum,
}

/// Reads the header at the front of `bytes`. What it says of the first bytes holds whatever comes
/// behind them.
///
/// # Errors
///
/// [`HeaderError`] for what begins like a header and is none. The connection must then be closed.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    if bytes.starts_with(V1) {
        parse_v1(bytes)
    } else if bytes.starts_with(V2) {
        parse_v2(bytes)
    } else if V1.starts_with(bytes) || V2.starts_with(bytes) {
        Ok(Parsed::Incomplete)
    } else {
        Ok(Parsed::Absent)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let front = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = front.windows(2).position(|pair| pair == b"\r\n") else {
        let is_over = front.len() == V1_LONGEST;
        return if is_over { Err(HeaderError::Endless) } else { Ok(Parsed::Incomplete) };
    };
    let line = std::str::from_utf8(&bytes[V1.len()..end]).map_err(|_| HeaderError::Line)?;
    let header = match line.strip_prefix(" UNKNOWN") {
        // Anything may follow, and is ignored.
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => Header::Unknown,
        _ => Header::Proxied(addresses_v1(line).ok_or(HeaderError::Line)?),
    };
    Ok(Parsed::Complete(header, end + 2))
}

/// ` TCP4 192.0.2.7 192.0.2.1 56324 443`: a single space before each.
fn addresses_v1(line: &str) -> Option<Addresses> {
    let mut words = line.strip_prefix(' ')?.split(' ');
    let parse_ip: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (client, destination) = (parse_ip(words.next()?)?, parse_ip(words.next()?)?);
    let (client_port, port) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    words.next().is_none().then(|| Addresses::new(client, client_port, destination, port))
}

/// Digits without a zero before them, which some would read as octal.
fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let &[_, _, _, _, _, _, _, _, _, _, _, _, command, ref rest @ ..] = bytes else {
        return Ok(Parsed::Incomplete);
    };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        other => return Err(HeaderError::Command(other)),
    };
    let &[family, ref rest @ ..] = rest else { return Ok(Parsed::Incomplete) };
    // Of a LOCAL connection the family, as everything else, is ignored.
    let is_family = family >> 4 <= 3 && family & 0x0F <= 2;
    if !is_local && !is_family {
        return Err(HeaderError::Family(family));
    }
    let &[high, low, ref rest @ ..] = rest else { return Ok(Parsed::Incomplete) };
    let told = u16::from_be_bytes([high, low]);
    let len = usize::from(told);
    if len > V2_LONGEST {
        return Err(HeaderError::TooLong(told));
    }
    let Some(block) = rest.get(..len) else { return Ok(Parsed::Incomplete) };
    let header = if is_local {
        Header::Local
    } else {
        let (header, tlvs) = addresses_v2(family, block).ok_or(HeaderError::TooShort)?;
        check_tlvs(&bytes[..V2_FIXED + len], tlvs)?;
        header
    };
    Ok(Parsed::Complete(header, V2_FIXED + len))
}

/// The addresses of a block of this family, and the TLVs behind them; `None` where it is too short.
fn addresses_v2(family: u8, block: &[u8]) -> Option<(Header, &[u8])> {
    match family {
        0x11 => {
            let (addresses, tlvs) = block.split_first_chunk::<12>()?;
            let &[a, b, c, d, e, f, g, h, ref ports @ ..] = addresses;
            let (client, destination) = ([a, b, c, d].into(), [e, f, g, h].into());
            Some((Header::Proxied(Addresses::with_ports(client, destination, *ports)), tlvs))
        }
        0x21 => {
            let (client, rest) = block.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let (ports, tlvs) = rest.split_first_chunk::<4>()?;
            let (client, destination) = ((*client).into(), (*destination).into());
            Some((Header::Proxied(Addresses::with_ports(client, destination, *ports)), tlvs))
        }
        0x31 | 0x32 => block.split_first_chunk::<216>().map(|(_, tlvs)| (Header::Unknown, tlvs)),
        // Datagrams did not bring a TCP connection here, and of what is unspecified nobody knows
        // where its TLVs begin: all of it is skipped (§2.2 of the specification).
        _ => Some((Header::Unknown, &[])),
    }
}

const TLV_CRC32C: u8 = 0x03;

/// Walks over the TLVs at the end of `header`: nothing in them is used, but that it arrived whole,
/// where there is a checksum (§2.2.3 of the specification).
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), HeaderError> {
    while let &[kind, high, low, ref rest @ ..] = tlvs {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = rest.split_at_checked(len).ok_or(HeaderError::Tlv)?;
        if kind == TLV_CRC32C {
            let told = <[u8; 4]>::try_from(value).map_err(|_| HeaderError::Tlv)?;
            let at = header.len() - behind.len() - told.len();
            if crc32c_with_zeros(header, at) != u32::from_be_bytes(told) {
                return Err(HeaderError::Checksum);
            }
        }
        tlvs = behind;
    }
    if tlvs.is_empty() { Ok(()) } else { Err(HeaderError::Tlv) }
}

/// CRC32c (RFC 4960, appendix B) of `bytes` with four zeros in the place of those at `at`. Bit by
/// bit: a header is short, and a table would be longer than this.
fn crc32c_with_zeros(bytes: &[u8], at: usize) -> u32 {
    let mut crc = u32::MAX;
    for (index, byte) in bytes.iter().enumerate() {
        let is_zeroed = (at..at + 4).contains(&index);
        crc ^= if is_zeroed { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !crc
}

impl Addresses {
    /// An IPv4 address that was written as IPv6 is that IPv4 address.
    fn new(client: IpAddr, client_port: u16, destination: IpAddr, port: u16) -> Self {
        Self {
            client: SocketAddr::new(client.to_canonical(), client_port),
            destination: SocketAddr::new(destination.to_canonical(), port),
        }
    }

    fn with_ports(client: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) -> Self {
        Self::new(client, u16::from_be_bytes([a, b]), destination, u16::from_be_bytes([c, d]))
    }
}

/// The header that says so. Where the client is of one family and its destination of the other,
/// which no header can tell, it is UNKNOWN in version 1, and both are IPv6 in version 2, as HAProxy
/// has it.
pub fn encode(version: Version, header: Header) -> Vec<u8> {
    match version {
        Version::V1 => encode_v1(header).into_bytes(),
        Version::V2 => encode_v2(header),
    }
}

fn encode_v1(header: Header) -> String {
    let Header::Proxied(Addresses { client, destination }) = header else {
        return "PROXY UNKNOWN\r\n".to_owned();
    };
    let family = match (client, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    let (client_port, port) = (client.port(), destination.port());
    format!("PROXY {family} {} {} {client_port} {port}\r\n", client.ip(), destination.ip())
}

fn encode_v2(header: Header) -> Vec<u8> {
    let mut bytes = V2.to_vec();
    let Header::Proxied(Addresses { client, destination }) = header else {
        bytes.extend([if header == Header::Local { 0x20 } else { 0x21 }, 0x00, 0, 0]);
        return bytes;
    };
    match (client.ip(), destination.ip()) {
        (IpAddr::V4(client), IpAddr::V4(destination)) => {
            bytes.extend([0x21, 0x11, 0, 12]);
            bytes.extend(client.octets());
            bytes.extend(destination.octets());
        }
        (client, destination) => {
            bytes.extend([0x21, 0x21, 0, 36]);
            bytes.extend(in_v6(client).octets());
            bytes.extend(in_v6(destination).octets());
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}

fn in_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxied(client: &str, destination: &str) -> Header {
        let parse = |text: &str| text.parse().expect("an address");
        Header::Proxied(Addresses { client: parse(client), destination: parse(destination) })
    }

    /// A header of version 2: the 13th and 14th byte, and what comes behind the length.
    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).expect("a length");
        let mut bytes = V2.to_vec();
        bytes.extend([command, family]);
        bytes.extend(len.to_be_bytes());
        bytes.extend(block);
        bytes
    }

    const TCP4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0xDC, 0x04, 0x01, 0xBB];

    fn tcp4() -> Header {
        proxied("192.0.2.7:56324", "192.0.2.1:443")
    }

    /// The line of §2.1 of the specification, its longest forms, and each that it allows.
    #[test]
    fn lines_of_version_1() {
        let long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {long} {long} 65535 65535\r\n");
        assert_eq!(longest.len(), V1_LONGEST);
        for (line, header) in [
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                proxied("192.168.0.1:56324", "192.168.0.11:443"),
            ),
            (
                "PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n",
                proxied("255.255.255.255:65535", "0.0.0.0:0"),
            ),
            ("PROXY TCP6 2001:DB8::7 ::1 1 65535\r\n", proxied("[2001:db8::7]:1", "[::1]:65535")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c000:201 56324 443\r\n", tcp4()),
            ("PROXY UNKNOWN\r\n", Header::Unknown),
            ("PROXY UNKNOWN what\never \r it is\r\n", Header::Unknown),
            (&longest, Header::Unknown),
        ] {
            let with_more = format!("{line}GET / HTTP/1.1\r\n");
            let expected = Ok(Parsed::Complete(header, line.len()));
            assert_eq!(parse(with_more.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_line_of_version_1() {
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4\r\n",
            "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\nGET / HTTP/1.1\r\n",
            "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(HeaderError::Line), "{line:?}");
        }
        assert_eq!(parse(b"PROXY \xFF\r\n"), Err(HeaderError::Line));
        let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_LONGEST));
        assert_eq!(parse(endless.as_bytes()), Err(HeaderError::Endless));
        assert_eq!(parse(&endless.as_bytes()[..V1_LONGEST - 1]), Ok(Parsed::Incomplete));
    }

    /// The families and commands of §2.2 of the specification.
    #[test]
    fn headers_of_version_2() {
        let mut tcp6 = Vec::new();
        tcp6.extend("2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets());
        tcp6.extend("::ffff:192.0.2.1".parse::<Ipv6Addr>().expect("an address").octets());
        tcp6.extend([0xDC, 0x04, 0x01, 0xBB]);
        for (command, family, block, header) in [
            (0x21, 0x11, TCP4.to_vec(), tcp4()),
            (0x21, 0x21, tcp6.clone(), proxied("[2001:db8::7]:56324", "192.0.2.1:443")),
            (0x21, 0x31, vec![b'x'; 216], Header::Unknown),
            (0x21, 0x00, vec![], Header::Unknown),
            (0x21, 0x00, vec![1, 2, 3], Header::Unknown),
            (0x21, 0x12, TCP4.to_vec(), Header::Unknown),
            (0x21, 0x22, tcp6, Header::Unknown),
            (0x21, 0x10, vec![], Header::Unknown),
            (0x20, 0x00, vec![], Header::Local),
            (0x20, 0x11, TCP4.to_vec(), Header::Local),
            (0x20, 0xFF, vec![0; 4096], Header::Local),
        ] {
            let mut bytes = v2(command, family, &block);
            let expected = Ok(Parsed::Complete(header, bytes.len()));
            bytes.extend(b"\x16\x03\x01");
            assert_eq!(parse(&bytes), expected, "{command:#x} {family:#x}");
        }
    }

    #[test]
    fn what_is_no_header_of_version_2() {
        let too_long = v2(0x20, 0x00, &[0; 4097]);
        for (bytes, error) in [
            (v2(0x11, 0x11, &TCP4), HeaderError::Command(0x11)),
            (v2(0x22, 0x11, &TCP4), HeaderError::Command(0x22)),
            (v2(0x21, 0x13, &TCP4), HeaderError::Family(0x13)),
            (v2(0x21, 0x41, &TCP4), HeaderError::Family(0x41)),
            (v2(0x21, 0x11, &TCP4[..11]), HeaderError::TooShort),
            (v2(0x21, 0x21, &[0; 35]), HeaderError::TooShort),
            (v2(0x21, 0x31, &[0; 215]), HeaderError::TooShort),
            (too_long[..16].to_vec(), HeaderError::TooLong(4097)),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{bytes:x?}");
        }
    }

    /// TLVs are skipped, whatever they are; one that goes beyond the header is refused.
    #[test]
    fn tlvs_are_skipped() {
        for (tlvs, is_right) in [
            (&b"\x04\x00\x00"[..], true),
            (b"\x02\x00\x0Bexample.org\xEA\x00\x01x", true),
            (b"\x04\x00\x01", false),
            (b"\x04\x00", false),
            (b"\x04\x00\x00\x00", false),
            (b"\x03\x00\x00", false),
        ] {
            let bytes = v2(0x21, 0x11, &[&TCP4, tlvs].concat());
            let complete = Parsed::Complete(tcp4(), bytes.len());
            let expected = if is_right { Ok(complete) } else { Err(HeaderError::Tlv) };
            assert_eq!(parse(&bytes), expected, "{tlvs:x?}");
        }
    }

    /// §2.2.3 of the specification; 0xE3069283 is what everybody's CRC32c makes of these digits.
    #[test]
    fn a_checksum_is_verified() {
        assert_eq!(crc32c_with_zeros(b"123456789", 9), 0xE306_9283);
        let tlvs = b"\x03\x00\x04\xA5\x7D\x5B\x91\x04\x00\x00";
        let mut bytes = v2(0x21, 0x11, &[&TCP4[..], tlvs].concat());
        assert_eq!(parse(&bytes), Ok(Parsed::Complete(tcp4(), bytes.len())));
        bytes[V2_FIXED] ^= 1;
        assert_eq!(parse(&bytes), Err(HeaderError::Checksum));
    }

    #[test]
    fn what_begins_otherwise_is_no_header() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\r\n\r\nG"]
        {
            assert_eq!(parse(bytes), Ok(Parsed::Absent), "{bytes:x?}");
        }
        for bytes in [&b""[..], b"P", b"PROX", b"\r\n", b"\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(parse(bytes), Ok(Parsed::Incomplete), "{bytes:x?}");
        }
    }

    /// HAProxy's `make_proxy_line_v1` and `make_proxy_line_v2`.
    #[test]
    fn families_that_differ() {
        let header = proxied("192.0.2.7:56324", "[2001:db8::1]:443");
        assert_eq!(encode(Version::V1, header), b"PROXY UNKNOWN\r\n");
        let bytes = encode(Version::V2, header);
        assert_eq!(bytes[13], 0x21);
        assert_eq!(bytes[16..32], "::ffff:192.0.2.7".parse::<Ipv6Addr>().expect("it").octets());
        assert_eq!(parse(&bytes), Ok(Parsed::Complete(header, bytes.len())));
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        // What is written as IPv6 and is IPv4 is read as IPv4.
        any::<SocketAddr>()
            .prop_map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    fn any_header() -> impl Strategy<Value = Header> {
        prop_oneof![
            1 => Just(Header::Local),
            1 => Just(Header::Unknown),
            9 => (any_address(), any_address())
                .prop_map(|(client, destination)| Header::Proxied(Addresses { client, destination })),
        ]
    }

    /// Bytes that often are almost a header.
    fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
        let tlvs = any::<Vec<u8>>();
        prop_oneof![
            any::<Vec<u8>>(),
            "PROXY[ A-Z0-9.:\r\n]{0,120}".prop_map(String::into_bytes),
            (0x1F_u8..0x23, any::<u8>(), any::<Vec<u8>>()).prop_map(|(c, f, b)| v2(c, f, &b)),
            tlvs.prop_map(|tlvs| v2(0x21, 0x11, &[&TCP4[..], &tlvs].concat())),
        ]
    }

    proptest! {
        /// Whatever is written is read back, and what follows is left alone.
        #[test]
        fn what_is_written_is_read(header in any_header(), rest in any::<Vec<u8>>()) {
            for version in [Version::V1, Version::V2] {
                let mut bytes = encode(version, header);
                let len = bytes.len();
                let is_mixed = matches!(header, Header::Proxied(Addresses { client, destination })
                    if client.is_ipv4() != destination.is_ipv4());
                let is_untold = is_mixed || header == Header::Local;
                let told = if is_untold && version == Version::V1 { Header::Unknown } else { header };
                bytes.extend(&rest);
                prop_assert_eq!(parse(&bytes), Ok(Parsed::Complete(told, len)));
            }
        }

        /// However the bytes arrive: nothing is said before all is there that it takes, and nothing
        /// that comes later changes it.
        #[test]
        fn any_split_comes_to_the_same(bytes in nearly_a_header()) {
            let whole = parse(&bytes);
            let mut said = Ok(Parsed::Incomplete);
            for end in 0..=bytes.len() {
                let now = parse(&bytes[..end]);
                if said == Ok(Parsed::Incomplete) {
                    said = now;
                    if let Ok(Parsed::Complete(_, len)) = now {
                        prop_assert_eq!(len, end);
                    }
                }
                prop_assert_eq!(now, said);
            }
            prop_assert_eq!(said, whole);
        }
    }
}
