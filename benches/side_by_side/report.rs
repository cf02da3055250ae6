//! From samples to a Markdown table: medians, their spread, and ratios to one of the peers.

use std::fmt::Write;

use crate::peer::{Peer, REFERENCE};
use crate::scenario::{Course, Sample, Scenario, Unit};

/// What one peer did in one scenario.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// One per round.
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more.
    pub(crate) failure: Option<String>,
}

impl Cell {
    fn figures(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.figure).collect()
    }
}

/// What was measured: one cell per peer, in the order of the peers.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) cells: Vec<Cell>,
}

/// The main table: what each peer costs, and what that is to the peer called `reference`.
pub(crate) fn costs(peers: &[Peer], rows: &[Row], reference: &str) -> String {
    let name = reference;
    let reference = peers.iter().position(|peer| peer.name == name);
    let has_aims = reference.is_some() && name == REFERENCE;
    let mut table = String::from("| CPU time or memory of the proxy |");
    for peer in peers {
        let _ = write!(table, " {} |", peer.name);
    }
    let others: Vec<_> = (0..peers.len()).filter(|&at| Some(at) != reference).collect();
    if reference.is_some() {
        for &other in &others {
            let _ = write!(table, " **{} / {name}** |", peers[other].name);
        }
    }
    if has_aims {
        table.push_str(" aim |");
    }
    let columns = table.matches('|').count() - 1;
    let _ = writeln!(table, "\n|---|{}", "---:|".repeat(columns - 1));
    for Row { scenario, cells } in rows {
        let _ = write!(table, "| {}, {} |", scenario.name, scenario.unit().text());
        for cell in cells {
            let _ = write!(table, " {} |", spread(&cell.figures()));
        }
        if let Some(reference) = reference {
            for &other in &others {
                let ratio = ratio(&cells[other].figures(), &cells[reference].figures());
                let _ = write!(table, " {ratio} |");
            }
        }
        if has_aims {
            let _ = write!(table, " {} |", scenario.aim);
        }
        table.push('\n');
    }
    table
}

/// The table beside it, by which a reader sees what the figures are worth: how much came through,
/// how busy the proxy's core was, and how long it was busy with something else.
pub(crate) fn circumstances(peers: &[Peer], rows: &[Row]) -> String {
    let text = |scenario: &Scenario, cell: &Cell| {
        let courses: Vec<_> = cell.samples.iter().filter_map(|sample| sample.course).collect();
        (!courses.is_empty()).then(|| circumstance(scenario.unit(), &courses))
    };
    plain_table("rate, share of the core", peers, rows, text)
}

/// How long clients waited for what they had sent to come back.
pub(crate) fn latencies(peers: &[Peer], rows: &[Row]) -> String {
    let text = |_: &Scenario, cell: &Cell| {
        let latencies = cell.samples.iter().filter_map(|sample| sample.latency);
        let (medians, p99s): (Vec<_>, Vec<_>) =
            latencies.map(|latency| (latency.median, latency.p99)).unzip();
        (!medians.is_empty()).then(|| format!("{} / {}", spread(&medians), spread(&p99s)))
    };
    plain_table("latency p50 / p99, µs", peers, rows, text)
}

/// A table of texts, without the rows for which no peer has one; nothing if that leaves none.
fn plain_table(
    title: &str,
    peers: &[Peer],
    rows: &[Row],
    text: impl Fn(&Scenario, &Cell) -> Option<String>,
) -> String {
    let mut table = String::new();
    for Row { scenario, cells } in rows {
        let texts: Vec<_> = cells.iter().map(|cell| text(scenario, cell)).collect();
        if texts.iter().all(Option::is_none) {
            continue;
        }
        if table.is_empty() {
            let names: Vec<_> = peers.iter().map(|peer| peer.name).collect();
            let _ = writeln!(table, "| {title} | {} |", names.join(" | "));
            let _ = writeln!(table, "|---|{}", "---:|".repeat(peers.len()));
        }
        let _ = write!(table, "| {} |", scenario.name);
        for text in texts {
            let _ = write!(table, " {} |", text.as_deref().unwrap_or("–"));
        }
        table.push('\n');
    }
    table
}

fn circumstance(unit: Unit, courses: &[Course]) -> String {
    let median_of =
        |part: fn(&Course) -> f64| median(&courses.iter().map(part).collect::<Vec<_>>());
    let rate = median_of(|course| course.rate);
    let rate = match unit {
        Unit::SecondsPerGigabyte => format!("{:.2} GB/s", rate / 1e9),
        _ => format!("{rate:.0}/s"),
    };
    let (busy, waited) = (median_of(|course| course.busy), median_of(|course| course.waited));
    let mut text = format!("{rate}, {:.0} %", busy * 100.0);
    if waited > 0.02 {
        let _ = write!(text, " (and {:.0} % waiting for it)", waited * 100.0);
    }
    text
}

/// The ratio of the medians, with the least and the greatest ratio of a single round: both were
/// measured within seconds of each other, so that what slows the machine for a while cancels out.
fn ratio(ours: &[f64], theirs: &[f64]) -> String {
    // Nothing is not twice of anything, nor half.
    if ours.is_empty() || theirs.iter().all(|&figure| figure <= 0.0) {
        return "–".to_owned();
    }
    let rounds: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let (least, greatest) = range(&rounds);
    format!("**{:.2}** ({least:.2}–{greatest:.2})", median(ours) / median(theirs))
}

fn spread(figures: &[f64]) -> String {
    if figures.is_empty() {
        return "failed".to_owned();
    }
    let (least, greatest) = range(figures);
    format!("{} ({}–{})", figure(median(figures)), figure(least), figure(greatest))
}

/// Three digits that mean something.
fn figure(figure: f64) -> String {
    match figure.abs() {
        ..10.0 => format!("{figure:.2}"),
        10.0..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

fn range(figures: &[f64]) -> (f64, f64) {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, greatest)
}

pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}
