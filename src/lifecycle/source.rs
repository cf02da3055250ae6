//! Where the configuration comes from: a file, or what the command line says in its place. Read at
//! the start and at every reload, in the same way.

use std::path::{Path, PathBuf};

use crate::config::{self, Config, Frames, Trace};

/// See the module.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file; where there is none, the place it would be at.
    pub path: PathBuf,
    /// The text in the place of the file's.
    text: Option<String>,
    tracing: Tracing,
}

/// Which frames are printed, for a person who debugs.
#[derive(Debug, Clone, Default)]
pub struct Tracing {
    /// The routes, by path or by host and path.
    pub routes: Vec<String>,
    /// Whether the beginning of their payload is printed too.
    pub with_payload: bool,
}

/// Stands for every route where one could be named.
pub const ALL_ROUTES: &str = "*";

/// A configuration, and what is to be said about it although it can be used.
#[derive(Debug)]
pub struct Read {
    /// The configuration.
    pub config: Config,
    /// Warnings for a person, ready to be printed; empty where there are none.
    pub warnings: String,
}

impl Source {
    /// A file.
    pub fn file(path: &Path, tracing: Tracing) -> Self {
        Self { path: path.to_owned(), text: None, tracing }
    }

    /// Defaults for everything but one endpoint. The certificate is kept with the user's data, not
    /// in whatever folder this happens to be.
    pub fn endpoint(endpoint: &str, tracing: Tracing) -> Self {
        let endpoint = toml::Value::String(endpoint.to_owned());
        let data = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
            .unwrap_or_default();
        let text = format!("[upstream.app]\nendpoints = [{endpoint}]\n");
        Self { path: data.join("tidegate/(--to)"), text: Some(text), tracing }
    }

    /// Reads and compiles it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, ready to be printed.
    pub fn read(&self) -> Result<Read, String> {
        let text = match &self.text {
            Some(text) => text.clone(),
            None => config::read(&self.path)?,
        };
        let (config, report) = config::compile(&self.path, &text);
        let Some(mut config) = config else {
            return Err(format!("{}{}", report.warnings(), report.errors()));
        };
        self.tracing.apply(&mut config.routes)?;
        Ok(Read { config, warnings: report.warnings() })
    }
}

impl Tracing {
    /// Has the frames of the routes that were asked for printed.
    fn apply(&self, routes: &mut [config::Route]) -> Result<(), String> {
        let wanted = if self.with_payload { Trace::Payload } else { Trace::Headers };
        for asked in &self.routes {
            let mut is_found = false;
            for route in routes.iter_mut() {
                let path = route.path.to_string();
                if asked == ALL_ROUTES
                    || *asked == path
                    || *asked == format!("{}{path}", route.host)
                {
                    (route.trace, is_found) = (wanted, true);
                }
            }
            if !is_found {
                let known: Vec<String> =
                    routes.iter().map(|route| format!("{}{}", route.host, route.path)).collect();
                let known = known.join(", ");
                return Err(format!(
                    "error: there is no route `{asked}` to trace: there is {known}\n"
                ));
            }
            // A route that is not followed has no frames to print.
            if routes.iter().all(|route| route.trace == Trace::Off || route.frames == Frames::Off) {
                return Err(format!(
                    "error: the frames of route `{asked}` are not followed: remove \
                     `frames = \"off\"` to trace them\n"
                ));
            }
        }
        Ok(())
    }
}
