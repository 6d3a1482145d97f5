//! Templates against a committed list of what Python's jinja2 makes of them (`tests/reference/templates.py`), and the ids that
//! Python's tokenizers gives (`tests/reference/split.py`): what a model is trained on is what it is served.
use serde_json::Value;
use shoal_specialist::{
    prompt::{self, Prompt, Templates},
    vocabulary::Vocabulary,
};
use tokenizers::Tokenizer;

#[test]
fn every_construct_that_a_template_may_use_renders_as_pythons_jinja_does() {
    let list: Vec<Value> = serde_json::from_str(include_str!("../reference/templates.json")).expect("committed");
    assert!(list.len() > 80, "{}", list.len());
    let mut wrong = Vec::new();
    for row in list {
        let prompt = match &row["content"] {
            Value::Object(map) => Prompt::Json(map.clone()),
            text => Prompt::Text(text.as_str().expect("text").to_owned()),
        };
        let template = row["template"].as_str().expect("text");
        let mut templates = Templates::compile(String::new(), "<s>".into(), "</s>".into()).expect("compiles");
        let added = templates.add("x.lark.jinja", template);
        let rendered = added.and_then(|()| templates.render("x.lark.jinja", &prompt, "plan"));
        let (rendered, wanted) = (
            rendered.map_err(|e| format!("{e:#}")),
            row["rendered"].as_str().expect("text"),
        );
        if rendered.as_deref() != Ok(wanted) {
            wrong.push(format!(
                "{template} of {}\n here {rendered:?}\n there {wanted:?}",
                row["content"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_split_and_byte_level_tokenizer_gives_the_ids_that_python_gives() {
    for (tokenizer, ids) in [
        (
            include_str!("../reference/split.tokenizer.json"),
            include_str!("../reference/split.ids.json"),
        ),
        (
            include_str!("../reference/split_llama.tokenizer.json"),
            include_str!("../reference/split_llama.ids.json"),
        ),
    ] {
        let vocabulary = Vocabulary::from_tokenizer_json(tokenizer).expect("a family that is read");
        let tokenizer = Tokenizer::from_bytes(tokenizer).expect("a tokenizer");
        let list: Vec<Value> = serde_json::from_str(ids).expect("committed");
        assert!(list.len() > 30);
        for row in list {
            let text = row["text"].as_str().expect("text");
            let wanted: Vec<u32> = serde_json::from_value(row["ids"].clone()).expect("ids");
            let ids = prompt::encode(&tokenizer, text).expect("encodes");
            assert_eq!(ids, wanted, "{text:?}");
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|id| vocabulary.piece(*id).expect("known").bytes.clone())
                .collect();
            assert_eq!(
                String::from_utf8(bytes).expect("whole"),
                text,
                "its pieces are the text again"
            );
        }
    }
}
