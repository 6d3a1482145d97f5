//! The one place that reads environment variables, so that a search for this module finds every influence from outside.

/// The value of `name`, if it is set to valid UTF-8 and not empty.
#[must_use]
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every variable whose name starts with `prefix`, prefix kept.
pub fn with_prefix(prefix: &str) -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(move |(k, _)| k.starts_with(prefix))
}
