//! Who takes part, and with which settings. A further peer is one more entry in [`all`], with the
//! function in [`crate::configuration`] that writes what it reads.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::configuration::{haproxy_cfg, nginx_conf, sozu_toml, tidegate_toml};
use crate::{bare_hyper, floor};

/// A proxy that can be measured.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// As in `--peers` and in the table.
    pub(crate) name: &'static str,
    /// What is not the default in its configuration, for the reader of the table.
    pub(crate) settings: &'static str,
    /// Looked up in the usual places if it is only a name.
    pub(crate) program: PathBuf,
    pub(crate) arguments: fn(&Site) -> Vec<OsString>,
    pub(crate) configuration: fn(&Site) -> String,
    pub(crate) spread: Spread,
    pub(crate) part: Part,
}

/// On which cores it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spread {
    /// On the one that the load leaves alone.
    OneCore,
    /// One process on both, which it shares with the load.
    BothCores,
    /// A process for each of the two.
    ProcessPerCore,
}

/// When it takes part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    /// Unless others are named.
    Usual,
    /// In a run of everything, if it is installed.
    InAll,
    /// When it is named.
    IfNamed,
}

/// What a configuration needs to know of the place where its proxy runs.
#[derive(Debug)]
pub(crate) struct Site {
    /// A folder of this proxy's own, gone after the run.
    pub(crate) folder: PathBuf,
    pub(crate) wss: SocketAddr,
    pub(crate) ws: SocketAddr,
    pub(crate) backend: SocketAddr,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// Chain and key in one file, as haproxy wants them.
    pub(crate) chain_and_key: PathBuf,
}

impl Site {
    /// Where the configuration is written.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.join("proxy.conf")
    }
}

/// The peer that ratios are taken to unless `--reference` says otherwise; the aims are ratios to it.
pub(crate) const REFERENCE: &str = "nginx";

/// Everybody we know how to start, `tidegate` first. `ourselves` is this program, which plays some.
pub(crate) fn all(
    tidegate: &Path,
    baseline: Option<&Path>,
    sozu: &Path,
    ourselves: &Path,
) -> Vec<Peer> {
    let tidegate = Peer {
        name: "tidegate",
        settings: "defaults; tracking and access log on",
        program: tidegate.to_owned(),
        arguments: |site| vec!["--config".into(), site.configuration().into()],
        configuration: |site| tidegate_toml(site, "", r#"path = "access.log""#),
        spread: Spread::OneCore,
        part: Part::Usual,
    };
    let nginx = Peer {
        name: "nginx",
        settings: "Debian's defaults (buffers of 4 KiB) with one worker; upstream keep-alive, \
                   limits wide enough for the sessions, access log on",
        program: "nginx".into(),
        arguments: |site| {
            let errors = site.folder.join("error.log");
            vec!["-c".into(), site.configuration().into(), "-e".into(), errors.into()]
        },
        configuration: |site| nginx_conf(site, ""),
        spread: Spread::OneCore,
        part: Part::Usual,
    };
    let haproxy = Peer {
        name: "haproxy",
        settings: "defaults (buffers of 16 KiB) with one thread; limits wide enough for the \
                   sessions, access log on",
        program: "haproxy".into(),
        arguments: |site| vec!["-db".into(), "-f".into(), site.configuration().into()],
        configuration: |site| haproxy_cfg(site, ""),
        spread: Spread::OneCore,
        part: Part::InAll,
    };
    let mut all = vec![
        tidegate.clone(),
        Peer {
            name: "tidegate-off",
            settings: "as tidegate, with `frames = \"off\"`: bytes, not frames",
            configuration: |site| tidegate_toml(site, "frames = \"off\"", r#"path = "access.log""#),
            part: Part::InAll,
            ..tidegate.clone()
        },
        Peer {
            name: "tidegate-nolog",
            settings: "as tidegate, with `access = \"off\"`: no access log",
            configuration: |site| tidegate_toml(site, "", r#"access = "off""#),
            part: Part::InAll,
            ..tidegate.clone()
        },
        Peer {
            name: "tidegate-2",
            settings: "as tidegate, with two workers, who share both cores with the load",
            spread: Spread::BothCores,
            part: Part::IfNamed,
            ..tidegate.clone()
        },
        Peer {
            name: "tidegate-twice",
            settings: "two processes of tidegate with one worker each, one on each core: two \
                       workers that have nothing to contend for",
            spread: Spread::ProcessPerCore,
            part: Part::IfNamed,
            ..tidegate.clone()
        },
        nginx.clone(),
        Peer {
            name: "nginx-16k",
            settings: "as nginx, with `proxy_buffer_size 16k; proxy_buffers 8 16k;`",
            // Both, as nginx wants what it may be sending at once to fit in all but one of them.
            configuration: |site| nginx_conf(site, "proxy_buffer_size 16k; proxy_buffers 8 16k;"),
            part: Part::InAll,
            ..nginx
        },
        haproxy.clone(),
        Peer {
            name: "haproxy-64k",
            settings: "as haproxy, with `tune.bufsize 65536`",
            configuration: |site| haproxy_cfg(site, "tune.bufsize 65536"),
            ..haproxy
        },
        Peer {
            name: "sozu",
            settings: "one worker, buffers of 64 KiB, access log on",
            program: sozu.to_owned(),
            arguments: |site| vec!["--config".into(), site.configuration().into(), "start".into()],
            configuration: sozu_toml,
            spread: Spread::OneCore,
            part: Part::InAll,
        },
        Peer {
            name: "floor",
            settings: "no proxy: two connections spliced on one thread, with tidegate's record \
                       layer, and nothing else",
            program: ourselves.to_owned(),
            arguments: |site| floor::arguments(floor::FLAG, site),
            configuration: |_| String::new(),
            spread: Spread::OneCore,
            part: Part::IfNamed,
        },
        Peer {
            name: "hyper",
            settings: "no proxy: hyper's server joined to its client, with the headers that tidegate \
                       adds, and nothing else",
            program: ourselves.to_owned(),
            arguments: bare_hyper::arguments,
            configuration: |_| String::new(),
            spread: Spread::OneCore,
            part: Part::IfNamed,
        },
    ];
    if let Some(program) = baseline {
        let settings = "another build of tidegate, from --baseline";
        all.insert(1, Peer { name: "baseline", settings, program: program.to_owned(), ..tidegate });
    }
    all
}
