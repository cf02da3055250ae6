//! Many sessions that say nothing: what they hold of a proxy's memory, what they leave behind,
//! what they cost while they are silent, and what they add to the cost of others.

use std::io;

use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::client::{Door, Doors, Link};
use crate::load::{self, GRACE, OPENING};
use crate::payload::Echo;
use crate::proxy::Proxy;
use crate::report::median;
use crate::scenario::{Bounds, Sample, Scenario, Weighed};

/// What idle sessions are to a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    open_kib: f64,
    gone_kib: f64,
    silence_ms: f64,
}

impl Weights {
    pub(crate) fn figure(&self, weighed: Weighed) -> f64 {
        match weighed {
            Weighed::Open => self.open_kib,
            Weighed::Gone => self.gone_kib,
            Weighed::Silence => self.silence_ms,
        }
    }
}

/// Opens many sessions through `proxy`, which must be fresh, and weighs it before, meanwhile and
/// afterwards.
pub(crate) async fn weigh(proxy: &Proxy, doors: &Doors, bounds: Bounds) -> io::Result<Weights> {
    // The very first session pays for what is made once.
    close(open(doors, 1).await?).await?;
    proxy.quiet().await?;
    let before = proxy.pss_kib()?;

    let sessions = open(doors, bounds.idle_sessions).await?;
    proxy.quiet().await?;
    let cpu = proxy.cpu()?;
    tokio::time::sleep(bounds.silence).await;
    let cpu = proxy.cpu()? - cpu;
    let open = proxy.pss_kib()?;

    close(sessions).await?;
    tokio::time::sleep(bounds.afterwards).await;
    let gone = proxy.pss_kib()?;
    let per_session = |kib: f64| (kib - before) / bounds.idle_sessions as f64;
    Ok(Weights {
        open_kib: per_session(open),
        gone_kib: per_session(gone),
        silence_ms: cpu.used.as_secs_f64() * 1e3 / bounds.silence.as_secs_f64(),
    })
}

/// How often the two sides of [`beside`] take turns.
const TURNS: usize = 3;

/// What a message costs in `crowded`, where many sessions idle, as a multiple of what it costs in
/// `empty`, where none does. Both must be fresh.
pub(crate) async fn beside(
    crowded: (&Proxy, &Doors),
    empty: (&Proxy, &Doors),
    backend: &Backend,
    bounds: Bounds,
) -> io::Result<Sample> {
    let sessions = open(crowded.1, bounds.idle_sessions).await?;
    crowded.0.quiet().await?;
    let scenario = Scenario::beside_idle();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut course = None;
    for _ in 0..TURNS {
        let sample = load::measure(&scenario, empty.0, empty.1, backend, bounds).await?;
        without.push(sample.figure);
        empty.0.quiet().await?;
        let sample = load::measure(&scenario, crowded.0, crowded.1, backend, bounds).await?;
        with.push(sample.figure);
        course = sample.course;
        crowded.0.quiet().await?;
    }
    close(sessions).await?;
    Ok(Sample { course, ..Sample::plain(median(&with) / median(&without)) })
}

async fn open(doors: &Doors, sessions: usize) -> io::Result<Vec<Link>> {
    let opening = async {
        let mut open = Vec::with_capacity(sessions);
        let mut pending = JoinSet::new();
        for number in 0..sessions {
            if pending.len() == OPENING {
                open.extend(joined(&mut pending).await?);
            }
            let door = doors.of(number);
            pending.spawn(async move { open_one(&door, number as u32).await });
        }
        while let Some(session) = joined(&mut pending).await? {
            open.push(session);
        }
        Ok(open)
    };
    tokio::time::timeout(GRACE, opening).await?
}

async fn open_one(door: &Door, number: u32) -> io::Result<Link> {
    let mut link = door.websocket("/echo").await?;
    Echo::new(number, 1024).once(&mut link).await?;
    link.rest();
    Ok(link)
}

/// Closes sessions in order, which also shows that none was cut meanwhile: otherwise less than it
/// seems was weighed.
async fn close(sessions: Vec<Link>) -> io::Result<()> {
    let mut closing = JoinSet::new();
    for session in sessions {
        closing.spawn(session.close());
    }
    let closing = async {
        while joined(&mut closing).await?.is_some() {}
        Ok(())
    };
    tokio::time::timeout(GRACE, closing).await?
}

async fn joined<T: 'static>(tasks: &mut JoinSet<io::Result<T>>) -> io::Result<Option<T>> {
    tasks.join_next().await.transpose()?.transpose()
}
