//! What a relayed message costs, counted: system calls of the worker, and allocations.
//!
//! These are numbers, not times, and they are exact: a change that adds a call or an allocation to
//! the way of every message is red here, however busy the machine is.
//!
//! For allocations this program is the proxy itself, with an allocator that counts: it starts
//! itself once more for that. For system calls it traces a worker of the real binary (ptrace(2)).

mod allocations;
mod peers;
mod proxy;
mod syscalls;

use std::process::ExitCode;

use crate::peers::{Client, Over};

fn main() -> ExitCode {
    if proxy::is_one() {
        allocations::answer_when_asked();
        return tidegate::cli::main();
    }
    for over in [Over::Plain, Over::Tls] {
        for size in [32, 1024] {
            no_message_is_allocated_for(over, size);
            println!("test no_message_is_allocated_for, {over:?}, {size} bytes ... ok");
            a_message_takes_two_calls(over, size, 1);
            a_message_takes_two_calls(over, size, 8);
            println!("test a_message_takes_two_calls, {over:?}, {size} bytes ... ok");
        }
        a_goodbye_takes_two_sends(over);
        println!("test a_goodbye_takes_two_sends, {over:?} ... ok");
    }
    ExitCode::SUCCESS
}

/// Messages that are counted, after some that warm up what is made once.
const MESSAGES: u64 = 500;
const WARM_UP: u64 = 20;

fn no_message_is_allocated_for(over: Over, size: usize) {
    let proxy = proxy::Proxy::start_counting();
    let mut client = Client::connect(&proxy, over);
    client.echo(WARM_UP, size);
    let before = proxy.allocations();
    client.echo(MESSAGES, size);
    let made = proxy.allocations() - before;
    assert_eq!(made, 0, "allocations for {MESSAGES} messages of {size} bytes, there and back");
}

/// One to read it and one to write it; and for each wake-up of the worker one that waits for it.
fn a_message_takes_two_calls(over: Over, size: usize, sessions: u64) {
    let proxy = proxy::Proxy::start();
    let mut clients: Vec<_> = (0..sessions).map(|_| Client::connect(&proxy, over)).collect();
    clients.iter_mut().for_each(|client| client.echo(WARM_UP, size));
    let worker = syscalls::Traced::attach(proxy.worker());
    for _ in 0..MESSAGES {
        // All of them send before any of them waits for its answer.
        clients.iter_mut().for_each(|client| client.send(size));
        clients.iter_mut().for_each(|client| client.receive(size));
    }
    let calls = worker.counts();
    let messages = 2 * MESSAGES * sessions;
    let of = |names: &[i64]| names.iter().map(|name| calls.get(name).unwrap_or(&0)).sum::<u64>();
    let (read, written) = (of(syscalls::READ), of(syscalls::WRITTEN));
    assert_eq!((read, written), (messages, messages), "of {calls:?}");
    // What the worker does once a second besides may come in between.
    let besides = messages / 8;
    let waited = of(syscalls::WAITED);
    assert!(waited <= messages + besides, "waited {waited} times: {calls:?}");
    let others = calls.values().sum::<u64>() - read - written - waited;
    assert!(others <= besides, "{others} other calls: {calls:?}");
}

/// A Close each way; what ends TLS goes with the second one.
fn a_goodbye_takes_two_sends(over: Over) {
    const SESSIONS: u64 = 20;
    let proxy = proxy::Proxy::start();
    let mut clients: Vec<_> = (0..SESSIONS).map(|_| Client::connect(&proxy, over)).collect();
    clients.iter_mut().for_each(|client| client.echo(1, 32));
    let worker = syscalls::Traced::attach(proxy.worker());
    clients.into_iter().for_each(Client::close);
    let calls = worker.counts();
    let written = syscalls::WRITTEN.iter().map(|name| calls.get(name).unwrap_or(&0)).sum::<u64>();
    assert_eq!(written, 2 * SESSIONS, "of {calls:?}");
}
