//! Certificates and CAs of clients that are renewed while the process runs: their files are looked
//! at every few seconds, through whatever symbolic links, and read again when they have changed.
//! Certificates of our own making are renewed in time, and one that is about to expire is warned
//! about.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};

use super::assembly::{self, AssemblyError};
use super::control::Control;
use crate::config::{CertificateSource, KeyPermissions};
use crate::tls::certificate::{Certificate, Facts};
use crate::tls::client_auth::Authorities;
use crate::tls::key_file;

/// How often the files are looked at. A look is one `stat` for each.
const EVERY: Duration = Duration::from_secs(2);
/// How often the calendar is.
const CALENDAR_EVERY: Duration = Duration::from_secs(3600);
/// How long before the end of its validity a certificate is warned about, once a day; but not for
/// longer than a fifth of its whole life.
const WARN_BEFORE: time::Duration = time::Duration::days(14);
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What was seen of the files, and when to look again.
#[derive(Debug)]
pub(super) struct Renewal {
    seen: Option<Vec<Seen>>,
    next: Instant,
    next_calendar: Instant,
    next_warning: Instant,
    /// What could not be used at the last look.
    unusable: Vec<Unusable>,
}

/// Files that cannot be used as they are. They may be half written at the moment: only when they
/// are the same at the next look are they complained of, once.
#[derive(Debug, Clone)]
struct Unusable {
    files: Seen,
    looks: u32,
}

/// What was seen of one certificate, its chain and its key; or of the CAs of clients.
type Seen = Vec<Version>;

/// A file, and what tells one version of it from another; `None` where that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    path: PathBuf,
    stamp: Option<(u64, u64, i64, i64, u64)>,
}

impl Renewal {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            seen: None,
            next: now,
            next_calendar: now + CALENDAR_EVERY,
            next_warning: now,
            unusable: Vec::new(),
        }
    }

    /// Resolves when it is time to look. May be dropped at any time.
    pub(super) async fn due(&self) {
        sleep_until(self.next).await;
    }

    /// Looks at the files and, once in a while, at the calendar.
    pub(super) fn look(&mut self, control: &Control) {
        let now = Instant::now();
        self.next = now + EVERY;
        let seen = look_at(control);
        let before = self.seen.replace(seen.clone());
        // The first time, too: they may have changed since the process read them.
        let is_changed = before.is_none_or(|before| before != seen);
        let is_calendar_due = now >= self.next_calendar;
        if is_calendar_due {
            self.next_calendar = now + CALENDAR_EVERY;
        }
        let is_unsettled = !self.unusable.is_empty();
        if is_changed || is_unsettled || (is_calendar_due && makes_its_own(control)) {
            self.read_again(control, seen);
        }
        if now >= self.next_warning {
            self.next_warning = now + WARN_EVERY;
            warn_of_the_end(control);
        }
    }

    /// Reads all that `seen` is about. Each stands for itself: what is wrong with one keeps no other
    /// from being renewed.
    fn read_again(&mut self, control: &Control, seen: Vec<Seen>) {
        let mut unusable = Vec::new();
        let renewed = control.renew(|number, error| {
            let Some(files) = seen.get(number) else { return };
            let before = self.unusable.iter().find(|known| known.files == *files);
            let looks = before.map_or(1, |known| known.looks.saturating_add(1));
            if looks == 2 {
                tracing::warn!("{error}; what was there before is still used");
            }
            unusable.push(Unusable { files: files.clone(), looks });
        });
        self.unusable = unusable;
        match renewed {
            Ok(true) => {
                tracing::info!("certificates were renewed");
                self.next_warning = Instant::now();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("{error}; the certificates that were there before are served");
            }
        }
    }
}

fn look_at(control: &Control) -> Vec<Seen> {
    let loaded = control.loaded.borrow();
    let files = loaded.config.certificates.iter().map(|source| match source {
        CertificateSource::Loaded(known) => vec![&known.path, &known.key_path],
        CertificateSource::SelfSigned(own) => vec![&own.chain, &own.key],
    });
    let authorities = loaded.config.tls.client_ca.iter().map(|known| vec![&known.path]);
    let seen = |files: Vec<&PathBuf>| files.into_iter().map(|path| version(path)).collect();
    files.chain(authorities).map(seen).collect()
}

fn version(path: &Path) -> Version {
    let found = fs::metadata(path).ok();
    let stamp = found.map(|f| (f.dev(), f.ino(), f.mtime(), f.mtime_nsec(), f.size()));
    Version { path: path.to_owned(), stamp }
}

