//! The addresses behind a target or a tool server, and a channel to each.
use dashmap::DashMap;
use futures::{StreamExt as _, stream::FuturesUnordered};
use shoal_kit::resolve::{self, Lookup};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;

/// How much later than the first good answer one of a lower address may come and still count. Cards and lists are told from memory, in a
/// millisecond or a few; and where a replica hangs, whoever waits for the first look waits this much longer.
const TOGETHER: Duration = Duration::from_millis(50);

/// Replicas by address; they come and go as the name service says.
#[derive(Debug)]
pub(crate) struct Replicas {
    names: Vec<Name>,
    channels: DashMap<Arc<str>, Channel>,
}

/// A URL, and what its host stood for when it was last looked up.
#[derive(Debug)]
struct Name {
    url: String,
    last: Mutex<Vec<Arc<str>>>,
}

impl Replicas {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        let name = |url| Name {
            url,
            last: Mutex::default(),
        };
        Self {
            names: urls.into_iter().map(name).collect(),
            channels: DashMap::new(),
        }
    }

    /// Looks the names up again; says which addresses there are now. A name that cannot be looked up keeps what it stood for: a
    /// name service that is away is no reason to stop calling those who answer.
    pub(crate) async fn resolve(&self, lookup: &dyn Lookup) -> Vec<Arc<str>> {
        let mut found = BTreeSet::new();
        for name in &self.names {
            let (addresses, failed) = resolve::addresses(lookup, std::slice::from_ref(&name.url)).await;
            let mut last = name.last.lock().unwrap_or_else(PoisonError::into_inner);
            match failed {
                None => *last = addresses,
                Some(error) => {
                    tracing::debug!(%error, "a name cannot be looked up, its addresses stay what they were");
                }
            }
            found.extend(last.iter().cloned());
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
        found.into_iter().collect()
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

/// A good answer of several who are asked side by side: one after the other, one that hangs would hide all who come after it. Of answers
/// that come together the first asked one's is taken, and not the fastest's: replicas that differ for a while, as in a rolling update,
/// must not take turns.
pub(crate) async fn first_good<T>(asked: impl IntoIterator<Item = impl Future<Output = Option<T>>>) -> Option<T> {
    let asked = asked.into_iter().enumerate();
    let mut waiting: FuturesUnordered<_> = asked.map(|(at, ask)| async move { (at, ask.await) }).collect();
    let mut open: BTreeSet<usize> = (0..waiting.len()).collect();
    let mut good: Option<(usize, T)> = None;
    let mut until = None;
    loop {
        let next = match until {
            None => waiting.next().await,
            Some(until) => timeout_at(until, waiting.next()).await.ok().flatten(),
        };
        let Some((at, answer)) = next else { break };
        open.remove(&at);
        if let Some(answer) = answer
            && good.as_ref().is_none_or(|(known, _)| at < *known)
        {
            until.get_or_insert_with(|| Instant::now() + TOGETHER);
            good = Some((at, answer));
        }
        let before = |at: &usize| open.range(..at).next().is_some();
        if good.as_ref().is_some_and(|(at, _)| !before(at)) {
            break;
        }
    }
    good.map(|(_, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use std::{io, net::SocketAddr};

    /// What `r` stands for; `s` cannot be looked up any more once that has changed.
    #[derive(Debug, Default)]
    struct Zone(Mutex<Option<Vec<&'static str>>>);

    impl Lookup for Zone {
        fn lookup<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let now = self.0.lock().expect("zone").clone();
            let now = match host {
                "s" => now.filter(|now| now.len() == 2).map(|_| vec!["10.0.1.1"]),
                _ => now,
            };
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

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_keeps_its_own_addresses_and_nobody_elses() {
        let zone = Zone(Mutex::new(Some(vec!["10.0.0.1", "10.0.0.2"])));
        let replicas = Replicas::new(vec!["http://r:7".into(), "http://s:7".into()]);
        assert_eq!(replicas.resolve(&zone).await.len(), 3);
        *zone.0.lock().expect("zone") = Some(vec!["10.0.0.2"]);
        let left: Vec<String> = replicas.resolve(&zone).await.iter().map(ToString::to_string).collect();
        assert_eq!(left, ["10.0.0.2:7", "10.0.1.1:7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_hangs_hides_nobody_and_of_good_answers_that_come_together_the_first_asked_ones_is_taken() {
        let ask = async |all: &[(Option<u64>, Option<&'static str>)]| {
            let began = Instant::now();
            let one = |(after, says): (Option<u64>, Option<&'static str>)| async move {
                match after {
                    Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                    None => std::future::pending().await,
                }
                says
            };
            (
                first_good(all.iter().copied().map(one)).await,
                began.elapsed().as_millis(),
            )
        };
        let (a, b) = (Some("a"), Some("b"));
        assert_eq!(ask(&[(None, a), (Some(5), b)]).await, (b, 55));
        assert_eq!(ask(&[(Some(20), a), (Some(5), b)]).await, (a, 20));
        assert_eq!(ask(&[(Some(5), a), (None, b)]).await, (a, 5));
        assert_eq!(ask(&[(Some(9), None), (Some(5), b)]).await, (b, 9));
        assert_eq!(ask(&[(Some(9), None), (Some(5), None)]).await, (None, 9));
        assert_eq!(ask(&[]).await, (None, 0));
    }
}
