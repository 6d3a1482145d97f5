//! What it was measured on.
use serde_json::{Value, json};
use std::fs;

/// Processor, cores, memory and kernel; what cannot be read is null.
pub(crate) fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": cores,
        "memory_mb": field(&read("/proc/meminfo"), "MemTotal").and_then(|m| kilobytes(&m)).map(|kb| kb * 1024 / 1_000_000),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "architecture": std::env::consts::ARCH,
        "load_before": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    })
}

/// Of a text of "name: value" lines, the first value of that name.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

/// "123 kB" as a number.
pub(crate) fn kilobytes(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name_and_kilobytes_are_read() {
        let status = "Name:\tshoal\nVmRSSx:\t 1 kB\nVmRSS:\t  123456 kB\n";
        assert_eq!(field(status, "VmRSS").as_deref().and_then(kilobytes), Some(123_456));
        assert_eq!(field(status, "Rss"), None);
        assert_eq!(kilobytes("12 MB"), None);
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(describe()["cores"].as_u64().is_some_and(|n| n > 0));
    }
}
