//! `tidegate top`: looks at the process again and again, and shows what went on between two looks.
//! The page is made in `page`, without a terminal.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ask::{AskError, Query, Socket};
use super::page::{Line, Look, Size, page};
use super::terminal::{Screen, keys, size};
use super::{CommandError, figures, print};
use crate::admin::snapshot::{SessionList, Status};

/// How wide a page is that goes to no terminal.
const PLAIN_COLUMNS: usize = 120;

/// How many sessions are on a page that may be as long as it likes.
const PLAIN_SESSIONS: usize = 20;

/// What Ctrl-C is where it raises no signal.
const CTRL_C: u8 = 3;

/// Shows the process until the person has seen enough; one page where there is no screen.
pub(super) async fn top(
    socket: &Socket,
    is_once: bool,
    every: Duration,
) -> Result<(), CommandError> {
    if is_once || !io::stdout().is_terminal() {
        once(socket, every).await
    } else {
        live(socket, every).await
    }
}

async fn once(socket: &Socket, every: Duration) -> Result<(), CommandError> {
    let mut seen = Seen::first(ask(socket, PLAIN_SESSIONS).await?);
    sleep(every).await;
    seen.take(Ok(ask(socket, PLAIN_SESSIONS).await?));
    let columns = if io::stdout().is_terminal() { size().columns } else { PLAIN_COLUMNS };
    let lines = seen.page(Size { columns, rows: usize::MAX });
    let text: String = lines.iter().map(|line| format!("{}\n", line.text())).collect();
    print(&text)
}

async fn live(socket: &Socket, every: Duration) -> Result<(), CommandError> {
    let terminal = |source| CommandError::Terminal { source };
    // Before the screen is taken: who asks the wrong socket is to read that.
    let mut seen = Seen::first(ask(socket, size().rows).await?);
    let mut leave = Leave::listen().map_err(terminal)?;
    let mut resized = signal(SignalKind::window_change()).map_err(terminal)?;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first comes at once
    let screen = Screen::enter().map_err(terminal)?;
    let mut keys = keys();
    loop {
        screen.show(&seen.page(size())).map_err(terminal)?;
        let next = async {
            ticks.tick().await;
            ask(socket, size().rows).await
        };
        tokio::pin!(next);
        // A process that answers late must not keep the keys waiting: only `next` itself ends this
        // loop and begins another one, so no question is dropped unless we leave.
        let answer = loop {
            tokio::select! {
                answer = &mut next => break answer,
                Some(key) = keys.recv() => {
                    if matches!(key, b'q' | b'Q' | CTRL_C) {
                        return Ok(());
                    }
                }
                () = leave.told() => return Ok(()),
                _ = resized.recv() => screen.show(&seen.page(size())).map_err(terminal)?,
            }
        };
        seen.take(answer);
    }
}

/// One look: the process, and its busiest sessions.
async fn ask(socket: &Socket, sessions: usize) -> Result<Answer, AskError> {
    let status = socket.status().await?;
    let at = Instant::now();
    let query = Query::default().with("sort", Some("rate"));
    let query = query.with("limit", Some(&sessions.to_string()));
    Ok(Answer { status, at, sessions: socket.sessions(&query).await? })
}

/// What came of one look.
#[derive(Debug)]
struct Answer {
    status: Status,
    at: Instant,
    sessions: SessionList,
}

/// The last two looks that came to something.
#[derive(Debug)]
struct Seen {
    before: Option<Answer>,
    now: Answer,
    /// Why the last look came to nothing, if it did.
    trouble: Option<AskError>,
}

impl Seen {
    fn first(answer: Answer) -> Self {
        Self { before: None, now: answer, trouble: None }
    }

    fn take(&mut self, answer: Result<Answer, AskError>) {
        match answer {
            Ok(answer) => {
                self.before = Some(std::mem::replace(&mut self.now, answer));
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    fn page(&self, size: Size) -> Vec<Line> {
        let seconds = self
            .before
            .as_ref()
            .map_or(0.0, |before| self.now.at.saturating_duration_since(before.at).as_secs_f64());
        // How old the page is comes first: the end of this line may be cut.
        let trouble = self.trouble.as_ref().map(|error| {
            format!("{} old: {error}", figures::span(self.now.at.elapsed().as_secs_f64()))
        });
        let look = Look {
            before: self.before.as_ref().map(|before| &before.status),
            now: &self.now.status,
            seconds,
            sessions: &self.now.sessions,
            trouble: trouble.as_deref(),
        };
        page(&look, size)
    }
}

/// The signals that end it.
#[derive(Debug)]
struct Leave {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Leave {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when one has come. Dropping the future loses none.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
