//! What came over the network, made fit to be shown: a path or a reason must not move the cursor,
//! reverse the text around it or break a table. Nothing is lost, an odd character is spelled out.

/// For a place where every character takes one column: what is not sure to do that is written as
/// `\u{1b}`. Terminals do not agree on how wide the rest of Unicode is.
pub(super) fn field(text: &str) -> String {
    spelled(text, |c| !takes_one_column(c))
}

/// For running text: lines and all scripts stay as they are.
pub(super) fn prose(text: &str) -> String {
    spelled(text, |c| c != '\n' && is_hidden(c))
}

/// For a JSON document that may be read on a terminal: it means the same afterwards. Outside of
/// strings JSON is ASCII, and inside of them `\u001b` is the character itself (RFC 8259 §7).
pub(super) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\r' | '\t') || !is_hidden(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            safe.push_str(&format!("\\u{unit:04x}"));
        }
    }
    safe
}

fn spelled(text: &str, is_odd: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// ASCII, and the letters of Latin, Greek and Cyrillic without the marks that combine.
fn takes_one_column(c: char) -> bool {
    matches!(
        c,
        ' '..='~'
            | '\u{a1}'..='\u{ac}'
            | '\u{ae}'..='\u{2ff}'
            | '\u{370}'..='\u{3ff}'
            | '\u{400}'..='\u{482}'
            | '\u{48a}'..='\u{52f}'
    )
}

/// Control characters, and those that are invisible or turn the direction of the text around them.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_one_column_per_character() {
        for (text, shown) in [
            ("/chat?a=1", "/chat?a=1"),
            ("gespräch", "gespräch"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("\n\r\t", "\\u{a}\\u{d}\\u{9}"),
            ("宽", "\\u{5bbd}"),
            ("e\u{301}", "e\\u{301}"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(field(text), shown);
        }
    }

    #[test]
    fn prose_keeps_its_lines_and_scripts() {
        assert_eq!(prose("宽\nb\x1b\u{202e}"), "宽\nb\\u{1b}\\u{202e}");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let written = "{\"why\":\"a\u{7f}b\u{9b}c\u{202e}d\u{e0001}宽\"}\n";
        let safe = json(written);
        assert!(!safe.contains(is_odd_on_a_terminal), "{safe}");
        let before: serde_json::Value = serde_json::from_str(written).expect("JSON");
        let after: serde_json::Value = serde_json::from_str(&safe).expect("JSON");
        assert_eq!(before, after);
    }

    fn is_odd_on_a_terminal(c: char) -> bool {
        c != '\n' && is_hidden(c)
    }
}
