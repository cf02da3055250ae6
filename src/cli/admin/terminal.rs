//! The terminal while `top` has it: the alternate screen without a cursor, keys that come at once,
//! and all of it given back however the command ends.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

use super::page::{Line, Size};

/// Alternate screen, no cursor, and no wrapping: between a resize and the next page, lines may be
/// longer than the screen is wide.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What a terminal has that does not say how large it is.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// The screen; dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen(Arc<Original>);

/// The terminal as it was.
#[derive(Debug)]
struct Original {
    /// `None` where the standard input is no terminal, and there are no keys.
    modes: Option<Termios>,
    is_restored: AtomicBool,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> io::Result<Self> {
        let modes = if io::stdin().is_terminal() { Some(tcgetattr(io::stdin())?) } else { None };
        let original = Arc::new(Original { modes, is_restored: AtomicBool::new(false) });
        let screen = Self(original.clone());
        // A panic speaks before anything is dropped: on the alternate screen nobody would read it.
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            original.restore();
            previous(info);
        }));
        if let Some(modes) = &screen.0.modes {
            tcsetattr(io::stdin(), OptionalActions::Now, &immediate(modes))?;
        }
        write(ENTER)?;
        Ok(screen)
    }

    /// Shows a page, which must fit the terminal.
    pub(super) fn show(&self, page: &[Line]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in page.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            // Erased first: behind a full line the cursor still stands on its last character.
            text.push_str("\x1b[2K");
            match line {
                Line::Head(line) => text.push_str(&format!("\x1b[1m{line}\x1b[0m")),
                Line::Plain(line) => text.push_str(line),
            }
        }
        // The same goes for what is below.
        if page.len() < size().rows {
            text.push_str("\r\n\x1b[J");
        }
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.0.restore();
    }
}

impl Original {
    /// Only once: a second time would move the cursor back to where it was before the screen.
    fn restore(&self) {
        if self.is_restored.swap(true, Ordering::Relaxed) {
            return;
        }
        // A terminal that has gone away needs nothing back.
        let _ = write(LEAVE);
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// How large the terminal is now.
pub(super) fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL,
    }
}

/// The keys as they are typed, or none where the standard input is no terminal.
pub(super) fn keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel(16);
    if io::stdin().is_terminal() {
        // A thread, since reading a terminal waits. It ends with the process.
        thread::spawn(move || {
            for key in io::stdin().lock().bytes() {
                let Ok(key) = key else { break };
                if sender.blocking_send(key).is_err() {
                    break;
                }
            }
        });
    }
    keys
}

/// Keys come one by one and are not shown; Ctrl-C is one of them, and Ctrl-Z does not leave the
/// shell on our screen.
fn immediate(modes: &Termios) -> Termios {
    let mut modes = modes.clone();
    modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
