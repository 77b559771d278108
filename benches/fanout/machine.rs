//! What the figures were measured on.

use std::fs;

use serde_json::{Value, json};

/// Processor, kernel, memory and load, as Linux tells them.
pub fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, names: &[&str]| {
        let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let board = read("/proc/device-tree/model").trim_end_matches('\0').to_owned();
    let processor = field(&read("/proc/cpuinfo"), &["model name", "Model"]);
    json!({
        "peercam": env!("CARGO_PKG_VERSION"),
        "machine": if board.is_empty() { processor } else { Some(board) },
        "architecture": std::env::consts::ARCH,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory": field(&read("/proc/meminfo"), &["MemTotal"]),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").trim(),
        "virtual": read("/proc/cpuinfo").contains("hypervisor"),
        "load_before": read("/proc/loadavg").split(' ').next(),
    })
}

/// The description as one line.
pub fn line(machine: &Value) -> String {
    let text = |key: &str| match &machine[key] {
        Value::String(text) => text.clone(),
        Value::Null => "?".into(),
        other => other.to_string(),
    };
    let kind = if machine["virtual"] == true { ", virtual" } else { "" };
    format!(
        "{} ({}, {} cores{kind}), {} memory, Linux {}, load {}; peercam {}",
        text("machine"),
        text("architecture"),
        text("cores"),
        text("memory"),
        text("kernel"),
        text("load_before"),
        text("peercam")
    )
}
