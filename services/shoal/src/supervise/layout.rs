//! What runs, where, and the configuration that says so. Pure but for making paths absolute.
use crate::{
    client,
    exit::{Failure, Result},
};
use shoal_kit::config::MeshConfig;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The four kinds of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Outcomes.
    Feedback,
    /// The demo's tools.
    Concierge,
    /// One model.
    Specialist,
    /// The door.
    Gateway,
}

/// Both doors of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// A process to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it is.
    pub kind: Kind,
    /// "gateway", "feedback", "concierge", or the specialist's name.
    pub name: String,
    /// Where it shall listen; port 0 is any.
    pub addresses: Addresses,
    /// How long it may take to end.
    pub drain: std::time::Duration,
}

impl Process {
    /// The subcommand that runs it.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        match self.kind {
            Kind::Specialist => vec!["specialist".into(), self.name.clone()],
            _ => vec![self.name.clone()],
        }
    }
}

/// Every process that this machine runs: feedback and the concierge if the configuration refers to them where they listen, each
/// specialist that has a folder, and the gateway.
#[must_use]
pub fn processes(config: &MeshConfig) -> Vec<Process> {
    let mut all = Vec::new();
    let mut add = |kind, name: &str, grpc, http, drain| {
        all.push(Process {
            kind,
            name: name.to_owned(),
            addresses: Addresses { grpc, http },
            drain,
        });
    };
    let f = &config.feedback;
    if names(&config.gateway.feedback, f.listen) {
        add(Kind::Feedback, "feedback", f.listen, f.http_listen, f.drain);
    }
    let c = &config.concierge;
    if config.tools.values().any(|t| names(&t.endpoint, c.listen)) {
        add(Kind::Concierge, "concierge", c.listen, c.http_listen, c.drain);
    }
    for (name, s) in config.specialist.iter().filter(|(_, s)| s.folder.is_some()) {
        add(Kind::Specialist, name, s.listen, s.http_listen, s.drain);
    }
    let g = &config.gateway;
    add(Kind::Gateway, "gateway", g.listen, g.http_listen, g.drain);
    all
}

/// Gives every process of this machine a port of its own choice, and remembers who was meant by whom: an address that is
/// named elsewhere in the file is replaced by a stand-in of the reserved block 127.255.255.0/24 until the process has announced its own.
pub(super) fn free_ports(config: &mut MeshConfig) {
    let all = processes(config);
    for (index, process) in all.iter().enumerate() {
        let stand_in = |door: u16| {
            let port = u16::try_from(index).unwrap_or(u16::MAX / 4) * 2 + door;
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 255, 255, 1)), port + 1)
        };
        let now = Addresses {
            grpc: stand_in(0),
            http: stand_in(1),
        };
        rewire(config, &process.name, Some(process.addresses), now);
    }
}

/// What a child is told to listen on: a stand-in becomes "any free port of loopback".
#[must_use]
pub(super) fn to_bind(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip == Ipv4Addr::new(127, 255, 255, 1) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        _ => address,
    }
}

/// Notes where `name` really is, and mends every URL that named its old address.
pub(super) fn rewire(config: &mut MeshConfig, name: &str, before: Option<Addresses>, now: Addresses) {
    match name {
        "gateway" => (config.gateway.listen, config.gateway.http_listen) = (now.grpc, now.http),
        "feedback" => (config.feedback.listen, config.feedback.http_listen) = (now.grpc, now.http),
        "concierge" => (config.concierge.listen, config.concierge.http_listen) = (now.grpc, now.http),
        specialist => {
            if let Some(s) = config.specialist.get_mut(specialist) {
                (s.listen, s.http_listen) = (now.grpc, now.http);
            }
        }
    }
    let Some(before) = before else { return };
    let mut urls: Vec<&mut String> = vec![&mut config.gateway.feedback];
    urls.extend(config.tools.values_mut().map(|t| &mut t.endpoint));
    urls.extend(config.endpoint.values_mut().map(|e| &mut e.base_url));
    urls.extend(config.specialist.values_mut().flat_map(|s| s.endpoints.iter_mut()));
    for url in urls {
        for (old, new) in [(before.grpc, now.grpc), (before.http, now.http)] {
            // Port 0 names nobody.
            if old.port() != 0 && names(url, old) {
                let before = authority(url).to_owned();
                *url = url.replacen(&before, &client::reached_at(new).to_string(), 1);
                break;
            }
        }
    }
}

/// Whether a URL's host and port are this address; `localhost` counts as loopback, and who listens everywhere is behind loopback too.
pub(super) fn names(url: &str, address: SocketAddr) -> bool {
    let Some((host, port)) = authority(url).rsplit_once(':') else {
        return false;
    };
    if port.parse::<u16>() != Ok(address.port()) {
        return false;
    }
    let everywhere = address.ip().is_unspecified();
    if host == "localhost" {
        return everywhere || address.ip().is_loopback();
    }
    let host = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.is_ok_and(|ip| ip == address.ip() || everywhere && ip.is_loopback())
}

