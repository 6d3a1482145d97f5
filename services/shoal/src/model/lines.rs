//! What the configuration lacks for a specialist to be served: its table, and a place in its tasks' chains. Pure.
use super::place::Place;
use shoal_kit::config::MeshConfig;
use shoal_specialist::folder::manifest::Kind;
use std::{collections::BTreeSet, net::SocketAddr};
use toml::Value;

/// Where the repository's own specialists begin.
const FIRST_PORT: u16 = 7420;

/// The lines; none if the configuration has the specialist already.
pub(super) fn of(config: &MeshConfig, place: &Place, folder: &str, kind: Kind) -> Vec<String> {
    let name = place.name();
    if config.specialist.contains_key(name) {
        return Vec::new();
    }
    let mut lines = vec![
        String::new(),
        format!("[specialist.{name}]"),
        format!("folder = {}", Value::from(folder)),
    ];
    if let Some(port) = free(config) {
        lines.push(format!("listen = \"127.0.0.1:{port}\""));
        lines.push(format!("http_listen = \"127.0.0.1:{}\"", port + 1));
    }
    lines.push(String::new());
    if kind == Kind::Embed {
        lines.push("# It answers Embed, and POST /v1/embeddings on http_listen. No chain names it: a plan's node takes no vectors.".into());
        return lines;
    }
    for task in place.tasks() {
        match config.task.get(task) {
            None => lines.extend([format!("[task.{task}]"), format!("chain = [\"{name}\"]"), String::new()]),
            Some(known) => {
                let chain: Vec<Value> = known
                    .chain
                    .iter()
                    .map(String::as_str)
                    .chain([name])
                    .map(Value::from)
                    .collect();
                lines.push(format!(
                    "# [task.{task}] is there: name it in that chain, smallest first, for example chain = {}",
                    Value::from(chain)
                ));
            }
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The first of two ports that nothing in the configuration has, behind those of its specialists.
fn free(config: &MeshConfig) -> Option<u16> {
    let doors = |a: SocketAddr, b: SocketAddr| [a.port(), b.port()];
    let specialists: BTreeSet<u16> = config
        .specialist
        .values()
        .flat_map(|s| doors(s.listen, s.http_listen))
        .filter(|port| *port != 0)
        .collect();
    let (g, f, c) = (&config.gateway, &config.feedback, &config.concierge);
    let others = [
        doors(g.listen, g.http_listen),
        doors(f.listen, f.http_listen),
        doors(c.listen, c.http_listen),
    ];
    let taken: BTreeSet<u16> = specialists.iter().copied().chain(others.concat()).collect();
    let first = specialists.last().map_or(FIRST_PORT, |last| last.saturating_add(1));
    let mut pairs = (first..u16::MAX).step_by(2);
    pairs.find(|port| !taken.contains(port) && !taken.contains(&(port + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn of_config(config: &str, tasks: &[&str], kind: Kind) -> String {
        let config = MeshConfig::layer(None, config, &[]).expect("valid").config;
        let tasks: Vec<String> = tasks.iter().map(|t| (*t).to_owned()).collect();
        let place = Place::find(Path::new("no/such/folder"), "mine", None, &tasks).expect("a place");
        of(&config, &place, "models/mine", kind).join("\n")
    }

    const MESH: &str = "[specialist.a]\nfolder = \"a\"\nlisten = \"127.0.0.1:7430\"\nhttp_listen = \"127.0.0.1:7431\"\n[task.t]\nchain = [\"a\"]\n\
                        [concierge]\nlisten = \"127.0.0.1:7433\"\n";

    #[test]
    fn what_is_appended_is_a_configuration_that_names_the_specialist_in_a_chain_of_its_own() {
        for before in ["", MESH] {
            let lines = of_config(before, &["u", "v"], Kind::Generate);
            let whole = MeshConfig::layer(None, &format!("{before}{lines}\n"), &[])
                .expect("it fits")
                .config;
            let mine = &whole.specialist["mine"];
            assert_eq!(mine.folder.as_deref(), Some(Path::new("models/mine")));
            assert_eq!(
                (&whole.task["u"].chain, &whole.task["v"].chain),
                (&vec!["mine".into()], &vec!["mine".into()])
            );
            let wanted = if before.is_empty() { 7420 } else { 7434 };
            assert_eq!(
                (mine.listen.port(), mine.http_listen.port()),
                (wanted, wanted + 1),
                "{lines}"
            );
        }
    }

    #[test]
    fn a_chain_that_is_there_is_left_to_people_and_a_specialist_that_is_there_needs_nothing() {
        let lines = of_config(MESH, &["t"], Kind::Classify);
        assert!(
            lines.contains("# [task.t] is there") && lines.contains("chain = [\"a\", \"mine\"]"),
            "{lines}"
        );
        let whole = MeshConfig::layer(None, &format!("{MESH}{lines}\n"), &[])
            .expect("it fits")
            .config;
        assert_eq!(whole.task["t"].chain, ["a"]);
        assert_eq!(
            of_config("[specialist.mine]\nfolder = \"m\"\n", &["t"], Kind::Generate),
            ""
        );
    }

    #[test]
    fn an_embedder_is_named_in_no_chain() {
        let lines = of_config("", &["embed"], Kind::Embed);
        assert!(!lines.contains("[task."), "{lines}");
        MeshConfig::layer(None, &lines, &[]).expect("it fits");
    }
}
