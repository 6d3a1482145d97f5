//! A chat completion's request, as far as it is read; clients send many more fields.
use crate::{error::Error, server::single::Asked};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_proto::v1;

#[derive(Debug, Deserialize)]
pub(super) struct Body {
    pub(super) model: String,
    messages: Vec<Turn>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
    #[serde(default)]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    response_format: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    role: String,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Roles that a template knows.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

impl Body {
    pub(super) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage)
    }

    fn messages(&self) -> Result<Vec<v1::Message>, Error> {
        if self.messages.is_empty() {
            return Err(Error::invalid("messages", "give at least one"));
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(Error::invalid("n", "one answer a request: send more requests"));
        }
        let message = |(i, turn): (usize, &Turn)| {
            if !ROLES.contains(&turn.role.as_str()) {
                return Err(Error::invalid(
                    format!("messages[{i}].role"),
                    format!("must be one of {ROLES:?}"),
                ));
            }
            let content = match &turn.content {
                Content::Text(text) => text.clone(),
                Content::Parts(parts) => parts.iter().filter_map(|p| p.text.as_deref()).collect(),
            };
            Ok(v1::Message {
                role: turn.role.clone(),
                content,
            })
        };
        self.messages.iter().enumerate().map(message).collect()
    }

    /// As a question to a task: one message is its input, more are a conversation.
    pub(super) fn asked(self) -> Result<Asked, Error> {
        let messages = self.messages()?;
        let schema = match self.response_format.as_ref().map(|f| (f["type"].as_str(), f)) {
            None | Some((Some("text"), _)) => String::new(),
            Some((Some("json_object"), _)) => json!({"type": "object"}).to_string(),
            Some((Some("json_schema"), format)) => format["json_schema"]["schema"].to_string(),
            Some(_) => {
                let said = "its type is none of `text`, `json_object` and `json_schema`";
                return Err(Error::invalid("response_format", said));
            }
        };
        let text = messages.last().map(|m| m.content.clone()).unwrap_or_default();
        Ok(Asked {
            task: self.model,
            text,
            conversation: (messages.len() > 1).then_some(messages),
            sampling: v1::Sampling {
                max_tokens: self.max_completion_tokens.or(self.max_tokens),
                temperature: self.temperature,
                top_p: self.top_p,
                seed: self.seed,
                stop: match self.stop {
                    None => Vec::new(),
                    Some(OneOrMany::One(stop)) => vec![stop],
                    Some(OneOrMany::Many(stops)) => stops,
                },
                ..v1::Sampling::default()
            },
            output_schema_json: schema,
        })
    }

    /// As a goal: one message of the user's is a goal in words, more are the turns of a conversation.
    pub(super) fn goal(self) -> Result<v1::Goal, Error> {
        let said = self
            .messages()?
            .into_iter()
            .filter(|m| m.role == "user")
            .map(|m| m.content);
        let mut turns: Vec<String> = said.collect();
        Ok(match turns.len() {
            0 => {
                return Err(Error::invalid(
                    "messages",
                    "a goal is what the user says: give a message of role `user`",
                ));
            }
            1 => v1::Goal {
                text: turns.remove(0),
                ..v1::Goal::default()
            },
            _ => v1::Goal {
                turns,
                ..v1::Goal::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(messages: Value, more: Value) -> Body {
        let mut whole = json!({"model": "tool_call", "messages": messages});
        if let (Value::Object(whole), Value::Object(more)) = (&mut whole, more) {
            whole.extend(more);
        }
        serde_json::from_value(whole).expect("a body")
    }

    #[test]
    fn one_message_is_an_input_and_more_are_a_conversation() {
        let one = body(
            json!([{"role": "user", "content": [{"type": "text", "text": "play "}, {"text": "jazz"}]}]),
            json!({"max_tokens": 9, "stop": "x"}),
        );
        let asked = one.asked().expect("asked");
        assert_eq!(
            (
                asked.text.as_str(),
                asked.conversation.is_none(),
                asked.sampling.max_tokens
            ),
            ("play jazz", true, Some(9))
        );
        assert_eq!(asked.sampling.stop, ["x"]);
        let two = body(
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]),
            json!({"response_format": {"type": "json_object"}}),
        );
        let asked = two.asked().expect("asked");
        assert_eq!(asked.conversation.map(|c| c.len()), Some(2));
        assert_eq!(asked.output_schema_json, r#"{"type":"object"}"#);
    }

    #[test]
    fn a_goal_is_what_the_user_said() {
        let user = |text: &str| json!({"role": "user", "content": text});
        let words = body(json!([{"role": "system", "content": "s"}, user("jazz")]), json!({}))
            .goal()
            .expect("goal");
        assert_eq!((words.text.as_str(), words.turns.len()), ("jazz", 0));
        let turns = body(
            json!([user("a"), {"role": "assistant", "content": "b"}, user("c")]),
            json!({}),
        )
        .goal()
        .expect("goal");
        assert_eq!(turns.turns, ["a", "c"]);
        assert!(
            body(json!([{"role": "system", "content": "s"}]), json!({}))
                .goal()
                .is_err()
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_field() {
        let user = json!([{"role": "user", "content": "x"}]);
        for (messages, more, field) in [
            (json!([]), json!({}), "messages"),
            (json!([{"role": "tool", "content": "x"}]), json!({}), "messages[0].role"),
            (user.clone(), json!({"n": 2}), "n"),
            (user, json!({"response_format": {"type": "xml"}}), "response_format"),
        ] {
            let said = body(messages, more).asked().expect_err(field).to_string();
            assert!(said.starts_with(&format!("{field}:")), "{said}");
        }
    }
}