/// host:port of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Makes every path absolute: the generated configuration stands in another folder.
///
/// # Errors
/// When this process has no current folder.
pub(super) fn absolute(mut config: MeshConfig) -> Result<MeshConfig> {
    let mut paths = vec![
        &mut config.gateway.spool,
        &mut config.feedback.store,
        &mut config.concierge.services,
        &mut config.concierge.results,
    ];
    paths.extend(config.onnxruntime.path.as_mut());
    paths.extend(config.onnxruntime.cache.as_mut());
    paths.extend(config.specialist.values_mut().filter_map(|s| s.folder.as_mut()));
    for path in paths {
        *path = std::path::absolute(&*path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MeshConfig {
        let text = r#"
            [tools.concierge]
            endpoint = "http://127.0.0.1:7415"
            [specialist.tool_call]
            folder = "models/tool_call"
            listen = "127.0.0.1:7420"
            http_listen = "127.0.0.1:7421"
            [specialist.wide]
            folder = "models/wide"
            listen = "127.0.0.1:7424"
            http_listen = "127.0.0.1:7425"
            [specialist.elsewhere]
            endpoints = ["http://models.example:7420"]
            [endpoint.large]
            base_url = "http://localhost:7425/v1"
            model = "tool_call"
        "#;
        MeshConfig::layer(None, text, &[]).expect("valid").config
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn every_folder_is_a_process_and_the_gateway_comes_last() {
        let names: Vec<String> = processes(&config()).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["feedback", "concierge", "tool_call", "wide", "gateway"]);
    }

    #[test]
    fn services_that_nobody_is_configured_to_call_are_not_started() {
        let mut config = config();
        config.gateway.feedback.clear();
        config.tools.clear();
        let names: Vec<String> = processes(&config).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["tool_call", "wide", "gateway"]);
    }

    #[test]
    fn free_ports_keep_who_calls_whom() {
        let mut config = config();
        free_ports(&mut config);
        let all = processes(&config);
        assert!(all.iter().all(|p| to_bind(p.addresses.grpc) == address("127.0.0.1:0")));
        let real = |i: u16| Addresses {
            grpc: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 40_000 + i),
            http: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 50_000 + i),
        };
        for (i, p) in (0..).zip(&all) {
            rewire(&mut config, &p.name, Some(p.addresses), real(i));
        }
        assert_eq!(config.gateway.feedback, "http://127.0.0.1:40000");
        assert_eq!(config.tools["concierge"].endpoint, "http://127.0.0.1:40001");
        assert_eq!(config.specialist["tool_call"].called_at(), ["http://127.0.0.1:40002"]);
        assert_eq!(config.endpoint["large"].base_url, "http://127.0.0.1:50003/v1");
        assert_eq!(config.gateway.listen, address("127.0.0.1:40004"));
        assert_eq!(config.specialist["elsewhere"].endpoints, ["http://models.example:7420"]);
    }

    #[test]
    fn who_listens_everywhere_is_behind_a_loopback_url() {
        let text = r#"
            [gateway]
            feedback = "http://localhost:7410"
            [feedback]
            listen = "[::]:7410"
            [concierge]
            listen = "0.0.0.0:7415"
            [tools.concierge]
            endpoint = "http://127.0.0.1:7415"
        "#;
        let configured = MeshConfig::layer(None, text, &[]).expect("valid").config;
        let names: Vec<String> = processes(&configured).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["feedback", "concierge", "gateway"]);
        let mut free = configured.clone();
        free_ports(&mut free);
        for p in processes(&free) {
            let everywhere = |port: u16| address(&format!("0.0.0.0:{port}"));
            let port = 40_000 + u16::try_from(p.name.len()).expect("short");
            let now = Addresses {
                grpc: everywhere(port),
                http: everywhere(port + 1000),
            };
            rewire(&mut free, &p.name, Some(p.addresses), now);
        }
        assert_eq!(free.gateway.feedback, "http://127.0.0.1:40008");
        assert_eq!(free.tools["concierge"].endpoint, "http://127.0.0.1:40009");
        assert_eq!(processes(&free).len(), 3, "it is known again by its new address");
    }

    #[test]
    fn a_store_that_is_elsewhere_is_not_started_here() {
        let mut config = config();
        for url in [
            "http://store.example:7410",
            "http://10.0.0.7:7410",
            "http://127.0.0.1:7499",
        ] {
            config.gateway.feedback = url.into();
            assert!(processes(&config).iter().all(|p| p.kind != Kind::Feedback), "{url}");
        }
    }

    #[test]
    fn configured_ports_stay_what_they_are() {
        for p in processes(&config()) {
            assert_eq!(to_bind(p.addresses.grpc), p.addresses.grpc);
        }
    }

    #[test]
    fn the_generated_configuration_reads_back_as_it_was_written() {
        let config = absolute(config()).expect("absolute");
        let text = toml::to_string(&config).expect("serialises");
        let back = MeshConfig::layer(None, &text, &[]).expect("reads back").config;
        assert_eq!(format!("{config:?}"), format!("{back:?}"));
        assert!(
            config.specialist["wide"]
                .folder
                .as_ref()
                .is_some_and(|f| f.is_absolute())
        );
    }
}
