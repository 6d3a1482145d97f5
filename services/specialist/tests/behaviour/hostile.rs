//! Folders that lie: each refused with its own message, before ONNX Runtime is touched (the library here does not even exist).
use crate::folders::{Copy, has};
use std::{fs, os::unix::fs::symlink};

/// `bytes` as a length-delimited field.
pub(crate) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for mut n in [number << 3 | 2, bytes.len() as u64] {
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }
    out.extend_from_slice(bytes);
    out
}

/// A model with one external tensor.
fn external(entries: &[(&str, &str)], wrap: fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let entries = entries
        .iter()
        .flat_map(|(k, v)| field(13, &[field(1, k.as_bytes()), field(2, v.as_bytes())].concat()));
    let tensor: Vec<u8> = field(8, b"w").into_iter().chain(entries).chain([14 << 3, 1]).collect();
    wrap(tensor)
}

fn initializer(tensor: Vec<u8>) -> Vec<u8> {
    field(7, &field(5, &tensor))
}

/// Inside a graph inside an attribute of a node.
fn nested(tensor: Vec<u8>) -> Vec<u8> {
    field(
        7,
        &field(1, &field(5, &field(6, &field(1, &field(5, &field(5, &tensor)))))),
    )
}

#[test]
fn an_honest_copy_passes_every_check_and_only_then_is_the_library_asked_for() {
    has(
        &Copy::of("tiny_decoder").refused(),
        &["ONNX Runtime at /nonexistent", "[onnxruntime] path"],
    );
    has(&Copy::of("tiny_embedder").refused(), &["ONNX Runtime at /nonexistent"]);
}

#[test]
fn files_that_are_not_the_folders_own_are_refused() {
    let copy = Copy::of("tiny_decoder");
    fs::rename(copy.path("1/model.onnx.data"), copy.path("elsewhere")).expect("moved");
    symlink(copy.path("elsewhere"), copy.path("1/model.onnx.data")).expect("linked");
    has(
        &copy.refused(),
        &["model.onnx.data is a symbolic link", "put the file itself"],
    );

    let copy = Copy::of("tiny_decoder");
    fs::hard_link(copy.path("1/tokenizer.json"), copy.path("other")).expect("linked");
    has(&copy.refused(), &["tokenizer.json has 2 hard links", "cp -l"]);

    let copy = Copy::of("tiny_decoder");
    fs::rename(copy.path("1"), copy.path("real")).expect("moved");
    symlink(copy.path("real"), copy.path("1")).expect("linked");
    has(&copy.refused(), &["is a symbolic link"]);

    let copy = Copy::of("tiny_decoder");
    fs::remove_file(copy.path("1/tokenizer.json")).expect("removed");
    fs::create_dir(copy.path("1/tokenizer.json")).expect("created");
    has(&copy.refused(), &["tokenizer.json is not a regular file"]);
}

#[test]
fn files_that_are_missing_changed_or_not_listed_are_refused() {
    let copy = Copy::of("tiny_decoder");
    fs::remove_file(copy.path("1/model.onnx.data")).expect("removed");
    has(&copy.refused(), &["model.onnx.data is missing"]);

    let copy = Copy::of("tiny_decoder");
    let mut data = fs::read(copy.path("1/model.onnx.data")).expect("readable");
    data[1000] ^= 1;
    fs::write(copy.path("1/model.onnx.data"), data).expect("written");
    has(
        &copy.refused(),
        &["model.onnx.data has sha256", "card.toml lists", "restore"],
    );

    let copy = Copy::of("tiny_decoder");
    copy.edit("1/card.toml", "\"model.onnx.data\" =", "\"card.toml\" =");
    assert!(!copy.refused().contains("/nonexistent"));

    let copy = Copy::of("tiny_decoder");
    copy.edit("1/card.toml", "\"chat_template.jinja\" = \"0e", "# \"0e");
    has(
        &copy.refused(),
        &["chat_template.jinja is not listed", "add its name and sha256"],
    );

    has(
        &{
            let copy = Copy::of("tiny_decoder");
            copy.edit("1/card.toml", "\"model.onnx\" =", "\"../model.onnx\" =");
            copy.refused()
        },
        &["model.onnx"],
    );

    let copy = Copy::of("tiny_decoder");
    fs::remove_file(copy.path("specialist.toml")).expect("removed");
    has(&copy.refused(), &["specialist.toml is missing"]);
}

#[test]
fn a_listed_name_that_leaves_the_folder_is_refused() {
    for bad in ["../../etc/passwd", "/etc/passwd", "a/../b", "a\\\\b"] {
        let copy = Copy::of("tiny_decoder");
        copy.edit(
            "1/card.toml",
            "[files]",
            &format!("[files]\n\"{bad}\" = \"{}\"", "0".repeat(64)),
        );
        let words = copy.refused();
        assert!(words.contains("leaves") || words.contains("missing"), "{bad}: {words}");
        assert!(!words.contains("/nonexistent"), "{words}");
    }
}

