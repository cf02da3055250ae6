//! What is wrong with a configuration: every fault with its place, a caret and the way out.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where something was written: byte offsets into `proxy.toml`, or nowhere in particular.
pub type Place = Option<Range<usize>>;

/// One thing that is wrong, or that deserves a warning.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What is wrong, in one line.
    pub message: String,
    /// Where it was written.
    pub place: Place,
    /// How to mend it; may be empty.
    pub way_out: String,
}

/// Gathers faults and warnings while a configuration is compiled.
#[derive(Debug, Default)]
pub struct Faults {
    errors: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Faults {
    /// Notes something that makes the configuration unusable.
    pub fn error(&mut self, place: Place, message: impl fmt::Display, way_out: impl fmt::Display) {
        self.errors.push(Fault {
            message: escaped(&message.to_string()),
            place,
            way_out: escaped(&way_out.to_string()),
        });
    }

    /// Notes something that works but should not stay so.
    pub fn warn(&mut self, place: Place, message: impl fmt::Display, way_out: impl fmt::Display) {
        self.warnings.push(Fault {
            message: escaped(&message.to_string()),
            place,
            way_out: escaped(&way_out.to_string()),
        });
    }

    /// How many make the configuration unusable.
    pub fn count(&self) -> usize {
        self.errors.len()
    }

    /// Puts the faults in the order of the file and ties them to its text.
    pub fn into_report(mut self, path: &Path, text: &str) -> Report {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by_key(|fault| fault.place.as_ref().map_or(usize::MAX, |place| place.start));
        }
        Report { path: path.into(), text: text.into(), faults: self }
    }
}

/// The faults of one file, ready to print.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    text: String,
    faults: Faults,
}

impl Report {
    /// Whether there is nothing that must be mended.
    pub fn is_usable(&self) -> bool {
        self.faults.count() == 0
    }

    /// How many faults must be mended.
    pub fn error_count(&self) -> usize {
        self.faults.count()
    }

    /// The faults, rendered as `check` prints them.
    pub fn errors(&self) -> String {
        self.render("error", &self.faults.errors)
    }

    /// The warnings, rendered in the same way.
    pub fn warnings(&self) -> String {
        self.render("warning", &self.faults.warnings)
    }

    fn render(&self, kind: &str, faults: &[Fault]) -> String {
        let mut out = String::new();
        for fault in faults {
            let _ = writeln!(out, "{kind}: {}", fault.message);
            match &fault.place {
                Some(place) => self.point_at(&mut out, place, &fault.way_out),
                None if fault.way_out.is_empty() => {}
                None => {
                    let _ = writeln!(out, "  = {}", fault.way_out);
                }
            }
            out.push('\n');
        }
        out
    }

    /// `  --> file:line:column`, the line itself, and carets under the place.
    fn point_at(&self, out: &mut String, place: &Range<usize>, way_out: &str) {
        let start = floor_char_boundary(&self.text, place.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let line = self.text[line_start..line_end].trim_end_matches('\r');
        let number = self.text[..start].matches('\n').count() + 1;
        // Behind the line at the furthest, and not behind what ends it.
        let line_end = line_start + line.len();
        let start = start.min(line_end);
        let column = self.text[line_start..start].chars().count() + 1;
        let end = floor_char_boundary(&self.text, place.end).clamp(start, line_end);
        let width = self.text[start..end].chars().count().max(1);

        let gutter = number.to_string().len();
        let _ = writeln!(out, "{:gutter$} --> {}:{number}:{column}", "", self.path.display());
        let _ = writeln!(out, "{number} | {}", line.replace(char::is_control, " "));
        let carets = format!("{:indent$}{}", "", "^".repeat(width), indent = column - 1);
        let _ = writeln!(out, "{:gutter$} | {}", "", format!("{carets} {way_out}").trim_end());
    }
}

/// The text as one line that does nothing to a terminal: it may quote what a file had escaped.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

/// The nearest place at or before `at` where a character begins.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The entry of `known` that was probably meant by `word`, as a question to the writer.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("did you mean `{near}`?"))
}

/// The entry of `known` that is most like `word`, where one is like enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|entry| (strsim::jaro_winkler(word, entry), entry))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, place: Range<usize>, way_out: &str) -> String {
        let mut faults = Faults::default();
        faults.error(Some(place), "it is wrong", way_out);
        faults.into_report(Path::new("proxy.toml"), text).errors()
    }

    #[test]
    fn a_fault_points_at_its_place() {
        let text = "[[route]]\nupstream = \"chat-v2\"\n";
        let expected = "error: it is wrong\n  --> proxy.toml:2:12\n2 | upstream = \"chat-v2\"\n  \
                        |            ^^^^^^^^^ did you mean `chat`?\n\n";
        assert_eq!(render(text, 21..30, "did you mean `chat`?"), expected);
    }

    #[test]
    fn odd_places_do_not_panic() {
        let backwards = Range { start: 4, end: 3 };
        for place in [0..0, 0..99, backwards, 50..60, 5..6, 1..4, 8..9, 9..10] {
            render("a = \"é\r\r\nb", place, "");
        }
        render("", 0..0, "");
        // Found by fuzzing.
        assert!(render("a = \"\r\r\n", 7..8, "").contains("proxy.toml:1:6\n"));
    }

    /// Found by fuzzing: `tidegate check` would have said it to the terminal.
    #[test]
    fn what_is_quoted_does_nothing_to_a_terminal() {
        let mut faults = Faults::default();
        faults.error(Some(4..6), "no upstream is named `\u{1b}[2J\r\n`", "is it `\u{7f}`?");
        let report = faults.into_report(Path::new("proxy.toml"), "a = \"\u{1b}[2J\r\"");
        assert_eq!(
            report.errors(),
            "error: no upstream is named `\\u{1b}[2J\\r\\n`\n  --> proxy.toml:1:5\n1 | a = \" [2J \"\n  \
             |     ^^ is it `\\u{7f}`?\n\n"
        );
    }

    #[test]
    fn the_nearest_word_is_offered_only_if_it_is_near() {
        assert_eq!(nearest("adress", ["address", "tls"]), Some("address"));
        assert_eq!(nearest("zzz", ["address", "tls"]), None);
    }
}
