//! One run: everybody is started, and they take turns in each scenario, round by round.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::client::{self, Doors};
use crate::idle;
use crate::load;
use crate::peer::Peer;
use crate::proxy::{CertificateFiles, Cores, Proxy};
use crate::report::{Cell, Row};
use crate::scenario::{Bounds, Sample, Scenario, Work};

/// Everything that the proxies of one run have in common.
pub(crate) struct Stage<'a> {
    peers: &'a [Peer],
    cores: Cores,
    folder: tempfile::TempDir,
    certificate: CertificateFiles,
    tls: Arc<rustls::ClientConfig>,
    backend: Arc<Backend>,
    rounds: u32,
    bounds: Bounds,
}

impl<'a> Stage<'a> {
    pub(crate) fn set(
        peers: &'a [Peer],
        cores: Cores,
        rounds: u32,
        bounds: Bounds,
    ) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("side-by-side-").tempdir()?;
        let made = rcgen::generate_simple_self_signed([client::HOST.to_owned()]); // ECDSA P-256
        let made = made.map_err(io::Error::other)?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = CertificateFiles {
            chain: folder.path().join("server.crt"),
            key: folder.path().join("server.key"),
            chain_and_key: folder.path().join("server.pem"),
        };
        std::fs::write(&certificate.chain, &chain)?;
        std::fs::write(&certificate.key, &key)?;
        std::fs::write(&certificate.chain_and_key, chain + &key)?;
        let tls = client::tls_settings(made.cert.der().clone()).map_err(io::Error::other)?;
        let backend = Arc::default();
        Ok(Self { peers, cores, folder, certificate, tls, backend, rounds, bounds })
    }

    /// Measures all of `scenarios`, in their order.
    pub(crate) async fn measure_all<'s>(
        &self,
        scenarios: &[&'s Scenario],
    ) -> io::Result<Vec<Row<'s>>> {
        let mut proxies = Vec::new();
        for peer in self.peers {
            proxies.push(self.start(peer).await?);
        }
        let mut rows = Vec::new();
        for together in scenarios.chunk_by(|one, next| one.shares_sessions_with(next)) {
            rows.extend(self.measure(together, &mut proxies).await);
        }
        Ok(rows)
    }

    async fn start(&self, peer: &Peer) -> io::Result<Proxy> {
        let backend = self.backend.listen().await?;
        Proxy::start(peer, self.folder.path(), &self.certificate, backend, self.cores)
    }

    /// A row for each of the scenarios, which are measured in one go. The peers take turns, round
    /// by round. A peer that fails is left out from there on and the others go on.
    async fn measure<'s>(&self, together: &[&'s Scenario], proxies: &mut [Proxy]) -> Vec<Row<'s>> {
        let row = |scenario: &&'s Scenario| Row {
            scenario,
            cells: self.peers.iter().map(|_| Cell::default()).collect(),
        };
        let mut rows: Vec<_> = together.iter().map(row).collect();
        let rounds = match together[0].work {
            // They vary less than the others, and take longer.
            Work::Idle(_) | Work::Beside => self.rounds.div_ceil(3),
            _ => self.rounds,
        };
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", together[0].name);
            for (at, peer) in self.peers.iter().enumerate() {
                if rows[0].cells[at].failure.is_some() {
                    continue;
                }
                match self.round(together, peer, &mut proxies[at]).await {
                    Ok(samples) => {
                        for (row, sample) in rows.iter_mut().zip(samples) {
                            row.cells[at].samples.push(sample);
                        }
                    }
                    Err(failure) => {
                        eprintln!("{} failed: {failure}", peer.name);
                        for row in &mut rows {
                            row.cells[at].failure = Some(failure.to_string());
                        }
                    }
                }
            }
        }
        rows
    }

    /// A sample for each of the scenarios.
    async fn round(
        &self,
        together: &[&Scenario],
        peer: &Peer,
        proxy: &mut Proxy,
    ) -> io::Result<Vec<Sample>> {
        let scenario = together[0];
        match scenario.work {
            Work::Idle(_) => {
                // A fresh one: in that of the other rows, memory that was used before would be
                // used again, and seem to cost nothing.
                let mut fresh = self.start(peer).await?;
                let weighed = idle::weigh(&fresh, &self.doors(scenario, &fresh), self.bounds).await;
                let weights = weighed.map_err(|error| fresh.explain(error))?;
                let sample = |scenario: &&Scenario| match scenario.work {
                    Work::Idle(weighed) => Ok(Sample::plain(weights.figure(weighed))),
                    _ => Err(io::Error::other("only idle sessions are weighed together")),
                };
                together.iter().map(sample).collect()
            }
            Work::Beside => {
                let (mut crowded, empty) = (self.start(peer).await?, self.start(peer).await?);
                let doors = (self.doors(scenario, &crowded), self.doors(scenario, &empty));
                let (with, without) = ((&crowded, &doors.0), (&empty, &doors.1));
                let sample = idle::beside(with, without, &self.backend, self.bounds).await;
                Ok(vec![sample.map_err(|error| crowded.explain(error))?])
            }
            _ => {
                let doors = self.doors(scenario, proxy);
                let sample =
                    load::measure(scenario, proxy, &doors, &self.backend, self.bounds).await;
                let sample = sample.map_err(|error| proxy.explain(error))?;
                // The connections that were just dropped are cleared away at nobody's expense.
                proxy.quiet().await?;
                Ok(vec![sample])
            }
        }
    }

    fn doors(&self, scenario: &Scenario, proxy: &Proxy) -> Doors {
        proxy.doors(scenario.over_tls.then(|| Arc::clone(&self.tls)))
    }
}

/// How long everything takes; `idle_sessions` is how many are weighed.
pub(crate) fn bounds(quick: bool, idle_sessions: usize) -> Bounds {
    let millis = |usual, when_quick| Duration::from_millis(if quick { when_quick } else { usual });
    Bounds {
        warm_up: millis(300, 100),
        window: millis(1000, 300),
        idle_sessions,
        silence: millis(5000, 2000),
        afterwards: millis(5000, 3000),
    }
}
