//! What an author of a grammar template builds on: how spans, terminals and intersections of llguidance behave over the tiny
//! decoder's tokens. Each claim of `constrain::template`'s docs that is not about templates has its test here.
use crate::world::fixture;
use shoal_specialist::{
    constrain::{Compiler, Grammar},
    folder::Form,
    vocabulary::Vocabulary,
};
use tokenizers::Tokenizer;

struct Language {
    compiler: Compiler,
    vocabulary: Vocabulary,
}

impl Language {
    fn new() -> Self {
        let json = std::fs::read_to_string(fixture("tiny_decoder").join("1/tokenizer.json")).expect("readable");
        let vocabulary = Vocabulary::from_tokenizer_json(&json).expect("read");
        let tokenizer = Tokenizer::from_bytes(&json).expect("a tokenizer");
        let compiler = Compiler::new(&vocabulary, tokenizer, &[0], vocabulary.pieces().len()).expect("usable");
        Self { compiler, vocabulary }
    }

    /// Whether some tokens of `text` and then end-of-sequence pass the grammar.
    fn has(&self, lark: &str, text: &str) -> bool {
        let grammar = self.compiler.compile(&Form::Lark(lark.into()));
        let grammar = grammar.unwrap_or_else(|e| panic!("{lark}: {e}")).expect("a grammar");
        self.walks(grammar, text.as_bytes())
    }

    fn walks(&self, mut grammar: Grammar, rest: &[u8]) -> bool {
        let Ok(mask) = grammar.mask() else { return false };
        if rest.is_empty() {
            return mask.is_allowed(0);
        }
        let pieces = self.vocabulary.pieces().iter().enumerate();
        let fits =
            pieces.filter(|(_, piece)| !piece.special && !piece.bytes.is_empty() && rest.starts_with(&piece.bytes));
        fits.filter(|(id, _)| mask.is_allowed(*id as u32)).any(|(id, piece)| {
            let mut next = grammar.begin();
            next.accept(id as u32).is_ok() && self.walks(next, &rest[piece.bytes.len()..])
        })
    }

    #[track_caller]
    fn expect(&self, lark: &str, inside: &[&str], outside: &[&str]) {
        for text in inside {
            assert!(self.has(lark, text), "{text:?} should be in {lark}");
        }
        for text in outside {
            assert!(!self.has(lark, text), "{text:?} should not be in {lark}");
        }
    }
}

#[test]
fn a_span_is_any_run_of_whole_chunks_and_may_be_empty_or_begin_with_a_blank() {
    Language::new().expect(
        r#"start: %regex { "substring_words": "meet at U.S., a_b-2 (now)" }"#,
        &[
            "", "meet", "meet at", " at ", "a_b", "a_b-2", "-", "U", "U.S.,", " (", "2 (now)",
        ],
        &["mee", "eet", "meet U", "U.S.", "a_", "now) "],
    );
}

#[test]
fn an_intersection_forbids_the_empty_span_and_blanks_at_its_ends() {
    Language::new().expect(
        "start: SPAN\nSPAN: WORDS & /[^ ](.*[^ ])?/\nWORDS: %regex { \"substring_words\": \"play some jazz\" }\n",
        &["play", "some jazz", "play some jazz"],
        &["", " ", " some", "play ", "som"],
    );
}

#[test]
fn chars_cut_everywhere_and_chunks_where_the_list_says() {
    let language = Language::new();
    language.expect(
        r#"start: %regex { "substring_chars": "Zoë's" }"#,
        &["", "oë", "'s", "Zoë's"],
        &["Zo's", "Zoes"],
    );
    language.expect(
        r#"start: %regex { "substring_chunks": ["on ", "time", "!"] }"#,
        &["", "on ", "on time", "time!"],
        &["on", "n time"],
    );
}

#[test]
fn a_terminal_that_may_hold_its_own_end_swallows_it_and_one_that_holds_its_quotes_does_not() {
    let language = Language::new();
    let words = r#"WORDS: %regex { "substring_words": "a \"b\" c" }"#;
    // After `a ` the text goes on with a quotation mark, so the terminal takes the closing one for it.
    language.expect(
        &format!("start: \"<\" WORDS \"\\\" >\"\n{words}\n"),
        &["<a\" >"],
        &["<a \" >"],
    );
    language.expect(
        &format!("start: SPAN\nSPAN: \"<\" WORDS \"\\\" >\"\n{words}\n"),
        &["<a\" >", "<a \" >"],
        &["<b >"],
    );
}

#[test]
fn escaped_text_closes_at_a_bare_quotation_mark_wherever_the_quotes_stand() {
    let language = Language::new();
    // say "hi" \ now
    let words = r#"WORDS: %regex { "substring_words": "say \\\"hi\\\" \\\\ now" }"#;
    let inside = [r#""say""#, r#""\"hi\"""#, r#""hi\" \\ now""#, r#""""#];
    for lark in [
        "start: \"\\\"\" WORDS \"\\\"\"\n",
        "start: VALUE\nVALUE: \"\\\"\" WORDS \"\\\"\"\n",
    ] {
        language.expect(&format!("{lark}{words}\n"), &inside, &[r#""hi"now""#, r#""hi\""#]);
    }
}

#[test]
fn a_newline_in_escaped_text_cuts_behind_its_backslash_and_an_intersection_keeps_the_answer_json() {
    let language = Language::new();
    // one, newline, two
    let words = r#"WORDS: %regex { "substring_words": "one\\ntwo" }"#;
    let naive = format!("start: VALUE\nVALUE: \"\\\"\" WORDS \"\\\"\"\n{words}\n");
    // The first is no JSON, and there is no way to say "two".
    language.expect(&naive, &[r#""one\""#, r#""ntwo""#, r#""one\ntwo""#], &[r#""two""#]);
    let held =
        format!("start: VALUE\nVALUE: (\"\\\"\" WORDS \"\\\"\") & /\"([^\"\\\\]|\\\\[\"\\\\\\/bfnrtu])*\"/\n{words}\n");
    language.expect(&held, &[r#""one""#, r#""one\ntwo""#, r#""""#], &[r#""one\""#]);
}

#[test]
fn what_is_json_in_a_grammar_is_read_as_json_whatever_it_holds() {
    let language = Language::new();
    let text = "} | \"x\" // # %json /a/ \\ é";
    let json = serde_json::to_string(text).expect("text");
    language.expect(
        &format!("start: {json} | %regex {{ \"substring_chars\": {json} }}"),
        &[text, "// #", "%json", "é"],
        &["x x"],
    );
}

#[test]
fn a_name_without_alternatives_is_the_empty_text() {
    Language::new().expect("start: \"(\" NAME \")\"\nNAME: \n", &["()"], &["(a)"]);
}
