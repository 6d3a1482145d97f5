//! Folders of taggers that cannot be: refused by what they say, before ONNX Runtime is touched where that is possible.
use crate::{
    folders::{Copy, has},
    world::fixture,
};
use std::fs;

#[test]
fn a_card_whose_names_do_not_go_together_is_refused_by_key() {
    let labels = "labels = [\n    \"genre\",\n    \"artist\",";
    for (from, to, wanted) in [
        ("kind = \"tag\"", "kind = \"embed\"", "kind is \"embed\""),
        ("kind = \"tag\"", "kind = \"generate\"", "kind is \"generate\""),
        ("kind = \"tag\"", "kind = \"tags\"", "unknown variant `tags`"),
        ("[tag]", "[tagg]", "unknown field `tagg`"),
        ("classes = [", "clases = [", "unknown field `clases`"),
        (
            labels,
            "labels = [\n    \"artist\",\n    \"artist\",",
            "[tag] labels names `artist` twice",
        ),
        (
            "\"BookRestaurant\",",
            "\"PlayMusic\",",
            "[tag] classes names `PlayMusic` twice",
        ),
        ("PlayMusic = [", "PlayFilm = [", "\"PlayFilm\" is no class of the model"),
        (
            "PlayMusic = [\n    \"genre\",",
            "PlayMusic = [\n    \"actor\",",
            "\"PlayMusic\" may have `actor`, which is no label",
        ),
        ("max_new_tokens = 0", "max_new_tokens = 5", "decodes nothing"),
        (
            "context_tokens = 32",
            "context_tokens = 0",
            "context_tokens must be 1 or more",
        ),
        (
            "template = \"steps.answer.jinja\"",
            "schema = \"call.schema.json\"",
            "[output.steps] names no template",
        ),
        (
            "[output.steps]\ntemplate = \"steps.answer.jinja\"",
            "",
            "[output.steps] names no template",
        ),
        (
            "template = \"steps.answer.jinja\"",
            "template = \"steps.answer.jinja\"\ngrammar = \"x.lark\"",
            "[output.steps] names a grammar",
        ),
        (
            "[output.steps]",
            "[input.call]\nschema = \"call.schema.json\"\n\n[output.steps]",
            "a tagger without [tag.input] reads text",
        ),
        (
            "template = \"steps.answer.jinja\"",
            "template = \"../x.jinja\"",
            "leaves",
        ),
        (
            "template = \"steps.answer.jinja\"",
            "template = \"card.toml\"",
            "is not listed under [files]",
        ),
        (
            "template = \"steps.answer.jinja\"",
            "template = \"nowhere.jinja\"",
            "is missing",
        ),
    ] {
        let copy = Copy::of("tiny_tag");
        copy.edit("1/card.toml", from, to);
        has(&copy.refused(), &[wanted]);
    }
    let copy = Copy::of("tiny_tag");
    let card = fs::read_to_string(copy.path("1/card.toml")).expect("readable");
    let (before, rest) = card.split_once("labels = [").expect("labels");
    let after = rest
        .split_once(']')
        .expect("an end")
        .1
        .split_once("[output")
        .expect("outputs")
        .1;
    fs::write(
        copy.path("1/card.toml"),
        format!("{before}labels = []\n\n[output{after}"),
    )
    .expect("written");
    has(&copy.refused(), &["[tag] labels for \"tag\""]);
}

