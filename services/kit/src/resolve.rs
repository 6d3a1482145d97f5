//! From URLs to addresses. A host name stands for all its addresses: replicas come and go in the name service, not in mesh.toml.
use futures::future::BoxFuture;
use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Looks names up. Tests bring their own.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// Every address of `host`, with `port`.
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The operating system's name service.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Every address that the URLs stand for, as "host:port", sorted; and what could not be looked up.
pub async fn addresses(lookup: &dyn Lookup, urls: &[String]) -> (Vec<Arc<str>>, Option<io::Error>) {
    let (mut found, mut failed) = (BTreeSet::new(), None);
    for url in urls {
        let Some((host, port)) = host_and_port(url) else {
            failed = Some(io::Error::other(format!("{url} names no host")));
            continue;
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            found.insert(SocketAddr::new(ip, port));
            continue;
        }
        match lookup.lookup(&host, port).await {
            Ok(addresses) => found.extend(one_family(addresses)),
            Err(error) => failed = Some(io::Error::new(error.kind(), format!("{host}: {error}"))),
        }
    }
    (found.into_iter().map(|a| a.to_string().into()).collect(), failed)
}

/// `localhost` is 127.0.0.1 and ::1, and a server of this machine usually listens on one of them: the other would fail every
/// second call. Addresses that are no loopback are all kept.
fn one_family(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let loopback_v4 = addresses.iter().any(|a| a.is_ipv4() && a.ip().is_loopback());
    addresses
        .into_iter()
        .filter(|a| !(loopback_v4 && a.is_ipv6() && a.ip().is_loopback()))
        .collect()
}

/// The URL's host, without brackets, and its port, or the scheme's.
#[must_use]
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let port = uri
        .port_u16()
        .unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Zone;

    impl Lookup for Zone {
        fn lookup<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let answer: io::Result<Vec<&str>> = match host {
                "replicas" => Ok(vec!["10.0.0.2", "10.0.0.1"]),
                "localhost" => Ok(vec!["::1", "127.0.0.1"]),
                _ => Err(io::Error::other("no such name")),
            };
            Box::pin(async move {
                Ok(answer?
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip.parse().expect("ip"), port))
                    .collect())
            })
        }
    }

    #[tokio::test]
    async fn a_name_is_all_its_addresses_and_a_literal_is_itself() {
        let of = async |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|u| (*u).to_owned()).collect();
            let (found, failed) = addresses(&Zone, &urls).await;
            (
                found.iter().map(ToString::to_string).collect::<Vec<_>>(),
                failed.is_some(),
            )
        };
        assert_eq!(
            of(&["http://replicas:7420"]).await,
            (vec!["10.0.0.1:7420".into(), "10.0.0.2:7420".into()], false)
        );
        assert_eq!(
            of(&["http://127.0.0.1:1", "http://[::1]:2"]).await,
            (vec!["127.0.0.1:1".into(), "[::1]:2".into()], false)
        );
        assert_eq!(of(&["http://localhost:3"]).await, (vec!["127.0.0.1:3".into()], false));
        let (found, failed) = of(&["http://gone:4", "http://replicas:80"]).await;
        assert!(failed && found.len() == 2, "what is found is kept beside what is not");
        assert_eq!(
            host_and_port("https://api.example/v1"),
            Some(("api.example".into(), 443))
        );
    }
}
