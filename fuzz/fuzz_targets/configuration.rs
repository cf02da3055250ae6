//! Any text: it is compiled or its faults are told, each at a place that is in the text, in lines
//! that a terminal can be given, and the same ones whenever it is asked.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidegate::config;

fuzz_target!(|text: &str| {
    let path = Path::new("/nowhere/proxy.toml");
    let (compiled, report) = config::compile(path, text);
    assert_eq!(compiled.is_some(), report.is_usable());
    let (errors, warnings) = (report.errors(), report.warnings());
    assert_eq!(compiled.is_none(), errors.contains("error: "));
    for line in errors.lines().chain(warnings.lines()) {
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
        let place = line.trim_start().strip_prefix("--> /nowhere/proxy.toml:");
        if let Some((row, column)) = place.and_then(|place| place.split_once(':')) {
            let (row, column): (usize, usize) =
                (row.parse().expect("a number"), column.parse().expect("a number"));
            let shown = text.lines().nth(row - 1).unwrap_or("");
            assert!(row <= text.lines().count() + 1 && row > 0, "{line}");
            assert!((1..=shown.chars().count() + 1).contains(&column), "{line}");
        }
    }
    if let Some(compiled) = compiled {
        assert!(!compiled.listeners.is_empty() && !compiled.routes.is_empty());
        assert!(compiled.routes.iter().all(|route| route.upstream < compiled.upstreams.len()));
        assert!(compiled.upstreams.iter().all(|upstream| !upstream.endpoints.is_empty()));
    }
    let (_, again) = config::compile(path, text);
    assert_eq!((errors, warnings), (again.errors(), again.warnings()));
});
