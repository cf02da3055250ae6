//! Network namespaces of a test's own.

use std::os::fd::AsFd;
use std::process::Stdio;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::Command;

use super::programs::Program;

/// `ip` with these arguments.
pub(crate) async fn ip(arguments: &str) {
    Program::start(Command::new("ip").args(arguments.split(' '))).succeeded().await;
}

/// Whether namespaces can be made here: that takes root, and iproute2, which CI has.
pub(crate) async fn can_make_namespaces() -> bool {
    let has_ip = Command::new("ip").args(["netns", "list"]).output().await.is_ok();
    assert!(
        has_ip || std::env::var_os("CI").is_none(),
        "iproute2 must be installed where CI is set"
    );
    has_ip && rustix::process::geteuid().is_root()
}

/// Moves the test, which is a thread of its own, into a fresh namespace, with whatever it starts from now on: in there
/// is nothing but a loopback. It goes with the last that is in it.
pub(crate) async fn enter_a_fresh_one(name: &str) {
    let name = format!("{name}-{}", std::process::id());
    ip(&format!("netns add {name}")).await;
    ip(&format!("-n {name} link set lo up")).await;
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("it was just made");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter it");
    let remove = ["netns", "delete", &name];
    let removed = std::process::Command::new("ip").args(remove).stderr(Stdio::null()).status();
    assert!(removed.is_ok_and(|status| status.success()), "its name can be removed");
}
