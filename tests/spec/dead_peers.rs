//! A peer whose network is gone: no FIN, no RST, just packets that nobody answers. Two network namespaces of the test's
//! own, with a cable between them that can be pulled.

use std::process::Stdio;

use crate::support::frames::{CLOSE, PING, PONG, TEXT, plain};
use crate::support::namespaces::{can_make_namespaces, ip};
use crate::support::programs::node_inside;
use crate::support::{Setup, Upstream};

/// Two network namespaces, `near` and `far`, joined by a cable.
struct Cable {
    near: String,
    far: String,
}

/// The address of each end of the cable.
const NEAR: &str = "10.213.0.1";
const FAR: &str = "10.213.0.2";

impl Cable {
    async fn lay() -> Cable {
        let number = std::process::id();
        let cable = Cable { near: format!("near-{number}"), far: format!("far-{number}") };
        let Cable { near, far } = &cable;
        ip(&format!("netns add {near}")).await;
        ip(&format!("netns add {far}")).await;
        ip(&format!("-n {near} link add cable type veth peer name cable netns {far}")).await;
        for (namespace, address) in [(near, NEAR), (far, FAR)] {
            ip(&format!("-n {namespace} address add {address}/24 dev cable")).await;
            ip(&format!("-n {namespace} link set cable up")).await;
            ip(&format!("-n {namespace} link set lo up")).await;
        }
        cable
    }

    async fn pull(&self) {
        ip(&format!("-n {} link set cable down", self.far)).await;
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            let remove = ["netns", "delete", namespace];
            // A namespace that was never made needs no removal.
            let _ = std::process::Command::new("ip").args(remove).stderr(Stdio::null()).status();
        }
    }
}

/// A client that answers Pings until its network is gone is found dead, and the upstream hears 1001.
#[tokio::test]
async fn a_client_whose_packets_are_dropped_is_found_dead() {
    if !can_make_namespaces().await {
        eprintln!("no network namespaces without root and iproute2: nothing was shown");
        return;
    }
    let cable = Cable::lay().await;
    let upstream = Upstream::unix();
    let proxy = Setup::to(upstream.endpoint())
        .listeners("")
        .route("ping_after = \"100ms\"\nping_timeout = \"1s\"")
        .also(&format!("[[listener]]\naddress = \"{NEAR}:0\""))
        .inside(&cable.near)
        .start()
        .await;
    let (address, _) = proxy.listeners[1];
    let remote = node_inside(&cable.far, "client.js", &["text", &format!("ws://{address}")]);

    let mut leg = upstream.accept().await;
    leg.accept().await;
    leg.send(plain(TEXT, "are you there?")).await;
    remote.stdout.containing("are you there?").await;
    let mut pings = 0;
    let closed = loop {
        let frame = leg.frame().await;
        match frame.opcode {
            CLOSE => break frame,
            PING => {
                leg.send(plain(PONG, &frame.payload)).await;
                pings += 1;
            }
            // What the client has to say.
            _ => {}
        }
        // As often as the upstream, the client was asked, and has answered.
        if pings == 5 {
            cable.pull().await;
        }
    };
    assert_eq!(closed.code(), Some(1001));
    drop(leg);
    let end = proxy.event("end").await;
    assert_eq!(
        (&end["ended_by"], &end["why"]),
        (&"client".into(), &"ping timeout".into()),
        "{end}"
    );
    assert_eq!(end["close_code_to_upstream"], 1001, "{end}");
    assert!(end["client_rtt_ms"].is_number(), "it answered as long as it could: {end}");
}