fn makes_its_own(control: &Control) -> bool {
    let loaded = control.loaded.borrow();
    let is_own = |source: &CertificateSource| matches!(source, CertificateSource::SelfSigned(_));
    loaded.config.certificates.iter().any(is_own)
}

fn warn_of_the_end(control: &Control) {
    let now = OffsetDateTime::from(SystemTime::now());
    for certificate in control.running().certificates.certificates() {
        if is_near_its_end(&certificate.facts, now) {
            tracing::warn!(
                chain = %certificate.path.display(),
                "this certificate expires on {}: renew it; the files are read again when they change",
                certificate.facts.not_after.date()
            );
        }
    }
}

fn is_near_its_end(facts: &Facts, now: OffsetDateTime) -> bool {
    let life = facts.not_after - facts.not_before;
    facts.not_after - now < WARN_BEFORE.min(life / 5)
}

impl Control {
    /// Reads the certificates and the CAs of clients again, and uses them for whoever connects from
    /// now on; whether one is another than before. In the place of what cannot be read, what is in
    /// use already stays, and `complain` is told its number, that of the CAs being the last, and why.
    fn renew(&self, mut complain: impl FnMut(usize, AssemblyError)) -> Result<bool, rustls::Error> {
        let before = self.running();
        let loaded = self.loaded.borrow();
        let tls = &loaded.config.tls;
        let mut certificates = Vec::new();
        let served = before.certificates.certificates();
        // They are in the order of their sources.
        for (number, (source, served)) in loaded.config.certificates.iter().zip(served).enumerate()
        {
            certificates.push(read(source, tls.key_permissions).unwrap_or_else(|error| {
                complain(number, error);
                served.clone()
            }));
        }
        let believed = before.tls.authorities();
        let authorities = believed.map(|known| {
            Authorities::load(&known.path).unwrap_or_else(|error| {
                complain(loaded.config.certificates.len(), error.into());
                known.clone()
            })
        });
        let is_same_ca = match (believed, &authorities) {
            (Some(before), Some(now)) => before.are_those_of(now),
            _ => true,
        };
        let chain = |certificate: &Certificate| certificate.key.cert.clone();
        if is_same_ca && served.iter().map(chain).eq(certificates.iter().map(chain)) {
            return Ok(false);
        }
        warn_of_exposed_keys(&loaded.config.certificates);
        let running = assembly::with_certificates(&before, tls, certificates, authorities)?;
        self.shared.running.store(Arc::new(running));
        Ok(true)
    }
}

/// What an ACME client writes anew it may write for everybody to read.
fn warn_of_exposed_keys(sources: &[CertificateSource]) {
    let keys = sources.iter().flat_map(CertificateSource::keys);
    for exposed in keys.filter_map(|key| key_file::check(&key).err()) {
        tracing::warn!("{exposed}: {}", exposed.way_out());
    }
}

fn read(
    source: &CertificateSource,
    key_permissions: KeyPermissions,
) -> Result<Certificate, AssemblyError> {
    let now = SystemTime::now();
    if key_permissions == KeyPermissions::Refuse {
        source.keys().iter().try_for_each(|key| key_file::check(key))?;
    }
    match source {
        CertificateSource::Loaded(known) => {
            Ok(Certificate::load(&known.path, &known.key_path, now)?)
        }
        // Files of our own making that have been taken away while we run are about to be replaced.
        CertificateSource::SelfSigned(own) if !(own.chain.exists() && own.key.exists()) => {
            Ok(Certificate::load(&own.chain, &own.key, now)?)
        }
        CertificateSource::SelfSigned(_) => {
            Ok(assembly::certificates(std::slice::from_ref(source))?.remove(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_about_in_the_last_fifth_of_its_life() {
        let facts = |days: i64| Facts {
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_before: OffsetDateTime::UNIX_EPOCH,
            not_after: OffsetDateTime::UNIX_EPOCH + time::Duration::days(days),
            issuer: String::new(),
        };
        let on = |day: i64| OffsetDateTime::UNIX_EPOCH + time::Duration::days(day);
        for (life, day, is_near) in
            [(90, 75, false), (90, 77, true), (90, 91, true), (5, 3, false), (10, 9, true)]
        {
            assert_eq!(is_near_its_end(&facts(life), on(day)), is_near, "day {day} of {life}");
        }
    }
}
