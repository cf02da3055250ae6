//! A reload: the whole configuration is read, compiled and assembled first, sockets and files
//! opened; then it is taken over in one go, or not at all. What means the same stays as it is.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::assembly::{self, Assembled, Listeners};
use super::control::{Control, Loaded};
use super::source::Read;
use super::standing::State;
use super::worker::Command;
use crate::admin::listen;
use crate::config::Config;
use crate::relay::sessions::Why;
use crate::telemetry::access_log;

/// All that a configuration needs, ready to be taken over.
struct Prepared {
    config: Config,
    listeners: Listeners,
    assembled: Assembled,
    log: access_log::Opened,
    sockets: listen::Sockets,
}

impl Control {
    /// Reads the configuration anew and runs it. What was done, for a person.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, ready to be printed; nothing has changed then.
    pub(super) fn reload(self: &Rc<Self>) -> Result<String, String> {
        match self.prepare() {
            Ok(prepared) => {
                self.metrics().reloads.increase();
                *self.last_failure.borrow_mut() = None;
                Ok(self.take_over(prepared))
            }
            Err(faults) => {
                self.metrics().reload_failures.increase();
                self.metrics().forget_the_gone();
                *self.last_failure.borrow_mut() = Some(faults.clone());
                Err(faults)
            }
        }
    }

    fn prepare(&self) -> Result<Prepared, String> {
        let failed = |error: &dyn std::error::Error| format!("error: {error}\n");
        let Read { config, warnings } = self.source.read()?;
        for warning in warnings.lines() {
            tracing::warn!("{warning}");
        }
        let certificates =
            assembly::certificates(&config.certificates).map_err(|error| failed(&error))?;
        let assembled =
            assembly::running(&config, certificates, Some(&self.running()), self.metrics())
                .map_err(|error| failed(&error))?;
        let log = access_log::open(&config.log).map_err(|error| failed(&error))?;
        let open = self.interface.borrow().open();
        let sockets = listen::bind(&config.admin, &open).map_err(|error| failed(&error))?;
        // Last: once it listens, somebody may connect whom a failure after that would reset.
        // A worker holds on to the door for as long as its socket is open.
        self.leaving.borrow_mut().retain(|(_, door)| door.strong_count() > 0);
        let leaving: Vec<_> = self.leaving.borrow().iter().map(|(address, _)| *address).collect();
        let listeners = assembly::listeners(
            &config,
            &self.loaded.borrow().listeners,
            &leaving,
            &mut self.inherited.borrow_mut(),
            self.workers.len(),
            self.metrics(),
        )
        .map_err(|error| failed(&error))?;
        Ok(Prepared { config, listeners, assembled, log, sockets })
    }

    fn take_over(self: &Rc<Self>, prepared: Prepared) -> String {
        let Prepared { config, listeners, assembled, log, sockets } = prepared;
        let Assembled { running, gone_routes, gone_endpoints } = assembled;
        let Listeners { open, fresh, entrances, gone, warnings } = listeners;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let opened = fresh.len();
        running.limits.change(&config.limits);
        self.shared.running.store(Arc::new(running));
        self.shared.log.adopt(log);
        self.interface.borrow_mut().adopt(sockets, &config.admin, self);
        *self.loaded.borrow_mut() = Loaded { config, listeners: open, at: SystemTime::now() };
        self.admit_by(fresh, entrances);
        for shut in &gone {
            tracing::info!(address = %shut.address, "no longer listening");
            self.tell_all(|| Command::Shut(shut.door.clone()));
            self.leaving.borrow_mut().push((shut.address, Arc::downgrade(&shut.door)));
        }
        self.tell_all(|| Command::ForgetConnections);
        for route in &gone_routes {
            route.standing.set(State::Removed);
            self.send_off(&route.standing, Why::RouteRemoved);
        }
        for endpoint in &gone_endpoints {
            endpoint.standing.set(State::Removed);
            self.send_off(&endpoint.standing, Why::EndpointRemoved);
        }
        let count = |count: usize, what: &str| {
            (count > 0).then(|| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        };
        let done: Vec<String> = [
            count(opened, "listener").map(|text| text + " opened"),
            count(gone.len(), "listener").map(|text| text + " shut"),
            count(gone_routes.len(), "route").map(|text| text + " removed"),
            count(gone_endpoints.len(), "endpoint").map(|text| text + " removed"),
        ]
        .into_iter()
        .flatten()
        .collect();
        drop((gone, gone_routes, gone_endpoints));
        self.metrics().forget_the_gone();
        let details =
            if done.is_empty() { String::new() } else { format!(": {}", done.join(", ")) };
        format!("reloaded {}{details}", self.source.path.display())
    }

    /// Sends the sessions on something away that is gone; nobody waits for how many there were.
    fn send_off(&self, standing: &Arc<super::standing::Standing>, why: Why) {
        let departure = self.departure_of(standing, why);
        self.tell_all(|| Command::Depart(departure.clone(), tokio::sync::oneshot::channel().0));
    }
}
