use super::*;

fn layer(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Error> {
    let variables: Vec<_> = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    MeshConfig::layer(Some("etc/mesh.toml".into()), text, &variables)
}

fn refusal(text: &str) -> String {
    layer(text, &[]).expect_err("must be refused").to_string()
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let said = refusal("[gateway]\nlisten = \"127.0.0.1:1\"\nlissen = 2\n");
    assert!(
        said.starts_with("etc/mesh.toml:3: ") && said.contains("lissen"),
        "{said}"
    );
}

#[test]
fn a_wrong_type_is_refused_with_its_line() {
    assert!(refusal("[gateway]\n\nmax_nodes = \"many\"\n").starts_with("etc/mesh.toml:3: "));
    assert!(refusal("[gateway\n").starts_with("etc/mesh.toml:1: "));
}

#[test]
fn a_chain_that_names_no_target_is_refused_with_what_there_is() {
    let said = refusal("[specialist.tool_call]\nfolder = \"m\"\n[task.tool_call]\nchain = [\"tool_cal\"]\n");
    assert!(
        said.contains("etc/mesh.toml:4") && said.contains("`tool_cal`") && said.contains("there are: tool_call"),
        "{said}"
    );
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    for (text, key) in [
        ("[gateway]\nmax_nodes = 0\n", "gateway.max_nodes"),
        ("[gateway]\nmax_depth = 0\n", "gateway.max_depth"),
        ("[gateway]\ntool_timeout = \"0s\"\n", "gateway.tool_timeout"),
        ("[feedback]\nqueue = 0\n", "feedback.queue"),
        (
            "[endpoint.big]\nbase_url = \"http://h/v1\"\nmodel = \"m\"\ntimeout = \"0s\"\n",
            "endpoint.big.timeout",
        ),
        ("[telemetry]\nlog = \"shoal=[[\"\n", "telemetry.log"),
        ("[gateway]\ndefault_deadline = \"1h\"\n", "gateway.default_deadline"),
        ("[specialist.a]\nfolder = \"m\"\nslots = 0\n", "specialist.a.slots"),
        ("[specialist.a]\n", "specialist.a.folder"),
        ("[specialist.gateway]\nfolder = \"m\"\n", "specialist.gateway"),
        ("[specialist.\"a/b\"]\nfolder = \"m\"\n", "specialist.\"a/b\""),
        ("[specialist.a]\nfolder = \"m\"\ncpus = [1024]\n", "specialist.a.cpus"),
        (
            "[specialist.a]\nfolder = \"m\"\ncpus = [1, 1]\nintra_op_threads = 2\n",
            "specialist.a.intra_op_threads",
        ),
        (
            "[specialist.a]\nfolder = \"m\"\nqueue_tokens = 0\n",
            "specialist.a.max_in_flight",
        ),
        (
            "[specialist.a]\nendpoints = [\"localhost\"]\n",
            "specialist.a.endpoints",
        ),
        ("[endpoint.big]\nbase_url = \"x\"\n", "endpoint.big"),
        ("[tools.t]\nendpoint = \"\"\n", "tools.t.endpoint"),
        (
            "[tools.t]\nendpoint = \"http://h:1\"\nmax_in_flight = 0\n",
            "tools.t.max_in_flight",
        ),
        ("[gateway]\nfeedback = \"h:1\"\n", "gateway.feedback"),
        ("[telemetry]\notlp_endpoint = \"h:1\"\n", "telemetry.otlp_endpoint"),
        (
            "[specialist.a]\nfolder = \"m\"\n[task.t]\nchain = [\"a\"]\nconfidence_threshold = 7.0\n",
            "task.t.confidence_threshold",
        ),
    ] {
        assert!(refusal(text).contains(key), "{text}: {}", refusal(text));
    }
    // Nobody who wrote https:// is spoken to in plaintext.
    for (text, key) in [
        (
            "[specialist.a]\nendpoints = [\"http://h:1\", \"https://h:2\"]\n",
            "specialist.a.endpoints",
        ),
        ("[tools.t]\nendpoint = \"https://h:1\"\n", "tools.t.endpoint"),
        ("[gateway]\nfeedback = \"https://h:1\"\n", "gateway.feedback"),
        (
            "[telemetry]\notlp_endpoint = \"https://h:1\"\n",
            "telemetry.otlp_endpoint",
        ),
    ] {
        let said = refusal(text);
        assert!(
            said.contains(key) && said.contains("TLS") && said.contains("http://host:port"),
            "{text}: {said}"
        );
    }
    let spoken = "[endpoint.big]\nbase_url = \"https://h/v1\"\nmodel = \"m\"\n";
    assert!(layer(spoken, &[]).is_ok(), "TLS is spoken to an OpenAI endpoint");
}

#[test]
fn the_environment_wins_over_the_file_and_both_are_known_by_origin() {
    let text = "[gateway]\nmax_nodes = 7\nmax_depth = 8\n[specialist.tool_call]\nfolder = \"m\"\n";
    let loaded = layer(
        text,
        &[
            ("SHOAL_GATEWAY__MAX_NODES", "9"),
            ("SHOAL_SPECIALIST__TOOL_CALL__PROVIDER", "cuda"),
        ],
    )
    .expect("valid");
    assert_eq!(
        (loaded.config.gateway.max_nodes, loaded.config.gateway.max_depth),
        (9, 8)
    );
    assert_eq!(
        loaded.config.specialist["tool_call"].provider,
        crate::config::Provider::Cuda
    );
    assert_eq!(
        loaded.origin("gateway.max_nodes"),
        Origin::Environment("SHOAL_GATEWAY__MAX_NODES".into())
    );
    assert_eq!(
        loaded.origin("gateway.max_depth"),
        Origin::File("etc/mesh.toml".into(), 3)
    );
    assert_eq!(loaded.origin("feedback.queue"), Origin::Default);
}

#[test]
fn a_variable_that_names_no_key_or_has_a_wrong_type_is_refused_by_name() {
    for (name, value) in [("SHOAL_GATEWAY__LISSEN", "x"), ("SHOAL_GATEWAY__MAX_NODES", "many")] {
        let said = layer("", &[(name, value)]).expect_err("refused").to_string();
        assert!(said.starts_with(&format!("${name}: ")), "{said}");
    }
}

#[test]
fn a_variable_means_a_name_however_it_is_written_in_the_file() {
    let text = "[specialist.Mine]\nfolder = \"m\"\n";
    let name = "SHOAL_SPECIALIST__MINE__SLOTS";
    let loaded = layer(text, &[(name, "4")]).expect("valid");
    assert_eq!(loaded.config.specialist.len(), 1);
    assert_eq!(loaded.config.specialist["Mine"].slots, 4);
    assert_eq!(loaded.origin("specialist.Mine.slots"), Origin::Environment(name.into()));
    // A name that it has not makes a table of its own, and what that lacks is that variable's fault.
    let name = "SHOAL_SPECIALIST__OTHER__SLOTS";
    let said = layer(text, &[(name, "4")]).expect_err("no folder").to_string();
    assert!(said.starts_with(&format!("${name}: specialist.other.folder")), "{said}");
}

#[test]
fn a_variable_that_lacks_an_underscore_is_refused_and_one_of_somebody_elses_is_not() {
    for (name, right) in [
        ("SHOAL_GATEWAY_LISTEN", "SHOAL_GATEWAY__LISTEN"),
        ("SHOAL_FEEDBACK_HTTP_LISTEN", "SHOAL_FEEDBACK__HTTP_LISTEN"),
        // Keys without a default.
        ("SHOAL_ONNXRUNTIME_PATH", "SHOAL_ONNXRUNTIME__PATH"),
        ("SHOAL_TELEMETRY_OTLP_ENDPOINT", "SHOAL_TELEMETRY__OTLP_ENDPOINT"),
    ] {
        let said = one_underscore(name).expect_err("refused").to_string();
        assert!(
            said.starts_with(&format!("${name}: ")) && said.ends_with(right),
            "{said}"
        );
    }
    for other in [
        "SHOAL_BIN",
        "SHOAL_GATEWAY_SERVICE_HOST",
        "SHOAL_GATEWAY_PORT_7400_TCP",
        "SHOAL_",
    ] {
        assert!(one_underscore(other).is_ok(), "{other}");
    }
}

#[test]
fn variables_that_make_one_table_together_may_come_in_any_order() {
    let text = "[specialist.s]\nfolder = \"s\"\n[task.route]\nchain = [\"s\"]\n[task.episode]\nchain = [\"s\"]\n";
    let services = ("SHOAL_GATEWAY__INTENTS__FOO__SERVICES", "[\"Flights_1\"]");
    let task = ("SHOAL_GATEWAY__INTENTS__FOO__TASK", "episode");
    for variables in [[services, task], [task, services]] {
        let loaded = layer(text, &variables).expect("valid");
        assert_eq!(loaded.config.gateway.intents["foo"].services, ["Flights_1"]);
    }
    let typo = ("SHOAL_GATEWAY__LISSEN", "x");
    for (variables, says) in [
        (&[services][..], "$SHOAL_GATEWAY__INTENTS__FOO__SERVICES: missing field"),
        (&[services, typo, task], "$SHOAL_GATEWAY__LISSEN: "),
        (
            &[typo, ("SHOAL_GATEWAY__MAX_NODES", "many")],
            "$SHOAL_GATEWAY__LISSEN: ",
        ),
    ] {
        let said = layer(text, variables).expect_err("refused").to_string();
        assert!(said.starts_with(says), "{said}");
    }
}

#[test]
fn hedging_is_bounded_and_can_be_switched_off() {
    for (text, fits) in [
        ("hedge_share = 0.0", true),
        ("hedge_share = 1.5", false),
        ("hedge_quantile = 0.1", false),
    ] {
        let loaded = layer(&format!("[gateway]\n{text}\n"), &[]);
        assert_eq!(loaded.is_ok(), fits, "{text}");
    }
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let loaded = layer("[specialist.a]\nfolder = \"models/a\"\n", &[]).expect("valid");
    assert_eq!(
        loaded.config.specialist["a"].folder.as_deref(),
        Some(Path::new("etc/models/a"))
    );
    assert_eq!(loaded.config.feedback.store, Path::new("etc/data/outcomes.sqlite"));
}

#[test]
fn the_shipped_file_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mesh.toml");
    let text = fs::read_to_string(&root).expect("mesh.toml");
    let loaded = MeshConfig::layer(Some(root), &text, &[]).expect("valid");
    assert!(loaded.config.task.contains_key("tool_call") && loaded.config.tools.contains_key("concierge"));
}

#[test]
fn an_intent_is_for_a_task_that_is_there_and_names_services_only_where_they_matter() {
    let tasks = "[specialist.s]\nfolder = \"s\"\n[task.route]\nchain = [\"s\"]\n[task.tool_call]\nchain = [\"s\"]\n[task.episode]\nchain = [\"s\"]\n";
    for (intent, fits) in [
        ("{ task = \"tool_call\" }", true),
        ("{ task = \"plan\" }", true),
        ("{ task = \"episode\", services = [\"Flights_1\"] }", true),
        ("{ task = \"episode\" }", false),
        ("{ task = \"tool_call\", services = [\"Flights_1\"] }", false),
        ("{ task = \"nobody\" }", false),
        ("{ task = \"route\" }", false),
        ("{ services = [\"Flights_1\"] }", false),
    ] {
        let text = format!("[gateway.intents]\nbook_flight = {intent}\n");
        let loaded = layer(&format!("{text}{tasks}"), &[]);
        assert_eq!(loaded.is_ok(), fits, "{intent}: {:?}", loaded.err());
        assert!(layer(&text, &[]).is_err(), "{intent}: nobody tells intents");
    }
}
