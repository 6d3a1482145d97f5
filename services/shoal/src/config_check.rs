//! `shoal config check`: every effective value, and where it comes from.
use crate::{
    exit::{Failure, Result},
    output,
    supervise::{Kind, Process, processes},
};
use clap::Args;
use serde_json::{Value, json};
use shoal_kit::config::{FILE, Loaded, MeshConfig, Origin};
use std::{collections::BTreeMap, path::PathBuf};

/// What `shoal config check` takes.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// {KEY: {value, origin}} instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The command. Exit 64 for a configuration that would be refused.
pub(crate) fn check(args: &ConfigArgs) -> Result<()> {
    let loaded = MeshConfig::load(args.config.as_deref())?;
    let rows = effective(&loaded)?;
    if args.json {
        let all = rows
            .iter()
            .map(|(k, v, origin)| (k.clone(), json!({"value": v, "origin": origin})))
            .collect();
        output::line(Value::Object(all).to_string());
    } else {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|(k, v, o)| vec![k.clone(), shown(v), o.clone()])
            .collect();
        output::table(&["key", "value", "from"], &cells)
            .iter()
            .for_each(output::line);
    }
    if loaded.path.is_none() {
        eprintln!("shoal: no {FILE} in this folder: these are defaults, and what variables say");
    }
    for doubt in doubts(&loaded.config) {
        eprintln!("shoal: {doubt}");
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    if value.is_null() {
        "(unset)".into()
    } else {
        value.to_string()
    }
}

/// Every leaf: dotted key, value, origin.
fn effective(loaded: &Loaded) -> Result<Vec<(String, Value, String)>> {
    let tree = |c: &MeshConfig| serde_json::to_value(c).map_err(|e| Failure::internal(e.to_string()));
    let mut defaults = MeshConfig::default();
    let names = &loaded.config;
    defaults.specialist = names
        .specialist
        .keys()
        .map(|k| (k.clone(), Default::default()))
        .collect();
    defaults.endpoint = names.endpoint.keys().map(|k| (k.clone(), Default::default())).collect();
    defaults.tools = names.tools.keys().map(|k| (k.clone(), Default::default())).collect();
    defaults.task = names.task.keys().map(|k| (k.clone(), Default::default())).collect();
    let (mut values, mut written, mut built_in) = (Vec::new(), Vec::new(), Vec::new());
    // What the file leaves open is shown as the processes will have it.
    leaves("", &tree(&loaded.config.with_budgets())?, &mut values);
    leaves("", &tree(&loaded.config)?, &mut written);
    leaves("", &tree(&defaults)?, &mut built_in);
    let built_in: BTreeMap<String, Value> = built_in.into_iter().collect();
    let origin = |key: &str, value: &Value| match loaded.origins.get(key) {
        Some(origin) => origin.clone(),
        // Not named by itself: a default, unless a table written in one line brought it.
        None if built_in.get(key) == Some(value) => Origin::Default,
        None => loaded.origin(key),
    };
    Ok(values
        .into_iter()
        .zip(written)
        .map(|((key, value), (_, said))| {
            let from = origin(&key, &said).to_string();
            let from = if value == said {
                from
            } else {
                format!("{from}, by the budget of [machine]")
            };
            (key, value, from)
        })
        .collect())
}

fn leaves(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                leaves(&key, inner, out);
            }
        }
        leaf => out.push((prefix.to_owned(), leaf.clone())),
    }
}

/// What is allowed and yet probably not meant.
fn doubts(config: &MeshConfig) -> Vec<String> {
    let mut doubts = Vec::new();
    for (name, specialist) in &config.specialist {
        if let Some(folder) = specialist.folder.as_ref().filter(|f| !f.is_dir()) {
            doubts.push(format!(
                "[specialist.{name}] folder {} is not there; `shoal up` will refuse to start",
                folder.display()
            ));
        }
    }
    doubts.extend(overbooked(config));
    let mut taken: BTreeMap<_, String> = BTreeMap::new();
    // A specialist with endpoints is called there, and may run on another machine: of a mesh of containers all may use the same ports.
    let elsewhere = |name: &str| config.specialist.get(name).is_some_and(|s| !s.endpoints.is_empty());
    let here = |p: &Process| p.kind != Kind::Specialist || !elsewhere(&p.name);
    for process in processes(config).into_iter().filter(here) {
        for (door, address) in [
            ("listen", process.addresses.grpc),
            ("http_listen", process.addresses.http),
        ] {
            let key = format!("{} {door}", process.name);
            if address.port() == 0 {
                continue;
            }
            if let Some(first) = taken.insert(address, key.clone()) {
                doubts.push(format!(
                    "{address} is the address of both {first} and {key}; one of them will not start"
                ));
            }
        }
    }
    doubts
}

