//! The addresses behind a target or a tool server, and a channel to each.
use super::resolve::{self, Lookup};
use dashmap::DashMap;
use std::sync::Arc;
use tonic::transport::Channel;

/// Replicas by address; they come and go as the name service says.
#[derive(Debug)]
pub(crate) struct Replicas {
    urls: Vec<String>,
    channels: DashMap<Arc<str>, Channel>,
}

impl Replicas {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            channels: DashMap::new(),
        }
    }

    /// Looks the names up again; says which addresses there are now. A name that cannot be looked up keeps what it stood for: a
    /// name service that is away is no reason to stop calling those who answer.
    pub(crate) async fn resolve(&self, lookup: &dyn Lookup) -> Vec<Arc<str>> {
        let (mut found, failed) = resolve::addresses(lookup, &self.urls).await;
        if let Some(error) = failed {
            tracing::debug!(%error, "a name cannot be looked up, its addresses stay what they were");
            found.extend(self.channels.iter().map(|entry| entry.key().clone()));
            found.sort_unstable();
            found.dedup();
        }
        self.channels.retain(|address, _| found.contains(address));
        for address in &found {
            if !self.channels.contains_key(address) {
                match shoal_kit::channel::connect_lazy(&format!("http://{address}")) {
                    Ok(channel) => drop(self.channels.insert(address.clone(), channel)),
                    Err(error) => tracing::warn!(%address, %error, "no address to connect to"),
                }
            }
        }
        found
    }

    /// The channel to an address that [`Replicas::resolve`] gave.
    pub(crate) fn channel(&self, address: &str) -> Option<Channel> {
        self.channels.get(address).map(|c| c.clone())
    }

    /// Every address, sorted, with its channel.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Channel)> {
        let mut all: Vec<_> = self
            .channels
            .iter()
            .map(|e| (e.key().clone(), e.value().clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use std::{io, net::SocketAddr, sync::Mutex};

    #[derive(Debug, Default)]
    struct Zone(Mutex<Option<Vec<&'static str>>>);

    impl Lookup for Zone {
        fn lookup<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let now = self.0.lock().expect("zone").clone();
            Box::pin(async move {
                let ips = now.ok_or_else(|| io::Error::other("away"))?;
                Ok(ips
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip.parse().expect("ip"), port))
                    .collect())
            })
        }
    }

    #[tokio::test]
    async fn replicas_come_and_go_with_their_name_and_stay_while_it_cannot_be_looked_up() {
        let (zone, replicas) = (Zone::default(), Replicas::new(vec!["http://r:7".into()]));
        assert!(replicas.resolve(&zone).await.is_empty());
        let now = async |ips: Option<Vec<&'static str>>| {
            *zone.0.lock().expect("zone") = ips;
            let found = replicas.resolve(&zone).await;
            assert_eq!(found, replicas.all().into_iter().map(|(a, _)| a).collect::<Vec<_>>());
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            now(Some(vec!["10.0.0.1", "10.0.0.2"])).await,
            ["10.0.0.1:7", "10.0.0.2:7"]
        );
        assert_eq!(now(None).await, ["10.0.0.1:7", "10.0.0.2:7"]);
        assert_eq!(
            now(Some(vec!["10.0.0.2", "10.0.0.3"])).await,
            ["10.0.0.2:7", "10.0.0.3:7"]
        );
    }
}
