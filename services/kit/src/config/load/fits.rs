//! Whether the values of a configuration fit together. Pure.
use crate::config::{Endpoint, Gateway, MeshConfig, Specialist};
use std::collections::BTreeSet;
use tracing_subscriber::EnvFilter;

/// Cores of a machine at most: as many as Linux's fixed-size set of cores has room for (CPU_SETSIZE).
const CPUS: usize = 1024;

/// The processes of a mesh that are no specialist: announcements, logs and the supervisor tell processes apart by name.
const PROCESSES: [&str; 3] = ["concierge", "feedback", "gateway"];

/// What types cannot say: the key that does not fit, and why.
pub(super) fn fits(config: &MeshConfig) -> Result<(), (String, String)> {
    let Gateway {
        default_deadline,
        max_deadline,
        ..
    } = &config.gateway;
    if let Some(key) = nothing(config) {
        return Err((key, "must be above zero".into()));
    }
    if default_deadline > max_deadline || default_deadline.is_zero() {
        return Err((
            "gateway.default_deadline".into(),
            "must be above zero and at most max_deadline".into(),
        ));
    }
    // Hedging what is faster than half of the rest would be load; and past 0.999 there are never enough times seen to tell.
    for (key, share, fits) in [
        ("hedge_share", config.gateway.hedge_share, 0.0..=1.0),
        ("hedge_quantile", config.gateway.hedge_quantile, 0.5..=0.999),
    ] {
        if !fits.contains(&share) {
            let said = format!("must be {} to {}", fits.start(), fits.end());
            return Err((format!("gateway.{key}"), said));
        }
    }
    let targets: BTreeSet<&str> = config
        .specialist
        .keys()
        .chain(config.endpoint.keys())
        .map(String::as_str)
        .collect();
    if let Some(name) = config
        .specialist
        .keys()
        .find(|name| config.endpoint.contains_key(*name))
    {
        return Err((
            format!("endpoint.{name}"),
            "is also the name of a specialist; targets need names of their own".into(),
        ));
    }
    for (name, specialist) in &config.specialist {
        let key = |field: &str| format!("specialist.{name}.{field}");
        if PROCESSES.contains(&name.as_str()) {
            let said = format!(
                "is the name of another process of the mesh: give the specialist a name that is none of {}",
                PROCESSES.join(", ")
            );
            return Err((format!("specialist.{name}"), said));
        }
        // Its log and its announcement are files of that name.
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err((
                format!("specialist.{name:?}"),
                "is no name for a file, as a specialist's log and announcement have it".into(),
            ));
        }
        if specialist.folder.is_none() && specialist.endpoints.is_empty() {
            return Err((
                key("folder"),
                "give a model folder to serve, or `endpoints` to call".into(),
            ));
        }
        // 1024 rows is past where any provider still gains from more.
        if specialist.slots == 0 || specialist.slots > 1024 {
            return Err((key("slots"), "must be 1 to 1024".into()));
        }
        // As many different beginnings as that are no beginnings any more.
        if specialist.prefix_slots > 64 {
            return Err((key("prefix_slots"), "must be 0 to 64".into()));
        }
        if specialist.max_in_flight == 0 || specialist.queue_tokens == 0 {
            return Err((
                key("max_in_flight"),
                "max_in_flight and queue_tokens must be at least 1".into(),
            ));
        }
        threads(specialist).map_err(|(field, said)| (key(field), said))?;
        for endpoint in &specialist.endpoints {
            plain(endpoint).map_err(|said| (key("endpoints"), format!("`{endpoint}` {said}")))?;
        }
    }
    for (name, endpoint) in &config.endpoint {
        // The one door that is spoken to through TLS, and by HTTP instead of gRPC.
        let spoken = matches!(scheme(&endpoint.base_url).as_deref(), Some("http" | "https"));
        if !spoken || endpoint.model.is_empty() || endpoint.max_in_flight == 0 {
            return Err((
                format!("endpoint.{name}"),
                "needs base_url (http://host:port/v1 or https://host/v1), model, and max_in_flight of at least 1"
                    .into(),
            ));
        }
    }
    for (name, server) in &config.tools {
        let key = |field: &str| format!("tools.{name}.{field}");
        plain(&server.endpoint).map_err(|said| (key("endpoint"), format!("`{}` {said}", server.endpoint)))?;
        if server.max_in_flight == 0 {
            return Err((key("max_in_flight"), "must be at least 1".into()));
        }
    }
    intents(config)?;
    for (name, task) in &config.task {
        if task.chain.is_empty() {
            return Err((
                format!("task.{name}.chain"),
                "names no target; give at least one specialist or endpoint".into(),
            ));
        }
        if let Some(bad) = task.chain.iter().find(|target| !targets.contains(target.as_str())) {
            let known: Vec<_> = targets.iter().copied().collect();
            return Err((
                format!("task.{name}.chain"),
                format!("`{bad}` is no specialist or endpoint; there are: {}", known.join(", ")),
            ));
        }
        if task.confidence_threshold.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
            return Err((
                format!("task.{name}.confidence_threshold"),
                "must be between 0 and 1".into(),
            ));
        }
    }
    let feedback = &config.gateway.feedback;
    if !feedback.is_empty() {
        plain(feedback).map_err(|said| {
            let said = format!("`{feedback}` {said}; leave it empty to keep no outcomes");
            ("gateway.feedback".into(), said)
        })?;
    }
    if let Err(why) = EnvFilter::builder().parse(&config.telemetry.log) {
        let said = format!("is no log filter: {why}; give a level, or `shoal_gateway=debug,info`");
        return Err(("telemetry.log".into(), said));
    }
    // The exporter would end every process that starts, and name a feature of its own.
    if let Some(endpoint) = &config.telemetry.otlp_endpoint {
        plain(endpoint).map_err(|said| ("telemetry.otlp_endpoint".into(), format!("`{endpoint}` {said}")))?;
    }
    Ok(())
}

