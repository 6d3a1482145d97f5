//! `route` and `compose`: a word, and sentences.
use super::{Figures, Malformed, Norm, Row, Share, bleu::Bleu, norm};
use crate::eval::{norm::text, pyjson::Value};

/// Accuracy in scope, and how many of the rest are recognised as out of scope.
pub(super) fn route(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut inside, mut outside) = (Share::default(), Share::default());
    let oos = Value::Str("oos".into());
    for row in rows {
        let target = row.target()?;
        if target.equals(&oos) {
            outside.add(row.output.equals(&oos));
        } else {
            inside.add(target.equals(&row.output));
        }
    }
    Ok(vec![("score", inside.value()), ("oos_recall", outside.value())])
}

/// Every value said, among the replies that have one to say; and how close all of them come to what people said.
pub(super) fn compose(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut model, mut people, mut bleu) = (Share::default(), Share::default(), Bleu::default());
    for row in rows {
        let values = spoken(row)?;
        let Value::Str(human) = row.target()? else {
            return Err(row.malformed("target"));
        };
        let reply = if let Value::Str(s) = &row.output { s } else { "" };
        bleu.add(reply, human);
        if values.is_empty() {
            continue;
        }
        let (reply, human) = (text(reply), text(human));
        model.add(values.iter().all(|v| reply.contains(v)));
        people.add(values.iter().all(|v| human.contains(v)));
    }
    let figures = [
        ("score", model.value()),
        ("people", people.value()),
        ("bleu", bleu.value()),
    ];
    Ok(figures.into())
}

/// The values that a reply must name.
fn spoken(row: &Row) -> Result<Vec<String>, Malformed> {
    let acts = row
        .field("input")?
        .get("acts")
        .ok_or_else(|| row.malformed("input.acts"))?;
    let Value::List(acts) = acts else {
        return Err(row.malformed("input.acts"));
    };
    let mut out = Vec::new();
    for act in acts {
        let kind = act.get("act").ok_or_else(|| row.malformed("input.acts[].act"))?;
        let Some(Value::List(values)) = act.get("values") else {
            continue;
        };
        if *kind == Value::Str("OFFER_INTENT".into()) {
            continue;
        }
        for value in values {
            if matches!(value, Value::Str(s) if matches!(s.as_str(), "True" | "False" | "None" | "dontcare")) {
                continue;
            }
            match norm(value) {
                Norm::Text(t) => out.push(t),
                _ => return Err(row.malformed("input.acts[].values")),
            }
        }
    }
    Ok(out)
}
