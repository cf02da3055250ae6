//! Who takes part, and with which settings. A further peer is one more entry in [`all`] and the
//! function that writes its configuration.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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

/// Those that are measured unless `--peers` says otherwise.
pub(crate) const USUAL: [&str; 3] = ["tidegate", "nginx", "nginx-16k"];

/// Everybody we know how to start, `tidegate` first.
pub(crate) fn all(tidegate: &Path, baseline: Option<&Path>) -> Vec<Peer> {
    let tidegate = Peer {
        name: "tidegate",
        settings: "defaults; tracking and access log on",
        program: tidegate.to_owned(),
        arguments: |site| vec!["--config".into(), site.configuration().into()],
        configuration: |site| tidegate_toml(site, ""),
    };
    let nginx = Peer {
        name: "nginx",
        settings: "Debian's defaults (buffers of 4 KiB); upstream keep-alive, access log on",
        program: "nginx".into(),
        arguments: |site| {
            let errors = site.folder.join("error.log");
            vec!["-c".into(), site.configuration().into(), "-e".into(), errors.into()]
        },
        configuration: |site| nginx_conf(site, ""),
    };
    let haproxy = Peer {
        name: "haproxy",
        settings: "Debian's defaults (buffers of 16 KiB); access log on",
        program: "haproxy".into(),
        arguments: |site| vec!["-db".into(), "-f".into(), site.configuration().into()],
        configuration: |site| haproxy_cfg(site, ""),
    };
    let mut all = vec![
        tidegate.clone(),
        Peer {
            name: "tidegate-off",
            settings: "as tidegate, with `frames = \"off\"`: bytes, not frames",
            configuration: |site| tidegate_toml(site, "frames = \"off\""),
            ..tidegate.clone()
        },
        nginx.clone(),
        Peer {
            name: "nginx-16k",
            settings: "as nginx, with `proxy_buffer_size 16k; proxy_buffers 8 16k;`",
            // Both, as nginx wants what it may be sending at once to fit in all but one of them.
            configuration: |site| nginx_conf(site, "proxy_buffer_size 16k; proxy_buffers 8 16k;"),
            ..nginx
        },
        haproxy.clone(),
        Peer {
            name: "haproxy-64k",
            settings: "as haproxy, with `tune.bufsize 65536`",
            configuration: |site| haproxy_cfg(site, "tune.bufsize 65536"),
            ..haproxy
        },
    ];
    if let Some(program) = baseline {
        let settings = "another build of tidegate, from --baseline";
        all.insert(1, Peer { name: "baseline", settings, program: program.to_owned(), ..tidegate });
    }
    all
}

fn tidegate_toml(site: &Site, route: &str) -> String {
    let Site { folder, wss, ws, backend, chain, key, .. } = site;
    format!(
        r#"[[listener]]
address = "{wss}"
tls = true

[[listener]]
address = "{ws}"

[[certificate]]
chain = "{chain}"
key = "{key}"

[upstream.app]
endpoints = ["http://{backend}"]

[[route]]
upstream = "app"
{route}

[log]
path = "{folder}/access.log"
"#,
        chain = chain.display(),
        key = key.display(),
        folder = folder.display(),
    )
}

fn nginx_conf(site: &Site, buffers: &str) -> String {
    let Site { folder, wss, ws, backend, chain, key, .. } = site;
    // Started by root, nginx would work as nobody, who may not enter our folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        r#"{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
events {{ worker_connections 19900; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream app {{ server {backend}; keepalive 64; keepalive_requests 100000000; }}
    keepalive_requests 100000000;
    server {{
        listen {ws};
        listen {wss} ssl;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            {buffers}
        }}
    }}
}}
"#,
        folder = folder.display(),
        chain = chain.display(),
        key = key.display(),
    )
}

fn haproxy_cfg(site: &Site, global: &str) -> String {
    let Site { wss, ws, backend, chain_and_key, .. } = site;
    format!(
        r#"global
    nbthread 1
    maxconn 9800
    log stdout format raw local0
    {global}
defaults
    mode http
    log global
    option httplog
    option forwardfor
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend clients
    bind {ws}
    bind {wss} ssl crt {both} ssl-min-ver TLSv1.3 alpn http/1.1
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    default_backend app
backend app
    server app {backend}
"#,
        both = chain_and_key.display(),
    )
}
