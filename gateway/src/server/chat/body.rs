//! A chat completion's request, as a task's question or as a goal.
use crate::{error::Error, server::single::Asked};
use shoal_kit::openai::{Format, Request};
use shoal_proto::v1;

/// Roles that a template knows.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

fn messages(request: &Request) -> Result<Vec<v1::Message>, Error> {
    let messages = request.messages()?;
    if messages.is_empty() {
        return Err(Error::invalid("messages", "give at least one"));
    }
    if let Some(i) = messages.iter().position(|m| !ROLES.contains(&m.role.as_str())) {
        return Err(Error::invalid(
            format!("messages[{i}].role"),
            format!("must be one of {ROLES:?}"),
        ));
    }
    Ok(messages)
}

/// As a question to a task: one message is its input, more are a conversation.
pub(super) fn asked(request: Request) -> Result<Asked, Error> {
    let messages = messages(&request)?;
    let output_schema_json = match request.format()? {
        Format::Unsaid | Format::Text => String::new(),
        Format::Schema(schema) => schema.to_string(),
    };
    Ok(Asked {
        sampling: request.sampling(),
        task: request.model,
        text: messages.last().map(|m| m.content.clone()).unwrap_or_default(),
        conversation: (messages.len() > 1).then_some(messages),
        output_schema_json,
    })
}

/// As a goal: one message of the user's is a goal in words, more are the turns of a conversation.
pub(super) fn goal(request: &Request) -> Result<v1::Goal, Error> {
    let said = messages(request)?.into_iter().filter(|m| m.role == "user");
    let mut turns: Vec<String> = said.map(|m| m.content).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(messages: Value, more: Value) -> Request {
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
        let question = asked(one).expect("asked");
        assert_eq!(
            (
                question.text.as_str(),
                question.conversation.is_none(),
                question.sampling.max_tokens
            ),
            ("play jazz", true, Some(9))
        );
        assert_eq!(question.sampling.stop, ["x"]);
        let two = body(
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]),
            json!({"response_format": {"type": "json_object"}}),
        );
        let question = asked(two).expect("asked");
        assert_eq!(question.conversation.map(|c| c.len()), Some(2));
        assert_eq!(question.output_schema_json, r#"{"type":"object"}"#);
    }

    #[test]
    fn a_goal_is_what_the_user_said() {
        let user = |text: &str| json!({"role": "user", "content": text});
        let words = goal(&body(
            json!([{"role": "system", "content": "s"}, user("jazz")]),
            json!({}),
        ))
        .expect("goal");
        assert_eq!((words.text.as_str(), words.turns.len()), ("jazz", 0));
        let turns = goal(&body(
            json!([user("a"), {"role": "assistant", "content": "b"}, user("c")]),
            json!({}),
        ))
        .expect("goal");
        assert_eq!(turns.turns, ["a", "c"]);
        assert!(goal(&body(json!([{"role": "system", "content": "s"}]), json!({}))).is_err());
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
            let said = asked(body(messages, more)).expect_err(field).to_string();
            assert!(said.starts_with(&format!("{field}:")), "{said}");
        }
    }
}
