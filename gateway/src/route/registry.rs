//! Every target, card and tool, by name: the one place of shared mutable state. The maps hand out clones, so no guard is held
//! across an await.
use super::{
    card::{Card, TaskCard},
    cards::{Cards, Version},
    keep,
    target::{Target, Tier},
};
use crate::{
    admit::{Catalogue, Known},
    tools::{Server, Tool},
};
use dashmap::{DashMap, Entry};
use shoal_kit::{config::MeshConfig, resolve::Lookup, serve};
use shoal_plan::Kind;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How a task is routed.
#[derive(Debug)]
pub(crate) struct Route {
    /// Smallest first.
    pub(crate) chain: Vec<Arc<Target>>,
    /// In place of the cards'.
    pub(crate) threshold: Option<f64>,
    /// Whether doubt alone moves a node on.
    pub(crate) escalate: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    targets: BTreeMap<String, Arc<Target>>,
    routes: BTreeMap<String, Route>,
    servers: BTreeMap<String, Arc<Server>>,
    cards: Cards,
    tools: DashMap<String, Arc<Tool>>,
}

/// Tools that an error names: some of what there is.
const SOME: usize = 16;

impl Registry {
    /// What mesh.toml names. Nothing is asked yet.
    pub(crate) fn build(config: &MeshConfig) -> Result<Self, reqwest::Error> {
        // No proxy: what the environment says of proxies is not ours to read here, and most endpoints are on loopback or inside.
        // No redirects: an API key goes where it was meant to go.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            // Less than a specialist's HTTP door keeps an idle connection: a request is not sent on one that is just being closed.
            .pool_idle_timeout(serve::HEAD.mul_f64(0.5))
            .build()?;
        let specialists = config
            .specialist
            .iter()
            .map(|(name, c)| (name.clone(), Arc::new(Target::specialist(name, c, &config.gateway))));
        let endpoints = config.endpoint.iter().map(|(name, c)| {
            (
                name.clone(),
                Arc::new(Target::endpoint(name, c, &config.gateway, &client)),
            )
        });
        let targets: BTreeMap<String, Arc<Target>> = specialists.chain(endpoints).collect();
        let route = |task: &shoal_kit::config::Task| Route {
            chain: task
                .chain
                .iter()
                .filter_map(|name| targets.get(name).cloned())
                .collect(),
            threshold: task.confidence_threshold,
            escalate: task.escalate,
        };
        let mut routes: BTreeMap<String, Route> = config
            .task
            .iter()
            .map(|(name, task)| (name.clone(), route(task)))
            .collect();
        // A task that only a specialist's own table names is served by whoever names it, in order of name.
        for (name, specialist) in &config.specialist {
            for task in specialist.tasks.iter().filter(|t| !config.task.contains_key(*t)) {
                let route = routes.entry(task.clone()).or_insert_with(|| Route {
                    chain: Vec::new(),
                    threshold: None,
                    escalate: true,
                });
                route.chain.extend(targets.get(name).cloned());
            }
        }
        let servers = config
            .tools
            .iter()
            .map(|(name, c)| (name.clone(), Arc::new(Server::new(name, c, &config.gateway))));
        Ok(Self {
            servers: servers.collect(),
            routes,
            targets,
            cards: Cards::default(),
            tools: DashMap::new(),
        })
    }

    /// How a task is routed.
    pub(crate) fn route(&self, task: &str) -> Option<&Route> {
        self.routes.get(task)
    }

    /// Every target.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.values()
    }

    /// Every tool server.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }

    /// What a specialist says of itself, if it has been asked.
    pub(crate) fn card(&self, target: &str) -> Option<Arc<Card>> {
        self.cards.current(target)
    }

    pub(crate) fn set_card(&self, target: &Arc<str>, card: Arc<Card>) {
        self.cards.set(target, card);
    }

    /// The place of the card of a version that answered, "name@version".
    pub(crate) fn version(&self, target: &Arc<str>, model: &str) -> Version {
        self.cards.version(target, model)
    }

    /// What the cards of a task's chain say of the task, the smallest target's first: what an endpoint, which has no card, is held to.
    pub(crate) fn task_card(&self, task: &str) -> Option<TaskCard> {
        let chain = &self.route(task)?.chain;
        chain
            .iter()
            .find_map(|target| self.card(&target.name)?.tasks.get(task).cloned())
    }

    /// How long a node usually takes, as far as has been seen; nothing where nothing has: a plan's slack is not made smaller by a guess.
    pub(crate) fn usual(&self, kind: &Kind) -> Duration {
        let usual = match kind {
            Kind::Model { task, .. } => self
                .route(task)
                .and_then(|r| r.chain.first())
                .and_then(|target| target.pace.usual(task)),
            Kind::Tool { name, .. } => self.tool(name).and_then(|tool| tool.server.pace.usual(name)),
        };
        usual.unwrap_or_default()
    }

    /// The tool of that name.
    pub(crate) fn tool(&self, name: &str) -> Option<Arc<Tool>> {
        self.tools.get(name).map(|t| t.clone())
    }

    /// Every tool, by name.
    pub(crate) fn tools(&self) -> Vec<Arc<Tool>> {
        let mut all: Vec<Arc<Tool>> = self.tools.iter().map(|t| t.value().clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes a server's tools these. A name that another server has offered before stays that server's.
    pub(crate) fn set_tools(&self, server: &str, tools: Vec<Tool>) {
        self.tools
            .retain(|name, tool| &*tool.server.name != server || tools.iter().any(|t| t.name == *name));
        for tool in tools {
            match self.tools.entry(tool.name.clone()) {
                Entry::Occupied(known) if &*known.get().server.name != server => {
                    tracing::warn!(
                        tool = tool.name,
                        server,
                        offered_by = &*known.get().server.name,
                        "a tool is offered twice, the first offer counts"
                    );
                }
                Entry::Occupied(mut known) => drop(known.insert(Arc::new(tool))),
                Entry::Vacant(free) => drop(free.insert(Arc::new(tool))),
            }
        }
    }

    /// Looks at every specialist and asks every tool server, all at once, for at most `patience`: who is there is known before the
    /// first plan comes.
    pub(crate) async fn first_look(&self, lookup: &dyn Lookup, patience: Duration) {
        let specialists = self.targets().map(|target| keep::look(target, self, lookup));
        let servers = self
            .servers()
            .map(|server| crate::tools::keep::look(server, self, lookup));
        let all = async {
            tokio::join!(
                futures::future::join_all(specialists),
                futures::future::join_all(servers)
            );
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("not everybody has answered yet; they are asked again and again");
        }
    }

    /// Specialists of mesh.toml with an address, for whoever asks for the mesh's status.
    pub(crate) fn specialists(&self) -> impl Iterator<Item = (&Arc<Target>, &super::replicas::Replicas)> {
        self.targets().filter_map(|target| match &target.tier {
            Tier::Specialist { replicas, .. } => Some((target, replicas)),
            Tier::Endpoint(_) => None,
        })
    }
}

impl Catalogue for Registry {
    fn tasks(&self) -> Vec<&str> {
        self.routes.keys().map(String::as_str).collect()
    }

    fn tool(&self, name: &str) -> Known {
        if let Some(tool) = Registry::tool(self, name) {
            return Known::Registered(tool.input.clone());
        }
        match self.servers().find(|s| !s.listed()) {
            Some(server) => Known::Unlisted(server.name.to_string()),
            None => Known::Unknown(self.tools().iter().take(SOME).map(|t| t.name.clone()).collect()),
        }
    }
}
