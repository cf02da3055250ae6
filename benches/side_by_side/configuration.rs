//! What each peer reads: the same proxy in front of the same backend, told in four languages.

use crate::client::HOST;
use crate::peer::Site;

/// Tidegate's, with what is to be added to its route, and where its access log goes.
pub(crate) fn tidegate_toml(site: &Site, route: &str, log: &str) -> String {
    let Site { wss, ws, backend, chain, key, .. } = site;
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
{log}
"#,
        chain = chain.display(),
        key = key.display(),
    )
}

/// nginx's, with what is to be said of its buffers.
pub(crate) fn nginx_conf(site: &Site, buffers: &str) -> String {
    let Site { folder, wss, ws, backend, chain, key, .. } = site;
    // Started by root, nginx would work as nobody, who may not enter our folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    // More connections than descriptors: it hangs up on those in the midst of their handshake when
    // less than a sixteenth of the former is left.
    format!(
        r#"{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
events {{ worker_connections 30000; }}
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
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
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

/// HAProxy's, with what is to be added to `global`.
pub(crate) fn haproxy_cfg(site: &Site, global: &str) -> String {
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

/// Sōzu's.
pub(crate) fn sozu_toml(site: &Site) -> String {
    let Site { folder, wss, ws, backend, chain, key, .. } = site;
    format!(
        r#"command_socket = "{folder}/sozu.sock"
log_level = "error"
log_target = "stdout"
access_logs_target = "file://{folder}/access.log"
worker_count = 1
worker_automatic_restart = false
max_connections = 9800
max_buffers = 19900
buffer_size = 65536
front_timeout = 3600
back_timeout = 3600
activate_listeners = true

[[listeners]]
protocol = "http"
address = "{ws}"

[[listeners]]
protocol = "https"
address = "{wss}"
tls_versions = ["TLS_V13"]
alpn_protocols = ["http/1.1"]

[clusters.app]
protocol = "http"
frontends = [
    {{ address = "{ws}", hostname = "{HOST}" }},
    {{ address = "{wss}", hostname = "{HOST}", certificate = "{chain}", key = "{key}", certificate_chain = "{chain}" }},
]
backends = [{{ address = "{backend}" }}]
"#,
        folder = folder.display(),
        chain = chain.display(),
        key = key.display(),
    )
}
