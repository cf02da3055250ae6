//! Many sessions at once.

use futures_util::SinkExt;
use futures_util::stream::{self, StreamExt};

use crate::support::{BOTH, Over, Proxy, Served, eventually, within};

/// 2,000 sessions, half of them over TLS, all open at once and all alive; afterwards no descriptor is left behind.
#[tokio::test]
async fn two_thousand_sessions_leave_no_descriptor_behind() {
    const SESSIONS: usize = 2_000;
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for over in BOTH {
        proxy.websocket(over, "/").await;
    }
    eventually("the first sessions to end", || upstream.open() == 0).await;
    let before = proxy.descriptors();

    let opened = stream::iter(0..SESSIONS)
        .map(|n| proxy.websocket(if n % 2 == 0 { Over::Plain } else { Over::Tls }, "/"));
    let mut sessions: Vec<_> =
        within("the sessions to open", opened.buffer_unordered(32).collect()).await;
    assert_eq!(upstream.open(), SESSIONS);
    assert!(proxy.descriptors() >= before + 2 * SESSIONS);

    for (n, session) in sessions.iter_mut().enumerate() {
        within("a message to leave", session.send(format!("I am {n}").into()))
            .await
            .expect("the proxy reads");
    }
    for (n, session) in sessions.iter_mut().enumerate() {
        let answer =
            within("an answer", session.next()).await.expect("a message").expect("a good one");
        assert_eq!(answer.into_text().expect("text"), format!("I am {n}"));
    }

    drop(sessions);
    eventually("the upstream to see them end", || upstream.open() == 0).await;
    eventually("the descriptors to be closed", || proxy.descriptors() <= before + 2).await;
    let ends = || proxy.records().iter().filter(|record| record["event"] == "end").count();
    eventually("a line for each end", || ends() == SESSIONS + 2).await;
}

/// Sessions that come and go do not make the process grow.
#[tokio::test]
async fn sessions_that_come_and_go_do_not_add_up() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let churn = |count: usize| {
        let one = |n| {
            let proxy = &proxy;
            async move {
                let mut socket = proxy.websocket(BOTH[n % 2], "/").await;
                socket.send("x".into()).await.expect("the proxy reads");
                within("an answer", socket.next()).await.expect("a message").expect("a good one");
                within("a close", socket.close(None)).await.expect("the proxy reads");
            }
        };
        stream::iter(0..count).map(one).buffer_unordered(16).collect::<Vec<()>>()
    };
    churn(500).await;
    let (memory, descriptors) = (proxy.memory_kib("VmRSS"), proxy.descriptors());
    churn(1_000).await;
    eventually("the descriptors to be closed", || proxy.descriptors() <= descriptors + 2).await;
    let grown = proxy.memory_kib("VmRSS").saturating_sub(memory);
    assert!(grown < 4 * 1024, "the process grew by {grown} KiB over 1,000 sessions");
}
