//! Numbers and addresses as text, for what is written with every request: without the machinery
//! of `fmt`, which takes longer than all the rest of a line. No I/O.

use std::net::Ipv4Addr;

/// Appends a number in decimal digits.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    // As many as `u64::MAX` has.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an address in dotted decimals.
pub fn push_ipv4(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        push_number(out, octet.into());
    }
}

/// The last four digits of a number.
pub fn four(number: u64) -> [u8; 4] {
    [1000, 100, 10, 1].map(|place| b'0' + (number / place % 10) as u8)
}

/// All sixteen hexadecimal digits of a number, in lower case.
pub fn hex(number: u64) -> [u8; 16] {
    let digits = *b"0123456789abcdef";
    std::array::from_fn(|at| digits[(number >> (60 - 4 * at) & 15) as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    proptest! {
        #[test]
        fn digits_are_those_of_fmt(number: u64, address: [u8; 4]) {
            for number in [number, number >> 40, number >> 60, 0, u64::MAX] {
                prop_assert_eq!(text(|out| push_number(out, number)), number.to_string());
            }
            let address = Ipv4Addr::from(address);
            prop_assert_eq!(text(|out| push_ipv4(out, address)), address.to_string());
            prop_assert_eq!(text(|out| out.extend(four(number))), format!("{:04}", number % 10_000));
            prop_assert_eq!(text(|out| out.extend(hex(number))), format!("{number:016x}"));
        }
    }
}