#[test]
fn fields_that_are_not_three_of_an_object_are_refused() {
    let input = "text = \"user\"\nbefore = \"system\"\nlabels = \"slots\"";
    for (to, wanted) in [
        ("text = \"user\"\nbefor = \"system\"", "unknown field `befor`"),
        ("before = \"system\"", "missing field `text`"),
        ("text = [\"user\"]", "invalid type: sequence"),
        ("text = \"\"", "[tag.input] names a field \"\""),
        ("text = \"user\"\nlabels = \"\"", "[tag.input] names a field \"\""),
        ("text = \"user\"\nbefore = \"user\"", "[tag.input] names `user` twice"),
        (
            "text = \"user\"\nbefore = \"x\"\nlabels = \"x\"",
            "[tag.input] names `x` twice",
        ),
    ] {
        let copy = Copy::of("tiny_tag_pair");
        copy.edit("1/card.toml", input, to);
        has(&copy.refused(), &[wanted]);
    }
    // What an object must be beyond its fields is said as of any other model, and must be a schema.
    let copy = Copy::of("tiny_tag_pair");
    copy.write("call.input.json", br#"{"type": "objects"}"#);
    copy.edit(
        "1/card.toml",
        "[output.call]",
        "[input.call]\nschema = \"call.input.json\"\n\n[output.call]",
    );
    has(&copy.refused(), &["input schema of task call", "objects"]);
}

#[test]
fn a_template_and_a_tag_table_are_of_taggers_alone() {
    let copy = Copy::of("tiny_decoder");
    copy.edit(
        "1/card.toml",
        "schema = \"output.schema.json\"",
        "schema = \"output.schema.json\"\ntemplate = \"chat_template.jinja\"",
    );
    has(&copy.refused(), &["[output.call] names a template"]);
    for other in ["tiny_decoder", "tiny_classifier", "tiny_embedder"] {
        let copy = Copy::of(other);
        copy.edit("1/card.toml", "[training]", "[tag]\nlabels = [\"x\"]\n\n[training]");
        has(&copy.refused(), &["[tag] labels for \"tag\""]);
    }
}

#[test]
fn a_template_that_cannot_make_an_answer_is_refused_with_its_name() {
    for (source, wanted) in [
        ("{% for x in %}", "does not compile"),
        ("{{ nobody }}", "undefined"),
        ("{{ spans[0].text }}", "of class PlayMusic with each label 0 times"),
        ("{{ class | sideways }}", "sideways"),
        (
            "{% if spans | length > 2 %}{{ raise_exception('too many') }}{% endif %}",
            "too many",
        ),
    ] {
        let copy = Copy::of("tiny_tag");
        copy.write("call.answer.jinja", source.as_bytes());
        has(&copy.refused(), &["call.answer.jinja of tiny_tag@1", wanted]);
    }
}

#[test]
fn a_model_that_does_not_give_what_the_card_says_is_refused_at_load() {
    for (from, to, wanted) in [
        (
            "    \"party_size\",\n]\n\n[tag",
            "    \"party_size\",\n    \"more\",\n]\n\n[tag",
            "tag_logits [2, 2, 9]",
        ),
        (
            "    \"BookRestaurant\",",
            "    \"BookRestaurant\",\n    \"More\",",
            "class_logits [2, 2]",
        ),
    ] {
        let copy = Copy::of("tiny_tag");
        copy.edit("1/card.toml", from, to);
        let told = copy.load(1).expect_err("refused").to_string();
        has(&told, &["model.onnx of tiny_tag@1", wanted]);
    }
    let copy = Copy::of("tiny_tag");
    copy.write(
        "model.onnx",
        &fs::read(fixture("tiny_embedder/1/model.onnx")).expect("readable"),
    );
    has(
        &copy.load(1).expect_err("refused").to_string(),
        &["no output of the names [\"tag_logits\", \"logits\"]"],
    );
    // A token that the model's tables do not have.
    let copy = Copy::of("tiny_tag");
    let tokenizer = fs::read_to_string(copy.path("1/tokenizer.json")).expect("readable");
    let more = tokenizer.replacen("\"vocab\": {", "\"vocab\": {\n      \"late\": 500,", 1);
    assert_ne!(tokenizer, more);
    copy.write("tokenizer.json", more.as_bytes());
    has(
        &copy.load(1).expect_err("refused").to_string(),
        &["two texts of tokens up to 500"],
    );
}