#[test]
fn external_data_is_held_to_the_folder_wherever_the_tensor_hides() {
    let long = "9".repeat(30);
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 9] = [
        (&[("location", "../../secret")], &["`../../secret` leaves"]),
        (&[("location", "/etc/passwd")], &["`/etc/passwd` leaves"]),
        (&[("location", "nowhere.data")], &["nowhere.data is missing"]),
        (&[("location", "card.toml")], &["card.toml is not listed"]),
        (&[("location", "*/_ORT_MEM_ADDR_/*")], &["is missing"]),
        (
            &[("location", "model.onnx.data"), ("offset", "398000"), ("length", "81")],
            &["wants bytes 398000..398081", "which has 398080"],
        ),
        (
            &[
                ("location", "model.onnx.data"),
                ("offset", "18446744073709551615"),
                ("length", "2"),
            ],
            &["wants bytes"],
        ),
        (
            &[("location", "model.onnx.data"), ("length", &long)],
            &["is no number of bytes"],
        ),
        (
            &[("location", "model.onnx.data"), ("location", "/etc/passwd")],
            &["location twice"],
        ),
    ];
    for (entries, wanted) in cases {
        for wrap in [initializer as fn(Vec<u8>) -> Vec<u8>, nested] {
            let copy = Copy::of("tiny_decoder");
            copy.write("model.onnx", &external(entries, wrap));
            has(&copy.refused(), wanted);
        }
    }
    let copy = Copy::of("tiny_decoder");
    copy.write("model.onnx", &external(&[], initializer));
    has(&copy.refused(), &["is external but names no file"]);
}

#[test]
fn a_file_that_is_no_onnx_and_a_graph_that_names_files_are_refused() {
    let deep = (0..100).fold(field(8, b"w"), |inner, _| {
        field(7, &field(1, &field(5, &field(6, &inner))))
    });
    let wrapped = (0..40).fold(Vec::new(), |inner: Vec<u8>, _| field(1, &field(5, &field(6, &inner))));
    let cases: [(Vec<u8>, &str); 6] = [
        (b"not a model at all".to_vec(), "ONNX file"),
        (vec![0xff; 64], "ONNX file"),
        (field(7, &[0; 100])[..50].to_vec(), "cut short"),
        (field(7, &wrapped), "nested over"),
        (deep, ""),
        (field(7, &field(1, &field(4, b"EPContext"))), "EPContext"),
    ];
    for (bytes, wanted) in cases {
        let copy = Copy::of("tiny_decoder");
        copy.write("model.onnx", &bytes);
        let words = copy.refused();
        assert!(words.contains(wanted), "{words}");
    }
}

/// The decoder with its model in a folder of the version, listed there.
fn below() -> Copy {
    let copy = Copy::of("tiny_decoder");
    let config = fs::read_to_string(copy.path("1/genai_config.json")).expect("readable");
    let named = config.replace("\"filename\": \"model.onnx\"", "\"filename\": \"sub/model.onnx\"");
    assert_ne!(named, config);
    copy.write("genai_config.json", named.as_bytes());
    fs::create_dir(copy.path("1/sub")).expect("created");
    for name in ["model.onnx", "model.onnx.data"] {
        let content = fs::read(copy.path("1").join(name)).expect("readable");
        copy.write(&format!("sub/{name}"), &content);
    }
    copy
}

#[test]
fn external_data_is_looked_for_where_the_runtime_does_beside_the_model() {
    let copy = below();
    copy.write("w.data", b"a listed file of that name, which nobody reads");
    fs::write(copy.path("1/sub/w.data"), "what would be read").expect("written");
    copy.write("sub/model.onnx", &external(&[("location", "w.data")], initializer));
    has(&copy.refused(), &["sub/w.data is not listed"]);
    copy.write("sub/model.onnx", &external(&[("location", "/etc/passwd")], initializer));
    has(&copy.refused(), &["`/etc/passwd` leaves"]);

    let copy = below();
    for name in ["model.onnx", "model.onnx.data"] {
        let listed = format!("\"{name}\" =");
        let card = fs::read_to_string(copy.path("1/card.toml")).expect("readable");
        let kept: Vec<&str> = card.lines().filter(|l| !l.starts_with(&listed)).collect();
        fs::write(copy.path("1/card.toml"), kept.join("\n")).expect("written");
        fs::remove_file(copy.path("1").join(name)).expect("removed");
    }
    copy.load(1).expect("an honest one loads");
}