/// The first key that is zero and must not be: nothing would be let in, or nothing would have the time to answer.
fn nothing(config: &MeshConfig) -> Option<String> {
    let gateway = &config.gateway;
    let keys = [
        ("gateway.max_nodes", gateway.max_nodes == 0),
        ("gateway.max_depth", gateway.max_depth == 0),
        ("gateway.max_fan_out", gateway.max_fan_out == 0),
        ("gateway.max_plans", gateway.max_plans == 0),
        ("gateway.max_input_bytes", gateway.max_input_bytes == 0),
        ("gateway.spool_max_bytes", gateway.spool_max_bytes == 0),
        ("gateway.tool_timeout", gateway.tool_timeout.is_zero()),
        ("feedback.queue", config.feedback.queue == 0),
    ];
    let of_endpoint = |(name, endpoint): (&String, &Endpoint)| {
        let zero = endpoint.timeout.is_zero();
        zero.then(|| format!("endpoint.{name}.timeout"))
    };
    let zero = keys.into_iter().find(|(_, zero)| *zero);
    zero.map(|(key, _)| key.to_owned())
        .or_else(|| config.endpoint.iter().find_map(of_endpoint))
}

/// What a specialist may take of the machine: the field that does not fit, and why.
fn threads(specialist: &Specialist) -> Result<(), (&'static str, String)> {
    let (threads, cpus) = (specialist.intra_op_threads, &specialist.cpus);
    if threads > 1024 {
        return Err(("intra_op_threads", "must be 0 to 1024".into()));
    }
    if let Some(cpu) = cpus.iter().find(|cpu| **cpu >= CPUS) {
        return Err((
            "cpus",
            format!("{cpu} is no core: they are numbered from 0 to {}", CPUS - 1),
        ));
    }
    if let Some(cores) = specialist.own_cores().filter(|cores| threads > *cores) {
        return Err((
            "intra_op_threads",
            format!("{threads} threads on the {cores} cores of `cpus` would wait for each other"),
        ));
    }
    Ok(())
}

/// Scheme of a URL that names a host.
fn scheme(text: &str) -> Option<String> {
    let uri: http::Uri = text.parse().ok()?;
    uri.host()?;
    uri.scheme_str().map(str::to_owned)
}

/// Whether this is a door that gRPC reaches: no TLS is linked for it, and at https:// plaintext would be spoken all the same, to a
/// server that does not answer it or, worse, does. What to say if not.
pub(super) fn plain(text: &str) -> Result<(), &'static str> {
    match scheme(text).as_deref() {
        Some("http") => Ok(()),
        Some("https") => Err(
            "asks for TLS, which shoal does not speak over gRPC: give http://host:port, and where the way there must be encrypted \
             that of a proxy beside shoal that adds TLS",
        ),
        _ => Err("is not http://host:port"),
    }
}

/// What an intent is for must be there, and each of its keys must have an effect.
fn intents(config: &MeshConfig) -> Result<(), (String, String)> {
    let Gateway {
        plan_task,
        episode_task,
        route_task,
        intents,
        ..
    } = &config.gateway;
    let routed = |task: &String| config.task.contains_key(task);
    if !intents.is_empty() && !routed(route_task) {
        let said = format!(
            "no task `{route_task}` is routed, and it tells intents: name a classifier in [task.{route_task}] chain"
        );
        return Err(("gateway.route_task".into(), said));
    }
    for (name, intent) in intents {
        let key = format!("gateway.intents.{name}");
        if intent.task == *route_task || (intent.task != *plan_task && !routed(&intent.task)) {
            return Err((
                key,
                format!("`{}` is not a task of [task] that a goal can be for", intent.task),
            ));
        }
        if intent.services.is_empty() == (intent.task == *episode_task) {
            return Err((
                key,
                format!(
                    "`services` are what the planner of `{episode_task}` may call: it needs at least one, and no other task takes any"
                ),
            ));
        }
    }
    Ok(())
}