/// Threads that would only wait for each other.
fn overbooked(config: &MeshConfig) -> Vec<String> {
    let (mut doubts, cores) = (Vec::new(), config.machine.cores());
    let budgets = config.with_budgets().specialist;
    let here = || budgets.iter().filter(|(_, s)| s.folder.is_some());
    for (name, specialist) in here().filter(|(_, s)| s.intra_op_threads > cores) {
        doubts.push(format!(
            "[specialist.{name}] intra_op_threads = {} on {cores} cores; they would wait for each other, and be slower than {cores}",
            specialist.intra_op_threads
        ));
    }
    let all: usize = here().map(|(_, s)| s.intra_op_threads).sum();
    let awake: Vec<&str> = here()
        .filter(|(_, s)| s.spin == Some(true))
        .map(|(name, _)| name.as_str())
        .collect();
    if all > cores && !awake.is_empty() {
        let awake = awake.join(", ");
        doubts.push(format!(
            "the specialists have {all} threads on {cores} cores, and those of {awake} wait awake (spin = true); the others pay for that"
        ));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str, variables: &[(&str, &str)]) -> Loaded {
        let variables: Vec<_> = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        MeshConfig::layer(Some("mesh.toml".into()), text, &variables).expect("valid")
    }

    #[test]
    fn every_value_says_whether_it_is_a_default_or_from_which_line_or_variable() {
        let text = "[gateway]\nmax_nodes = 7\n\n[specialist.s]\nfolder = \"models/s\"\n";
        let rows = effective(&loaded(text, &[("SHOAL_GATEWAY__LISTEN", "127.0.0.1:9")])).expect("rows");
        let row = |key: &str| {
            rows.iter()
                .find(|(k, ..)| k == key)
                .map(|(_, v, o)| (shown(v), o.clone()))
                .expect(key)
        };
        assert_eq!(row("gateway.max_nodes"), ("7".into(), "mesh.toml:2".into()));
        assert_eq!(row("gateway.max_depth"), ("64".into(), "default".into()));
        assert_eq!(
            row("gateway.listen"),
            ("\"127.0.0.1:9\"".into(), "$SHOAL_GATEWAY__LISTEN".into())
        );
        assert_eq!(row("specialist.s.folder").1, "mesh.toml:5");
        assert_eq!(row("specialist.s.slots"), ("16".into(), "default".into()));
        assert_eq!(row("telemetry.otlp_endpoint").0, "(unset)");
        assert_eq!(row("gateway.drain"), ("\"10s\"".into(), "default".into()));
    }

    #[test]
    fn two_processes_at_one_address_and_a_missing_folder_are_doubted() {
        let text = "[gateway]\nfeedback = \"http://127.0.0.1:7400\"\n[feedback]\nlisten = \"127.0.0.1:7400\"\n[specialist.s]\nfolder = \"no/such/folder\"\n";
        let doubts = doubts(&loaded(text, &[]).config);
        assert!(doubts.iter().any(|d| d.contains("no/such/folder")), "{doubts:?}");
        assert!(
            doubts
                .iter()
                .any(|d| d.contains("feedback listen") && d.contains("gateway listen")),
            "{doubts:?}"
        );
    }

    #[test]
    fn specialists_that_are_called_elsewhere_may_use_the_same_ports() {
        let text = "[specialist.a]\nfolder = \"a\"\nlisten = \"0.0.0.0:7420\"\nendpoints = [\"http://a:7420\"]\n\
                    [specialist.b]\nfolder = \"b\"\nlisten = \"0.0.0.0:7420\"\nENDPOINTS";
        let collide = |endpoints: &str| {
            let loaded = loaded(&text.replace("ENDPOINTS", endpoints), &[]);
            doubts(&loaded.config).iter().any(|d| d.contains("will not start"))
        };
        assert!(!collide("endpoints = [\"http://b:7420\"]\n"));
        assert!(!collide(""), "the other is elsewhere");
        assert!(collide("[specialist.c]\nfolder = \"c\"\nlisten = \"0.0.0.0:7420\"\n"));
    }

    #[test]
    fn a_budget_that_is_left_open_is_shown_settled_and_one_that_overbooks_is_doubted() {
        let text = "[machine]\ncores = 4\n[specialist.a]\nfolder = \"models/a\"\nintra_op_threads = 0\n[specialist.b]\nfolder = \"models/b\"\n";
        let rows = effective(&loaded(text, &[])).expect("rows");
        let row = |key: &str| {
            rows.iter()
                .find(|(k, ..)| k == key)
                .map(|(_, v, o)| (shown(v), o.clone()))
                .expect(key)
        };
        assert_eq!(
            row("specialist.a.intra_op_threads"),
            ("2".into(), "mesh.toml:5, by the budget of [machine]".into())
        );
        assert_eq!(
            row("specialist.a.spin"),
            ("true".into(), "default, by the budget of [machine]".into())
        );
        assert_eq!(row("specialist.b.spin").0, "false");
        assert!(overbooked(&loaded(text, &[]).config).is_empty());
        let text = text.replace("threads = 0", "threads = 8\nspin = true");
        let doubts = overbooked(&loaded(&text, &[]).config);
        assert!(
            doubts.len() == 2 && doubts[0].contains("8 on 4 cores") && doubts[1].contains("those of a wait awake"),
            "{doubts:?}"
        );
    }
}
