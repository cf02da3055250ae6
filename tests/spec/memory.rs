//! Memory: what a crowd has left behind is given back to the system.

use futures_util::stream::{self, StreamExt};

use crate::support::{Over, Proxy, Served, eventually, within};

/// Moments after a crowd of sessions has gone, the process has given back most of what it had taken for them.
#[tokio::test]
async fn a_crowd_that_has_gone_leaves_its_memory_to_others() {
    const SESSIONS: usize = 2_000;
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let open = |count: usize| {
        let session = |_| proxy.websocket(Over::Tls, "/");
        within(
            "the sessions to open",
            stream::iter(0..count).map(session).buffer_unordered(16).collect::<Vec<_>>(),
        )
    };
    // Every worker has what is made once. So few leave nothing that is worth looking for.
    drop(open(200).await);
    eventually("the first sessions to end", || upstream.open() == 0).await;
    let before = proxy.memory_kib("RssAnon");

    let sessions = open(SESSIONS).await;
    let meanwhile = proxy.memory_kib("RssAnon");
    let grown = meanwhile - before;
    assert!(grown > 4 * 1024, "{grown} KiB are too few to show anything");
    drop(sessions);
    eventually("the memory to be given back", || {
        proxy.memory_kib("RssAnon") <= before + grown * 4 / 10
    })
    .await;
}
