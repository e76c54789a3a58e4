//! The host's name. Reads `/proc`.

/// The name of this host, or words that say that it has none.
#[must_use]
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "an unknown host".to_owned(), |name| name.trim().to_owned())
}
