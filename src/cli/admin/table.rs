//! Tables: whole for a pipe, or fitted into a width for a screen. Every cell is escaped here, so
//! that what came over the network cannot break a line.

use super::escape;

/// A column with its cells.
#[derive(Debug)]
pub(super) struct Column {
    head: &'static str,
    cells: Vec<String>,
    kind: Kind,
    rank: u8,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// To the left; where there is no room for it, it is cut down to so many characters.
    Text { least: usize },
    /// To the right, and never cut: half a number is a wrong one.
    Figure,
}

impl Column {
    /// Text, of which at least so many characters are to be seen.
    pub(super) fn text(
        head: &'static str,
        least: usize,
        cells: impl Iterator<Item = String>,
    ) -> Self {
        Self::new(head, Kind::Text { least: least.max(head.len()) }, cells)
    }

    /// Numbers.
    pub(super) fn figures(head: &'static str, cells: impl Iterator<Item = String>) -> Self {
        Self::new(head, Kind::Figure, cells)
    }

    fn new(head: &'static str, kind: Kind, cells: impl Iterator<Item = String>) -> Self {
        Self { head, kind, cells: cells.map(|cell| escape::field(&cell)).collect(), rank: 0 }
    }

    /// Left out where there is no room for all columns, those of a higher rank first.
    pub(super) fn dispensable(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    /// The width at which everything is to be seen.
    fn natural(&self) -> usize {
        let cells = self.cells.iter().map(|cell| width(cell));
        cells.max().unwrap_or(0).max(self.head.len())
    }

    /// The width that it may be cut down to.
    fn least(&self) -> usize {
        match self.kind {
            Kind::Text { least } => least.min(self.natural()),
            Kind::Figure => self.natural(),
        }
    }

    fn put(&self, line: &mut String, cell: &str, room: usize) {
        match self.kind {
            Kind::Text { .. } => line.push_str(&format!("{:<room$}", cut(cell, room))),
            Kind::Figure => line.push_str(&format!("{cell:>room$}")),
        }
    }
}

/// The lines of a table, its head first, as wide as they have to be.
pub(super) fn whole(columns: &[Column]) -> Vec<String> {
    let laid_out: Vec<(&Column, usize)> =
        columns.iter().map(|column| (column, column.natural())).collect();
    lines(&laid_out)
}

/// The lines of a table, none wider than `room`: text is cut, and dispensable columns are left out.
pub(super) fn fitted(columns: &[Column], room: usize) -> Vec<String> {
    let mut kept: Vec<&Column> = columns.iter().collect();
    while span(kept.iter().map(|column| column.least())) > room {
        let Some(rank) = kept.iter().map(|column| column.rank).max().filter(|rank| *rank > 0)
        else {
            break;
        };
        // Columns of one rank go together: messages in one direction say little without the other.
        kept.retain(|column| column.rank != rank);
    }
    // A cell that is wider than the room is cut anyway: the loop below need not walk all of it.
    let mut laid_out: Vec<(&Column, usize)> = kept
        .into_iter()
        .map(|column| (column, column.natural().min(room).max(column.least())))
        .collect();
    while span(laid_out.iter().map(|(_, width)| *width)) > room {
        let widest = laid_out
            .iter_mut()
            .filter(|(column, width)| *width > column.least())
            .max_by_key(|(_, width)| *width);
        let Some((_, width)) = widest else { break };
        *width -= 1;
    }
    lines(&laid_out).iter().map(|line| cut(line, room)).collect()
}

/// As much of a text as `room` columns hold, marked where something is missing.
pub(super) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(room.saturating_sub(1)).collect();
    if room > 0 {
        kept.push('~');
    }
    kept
}

/// How many columns an escaped text takes.
fn width(text: &str) -> usize {
    text.chars().count()
}

const GAP: usize = 2;

fn span(widths: impl ExactSizeIterator<Item = usize>) -> usize {
    let gaps = GAP * widths.len().saturating_sub(1);
    widths.sum::<usize>() + gaps
}

fn lines(columns: &[(&Column, usize)]) -> Vec<String> {
    let rows = columns.iter().map(|(column, _)| column.cells.len()).max().unwrap_or(0);
    let head = line(columns.iter().map(|(column, width)| (*column, column.head, *width)));
    let rows = (0..rows).map(|row| {
        line(columns.iter().map(|(column, width)| {
            (*column, column.cells.get(row).map_or("", String::as_str), *width)
        }))
    });
    std::iter::once(head).chain(rows).collect()
}

fn line<'a>(cells: impl Iterator<Item = (&'a Column, &'a str, usize)>) -> String {
    let mut line = String::new();
    for (number, (column, cell, width)) in cells.enumerate() {
        if number > 0 {
            line.push_str(&" ".repeat(GAP));
        }
        column.put(&mut line, cell, width);
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> [Column; 3] {
        let of = |cells: [&str; 2]| cells.map(str::to_owned).into_iter();
        [
            Column::text("ROUTE", 6, of(["example.com/chat", "a\x1b"])),
            Column::figures("SESSIONS", of(["1", "1.2k"])),
            Column::figures("AGE", of(["5m12s", "3s"])).dispensable(1),
        ]
    }

    #[test]
    fn a_whole_table_is_aligned() {
        assert_eq!(
            whole(&columns()),
            [
                "ROUTE             SESSIONS    AGE",
                "example.com/chat         1  5m12s",
                "a\\u{1b}               1.2k     3s",
            ]
        );
    }

    #[test]
    fn a_fitted_table_cuts_text_first() {
        assert_eq!(
            fitted(&columns(), 25),
            [
                "ROUTE     SESSIONS    AGE",
                "example~         1  5m12s",
                "a\\u{1b}       1.2k     3s"
            ]
        );
    }

    #[test]
    fn a_fitted_table_then_leaves_out_columns() {
        assert_eq!(
            fitted(&columns(), 18),
            ["ROUTE     SESSIONS", "example~         1", "a\\u{1b}       1.2k"]
        );
        for room in 0..18 {
            assert!(fitted(&columns(), room).iter().all(|line| width(line) <= room), "{room}");
        }
    }
}
