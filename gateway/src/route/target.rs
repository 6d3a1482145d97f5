//! A target: a specialist with its replicas, or an OpenAI-compatible endpoint. What is common to both is the stack.
use super::{
    openai::OpenAi,
    question::{self, Question, Said},
    replicas::Replicas,
    specialist::Specialist,
    stack::{self, Endpoint, Sizes, Stack},
};
use shoal_kit::config;
use shoal_stack::{Call, balance::Endpoints, hedge::Answered, pace::Pace};
use std::{fmt, sync::Arc};
use tokio::{sync::Notify, time::Instant};
use tower::ServiceExt as _;

/// What a target is.
#[derive(Debug)]
pub(crate) enum Tier {
    /// Processes of the mesh that serve one model.
    Specialist {
        replicas: Replicas,
        /// Tasks by configuration; empty: what its card says.
        tasks: Vec<String>,
    },
    /// Something that speaks OpenAI's protocol.
    Endpoint(config::Endpoint),
}

/// Within which bounds a target is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within {
    pub(crate) deadline: Instant,
    /// Until when room is waited for.
    pub(crate) patience: Instant,
    /// The latest start with which the plan still ends in time, as far as anybody knows.
    pub(crate) start_by: Instant,
    pub(crate) max_attempts: u32,
}

/// A target of mesh.toml.
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) tier: Tier,
    pub(crate) endpoints: Endpoints<Endpoint<Arc<Question>, Said>>,
    pub(crate) pace: Pace,
    /// Told when what is known of it may be out of date.
    pub(crate) stale: Notify,
    /// Why it can never be asked, as it is configured.
    pub(crate) unusable: Option<String>,
    stack: Stack<Arc<Question>, Said>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// A specialist. It has no replicas until they are looked up.
    pub(crate) fn specialist(name: &str, config: &config::Specialist, gateway: &config::Gateway) -> Self {
        let tier = Tier::Specialist {
            replicas: Replicas::new(config.called_at()),
            tasks: config.tasks.clone(),
        };
        Self::new(
            name,
            tier,
            "shoal.v1.SpecialistService/Generate",
            Sizes::new(gateway, config.max_in_flight),
            None,
        )
    }

    /// An endpoint.
    pub(crate) fn endpoint(
        name: &str,
        config: &config::Endpoint,
        gateway: &config::Gateway,
        client: &reqwest::Client,
    ) -> Self {
        let key = config
            .api_key_env
            .as_deref()
            .map(|variable| (variable, shoal_kit::environment::var(variable)));
        let unusable = match &key {
            Some((variable, None)) => Some(format!(
                "its API key is not set (${variable}, [endpoint.{name}] api_key_env)"
            )),
            _ => None,
        };
        if let Some(why) = &unusable {
            tracing::warn!(target = name, why, "an endpoint cannot be used");
        }
        let target = Self::new(
            name,
            Tier::Endpoint(config.clone()),
            "POST chat/completions",
            Sizes::new(gateway, config.max_in_flight),
            unusable,
        );
        let wire = OpenAi::new(config, key.and_then(|(_, key)| key), client.clone());
        let address = wire.address.clone();
        target.endpoints.update(&[address], |address, breaker| {
            stack::endpoint(address, breaker, stack::done(config.timeout), wire.clone())
        });
        target
    }

    fn new(name: &str, tier: Tier, method: &'static str, sizes: Sizes, unusable: Option<String>) -> Self {
        let name: Arc<str> = name.into();
        let (endpoints, pace) = (Endpoints::new(name.clone()), Pace::default());
        let kind = stack::Kind {
            method,
            telling: question::telling(),
        };
        Self {
            stack: stack::stack(&name, kind, sizes, pace.clone(), endpoints.clone()),
            name,
            tier,
            endpoints,
            pace,
            stale: Notify::new(),
            unusable,
        }
    }

    /// Makes the stack's endpoints the replicas that there are.
    pub(crate) fn serve_from(&self, addresses: &[Arc<str>]) {
        let Tier::Specialist { replicas, .. } = &self.tier else {
            return;
        };
        let reachable: Vec<Arc<str>> = addresses
            .iter()
            .filter(|a| replicas.channel(a).is_some())
            .cloned()
            .collect();
        self.endpoints.update(&reachable, |address, breaker| {
            let wire = Specialist::new(address.clone(), replicas.channel(address));
            stack::endpoint(address, breaker, stack::BEGUN, wire)
        });
    }

    /// Asks, with everything that the stack does for a call. The answer comes with the address that gave it.
    ///
    /// # Errors
    /// The stack's.
    pub(crate) async fn ask(&self, question: Question, within: Within) -> Result<Answered<Said>, shoal_stack::Error> {
        let deadline = match &self.tier {
            Tier::Specialist { .. } => within.deadline,
            Tier::Endpoint(config) => within.deadline.min(Instant::now() + config.timeout),
        };
        let call = Call {
            work: question.task.as_str().into(),
            // A model that is asked twice has answered twice, and nothing has happened in the world.
            idempotent: true,
            class: question.priority.into(),
            start_by: within.start_by,
            patience: within.patience,
            ..Call::new(Arc::new(question), deadline, within.max_attempts)
        };
        let answer = self.stack.clone().oneshot(call).await;
        if let Err(error) = &answer
            && (error.endpoint_fault() || error.retryable())
        {
            self.stale.notify_one();
        }
        answer
    }

    /// Whether every endpoint that it has is broken off.
    pub(crate) fn broken(&self) -> bool {
        let endpoints = self.endpoints.list();
        !endpoints.is_empty() && endpoints.iter().all(|e| !e.breaker.ready())
    }

    /// Whether it lies outside the mesh.
    pub(crate) fn external(&self) -> bool {
        matches!(&self.tier, Tier::Endpoint(config) if config.external)
    }

    /// Whether what it says is not for people.
    pub(crate) fn machine_only(&self) -> bool {
        matches!(&self.tier, Tier::Endpoint(config) if config.machine_only)
    }

    /// US dollars per million tokens by configuration; a specialist's are in its card.
    pub(crate) fn price(&self) -> Option<(f64, f64)> {
        match &self.tier {
            Tier::Specialist { .. } => None,
            Tier::Endpoint(c) => Some((c.input_usd_per_million_tokens, c.output_usd_per_million_tokens)),
        }
    }
}
