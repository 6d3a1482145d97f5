//! `shoal-loadtest engine`: the slot engine in this process, beside other loops over the same folder.
//!
//! A round measures every figure once, ours and theirs right after each other and in turn first: the machine drifts from minute to minute, and what
//! drifts together cancels in the ratio. A round before the first warms everything up, and compares what was said token by token.
use super::{
    Bench,
    figure::Name,
    in_turn,
    inside::{Decoded, Inside},
    peer::{Answer, Peer, rate},
    report::Report,
    runtime,
    stats::{median, quantile},
    workload::{ROWS, schema, skewed_lengths, text},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoal_specialist::{engine::Done, folder::Form};

/// Tokens of a prompt where decoding is measured: enough to be one, few enough for decoding to be what takes the time.
const PROMPT: usize = 32;
/// Where rows against one are compared, prefill is to be next to nothing.
const SHORT_PROMPT: usize = 8;
/// New tokens of one sequence.
const NEW: usize = 128;
/// The kept prefix, and what differs behind it.
const PREFIX: usize = 512;
const TAIL: usize = 16;
/// Rows that decode while prompts arrive: half of the slots, and of the rest one for what arrives.
const DECODING: usize = ROWS / 2;
/// Prompts that arrive beside them, more than there is time for.
const ARRIVING: usize = 256;
/// First tokens a round: one run of a prefill is too short to be told from the machine's noise.
const FIRST_TOKENS: usize = 5;

/// Seconds that one sequence is decoded for at least, of so many batches as that takes: the texts of a small model end in a fiftieth of it, and what a round
/// said was the machine's noise.
const ENOUGH: f64 = 0.25;
/// Batches at most.
const BATCHES: usize = 16;

/// What a round works with.
struct Stand<'a> {
    bench: &'a Bench,
    ours: Inside,
    genai: Option<Peer>,
    bare: Option<Peer>,
    report: Report,
    /// 0 warms up.
    round: usize,
    /// How many a measurement takes, one after the other.
    batches: usize,
}

/// Measures; gives the object.
///
/// # Errors
/// When something is missing, or a side has no answer.
pub(crate) async fn run(bench: &Bench) -> Result<serde_json::Value> {
    let ours = Inside::load(&bench.model, bench.threads).await?;
    let folder = ours.version_folder()?;
    let [single, still, engine, rows] = [
        Name::SingleVsGenai,
        Name::Skewed16VsGenaiStatic,
        Name::Skewed16VsGenaiEngine,
        Name::Rows16VsBare,
    ]
    .map(|name| bench.wants(name));
    let mut report = Report::default();
    report.ours(runtime::version().await?);
    let genai = if single || still || engine {
        let peer = Peer::start("onnxruntime-genai", "venv", "genai.py", &folder, bench.threads, &[]).await?;
        report.peer("genai", peer.settings());
        Some(peer)
    } else {
        None
    };
    let bare = if rows {
        let peer = Peer::start("bare ONNX Runtime", "venv", "bare.py", &folder, bench.threads, &[]).await?;
        report.peer("bare", peer.settings());
        Some(peer)
    } else {
        None
    };
    let model = ours.identity();
    let batches = batches(&ours).await?;
    report.fact("batches of a measurement", json!(batches));
    let mut stand = Stand {
        bench,
        ours,
        genai,
        bare,
        report,
        round: 0,
        batches,
    };
    let bar = bench.progress();
    for round in 0..=bench.rounds {
        stand.round = round;
        stand.measure().await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(stand
        .report
        .to_json(bench.machine.clone(), bench.settings(&model, ROWS)))
}

/// How many batches of one sequence take [`ENOUGH`]; the first that is decoded warms up.
async fn batches(ours: &Inside) -> Result<usize> {
    let prompts = ours.alphabet()?.prompts(0, "batches", BATCHES, PROMPT);
    let each: Vec<Vec<Vec<u32>>> = prompts.into_iter().map(|prompt| vec![prompt]).collect();
    ours.decode(&each[0], &[NEW]).await?;
    let all = ours.decode_all(&each, &[NEW]).await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 1 to 16"
    )]
    Ok((ENOUGH * BATCHES as f64 / all.seconds)
        .ceil()
        .clamp(1.0, BATCHES as f64) as usize)
}

impl Stand<'_> {
    /// Other prompts for each batch of the round.
    fn prompts(&self, purpose: &str, rows: usize, tokens: usize) -> Result<Vec<Vec<Vec<u32>>>> {
        let all = self
            .ours
            .alphabet()?
            .prompts(self.round, purpose, rows * self.batches, tokens);
        Ok(all.chunks(rows).map(<[_]>::to_vec).collect())
    }

    async fn measure(&mut self) -> Result<()> {
        if self.bench.wants(Name::SingleVsGenai) {
            self.single().await?;
        }
        if self.bench.wants(Name::Skewed16VsGenaiStatic) || self.bench.wants(Name::Skewed16VsGenaiEngine) {
            self.skewed().await?;
        }
        if self.bench.wants(Name::Rows16VsBare) || self.bench.wants(Name::StepOverhead) {
            self.rows().await?;
        }
        if self.bench.wants(Name::ConstrainedVsFree) {
            self.constrained().await?;
        }
        if self.bench.wants(Name::PrefixFirstToken) {
            self.prefix().await?;
        }
        if self.bench.wants(Name::InterTokenP99BesidePrompts) {
            self.beside_prompts().await?;
        }
        Ok(())
    }

    async fn single(&mut self) -> Result<()> {
        let batches = self.prompts("single", 1, PROMPT)?;
        let genai = self.genai.as_mut().context("started above")?;
        let requests = batches
            .iter()
            .map(|prompts| json!({"prompts": prompts, "lengths": [NEW]}));
        let (ours, theirs) = in_turn(
            self.round,
            self.ours.decode_all(&batches, &[NEW]),
            genai.ask_all("generator", requests),
        )
        .await?;
        self.compare(Name::SingleVsGenai, "single genai", &ours, &theirs);
        self.detail("single ours tokens/s", rate(&ours.tokens, ours.seconds));
        Ok(())
    }

    async fn skewed(&mut self) -> Result<()> {
        let (lengths, round) = (skewed_lengths(), self.round);
        let batches = self.prompts("skewed", ROWS, PROMPT)?;
        let requests = || {
            let of = |prompts: &Vec<Vec<u32>>| json!({"prompts": prompts, "lengths": lengths});
            batches.iter().map(of).collect::<Vec<_>>()
        };
        let genai = self.genai.as_mut().context("started above")?;
        let (still, engine) = (
            self.bench.wants(Name::Skewed16VsGenaiStatic),
            self.bench.wants(Name::Skewed16VsGenaiEngine),
        );
        let theirs = async {
            let mut said = (None, None);
            if still {
                said.0 = Some(genai.ask_all("generator", requests()).await?);
            }
            if engine {
                said.1 = Some(genai.ask_all("engine", requests()).await?);
            }
            Ok(said)
        };
        let (ours, (still, engine)) = in_turn(round, self.ours.decode_all(&batches, &lengths), theirs).await?;
        if let Some(theirs) = still {
            self.compare(Name::Skewed16VsGenaiStatic, "skewed16 genai static", &ours, &theirs);
        }
        if let Some(theirs) = engine {
            self.compare(Name::Skewed16VsGenaiEngine, "skewed16 genai engine", &ours, &theirs);
            self.report
                .fact("skewed16 genai engine rows at once", theirs.object["width"].clone());
        }
        self.detail("skewed16 ours tokens/s", rate(&ours.tokens, ours.seconds));
        Ok(())
    }

    /// One row and 16, ours and bare; and what of ours was not ONNX Runtime's own.
    async fn rows(&mut self) -> Result<()> {
        let many = self.prompts("rows", ROWS, SHORT_PROMPT)?;
        let one: Vec<Vec<Vec<u32>>> = many.iter().map(|prompts| prompts[..1].to_vec()).collect();
        let positions = self.ours.positions()?;
        let ours = async {
            let one = self.ours.decode_all(&one, &[NEW]).await?;
            Ok((one, self.ours.decode_all(&many, &[NEW; ROWS]).await?))
        };
        let bare = self.bare.as_mut();
        let theirs = async {
            let Some(bare) = bare else { return Ok(None) };
            let request = |prompts: &Vec<Vec<u32>>| json!({"prompts": prompts, "new": NEW, "positions": positions});
            let one = bare.ask_all("rows", one.iter().map(request)).await?;
            Ok(Some((one, bare.ask_all("rows", many.iter().map(request)).await?)))
        };
        let ((one, many), theirs) = in_turn(self.round, ours, theirs).await?;
        let [one_rate, many_rate] = [&one, &many].map(|d| rate(&d.tokens, d.seconds));
        let [one_over, many_over] = [&one, &many].map(|d| 1.0 - d.inside / d.seconds);
        self.detail("rows1 ours tokens/s", one_rate);
        self.detail("rows16 ours tokens/s", many_rate);
        self.detail("step_overhead of one row", one_over);
        self.figure(Name::StepOverhead, many_over);
        if let Some((their_one, their_many)) = theirs {
            self.figure(
                Name::Rows16VsBare,
                (many_rate / one_rate) / (their_many.rate() / their_one.rate()),
            );
            self.detail("rows1 bare tokens/s", their_one.rate());
            self.detail("rows16 bare tokens/s", their_many.rate());
            for (name, answer) in [("rows1", &their_one), ("rows16", &their_many)] {
                let inside = answer.object["inside"].as_f64().unwrap_or(f64::NAN);
                self.detail(
                    &format!("{name} bare, share outside ONNX Runtime"),
                    1.0 - inside / answer.seconds,
                );
            }
            // The bare loop knows no end: a shipped model's texts may, and then only what both said is compared.
            let same = many
                .tokens
                .iter()
                .zip(&their_many.tokens)
                .all(|(a, b)| b.starts_with(a));
            self.report.always("rows16 greedy tokens equal the bare loop's", same);
        }
        Ok(())
    }

    async fn constrained(&mut self) -> Result<()> {
        for (rows, what) in [(1, "one row"), (ROWS, "16 rows")] {
            let texts: Vec<String> = (0..rows).map(|row| text(self.round * ROWS + row)).collect();
            let (held, free) = (Form::Schema(schema()), Form::Free);
            let (held, free) = in_turn(
                self.round,
                self.ours.answer(&texts, NEW, &held),
                self.ours.answer(&texts, NEW, &free),
            )
            .await?;
            let count = |done: &[Done]| done.iter().map(|d| d.tokens.len()).sum::<usize>();
            self.report.check(
                "constrained and free decode as many tokens",
                count(&held) == count(&free),
            );
            let ratio = decoding_rate(&held) / decoding_rate(&free);
            if rows == 1 {
                self.figure(Name::ConstrainedVsFree, ratio);
            } else {
                self.detail("constrained_vs_free of 16 rows", ratio);
            }
            self.detail(&format!("constrained, {what}, tokens/s a row"), decoding_rate(&held));
            self.detail(&format!("free, {what}, tokens/s a row"), decoding_rate(&free));
        }
        Ok(())
    }

    async fn prefix(&mut self) -> Result<()> {
        let alphabet = self.ours.alphabet()?;
        ensure!(
            self.ours.positions()? > PREFIX + TAIL + 1,
            "{} has no room for a prefix of {PREFIX} tokens: leave prefix_first_token out with --only",
            self.ours.identity()
        );
        let fresh = alphabet.prompts(self.round, "fresh", FIRST_TOKENS, PREFIX + TAIL);
        let tails = alphabet.prompts(self.round, "tails", FIRST_TOKENS + 1, TAIL);
        let prefix = alphabet.prompts(self.round, "kept", 1, PREFIX).concat();
        // The earlier request: what it leaves behind may be kept.
        self.ours
            .first_token(&[prefix.clone(), tails[FIRST_TOKENS].clone()].concat())
            .await?;
        let (mut kept_seconds, mut fresh_seconds) = (Vec::new(), Vec::new());
        for (i, (fresh, tail)) in fresh.iter().zip(&tails).enumerate() {
            let kept = [prefix.clone(), tail.clone()].concat();
            let (kept, fresh) = (self.ours.first_token(&kept), self.ours.first_token(fresh));
            let (kept, fresh) = in_turn(self.round + i, kept, fresh).await?;
            kept_seconds.push(kept);
            fresh_seconds.push(fresh);
        }
        let (kept, fresh) = (median(&kept_seconds), median(&fresh_seconds));
        self.figure(Name::PrefixFirstToken, kept / fresh);
        self.detail("prefix kept, first token ms", kept * 1e3);
        self.detail("prefix new, first token ms", fresh * 1e3);
        Ok(())
    }

    async fn beside_prompts(&mut self) -> Result<()> {
        let alphabet = self.ours.alphabet()?;
        // What fits, where a context is shorter; none has the beginning of another.
        let long = PREFIX.min(self.ours.positions()? - 1);
        let batches = self.prompts("decoding", DECODING, PROMPT)?;
        let prompts = alphabet.prompts(self.round, "arriving", ARRIVING, long);
        let gaps = |prompts: Vec<Vec<u32>>| {
            let (ours, batches) = (&self.ours, &batches);
            async move {
                let (mut gaps, mut read, mut from) = (Vec::new(), 0, 0);
                for rows in batches {
                    let (more, reads) = ours.gaps(rows, NEW, prompts.get(from..).unwrap_or_default()).await?;
                    gaps.extend(more);
                    read += reads;
                    // Not the one that was being read when the rows ended either: a part of it may be kept.
                    from += reads + 1;
                }
                Ok((gaps, read))
            }
        };
        let ((alone, _), (beside, read)) = in_turn(self.round, gaps(Vec::new()), gaps(prompts)).await?;
        if read == 0 {
            // Rows that were done before a prompt was read were beside nothing, and no figure is better than one of that.
            let round = self.round as f64;
            self.detail(
                "left out of inter_token_p99_beside_prompts, for no prompt was read beside it: round",
                round,
            );
            return Ok(());
        }
        self.figure(
            Name::InterTokenP99BesidePrompts,
            quantile(&beside, 0.99) / quantile(&alone, 0.99),
        );
        self.detail(
            "inter-token beside prompts against alone, p50",
            quantile(&beside, 0.5) / quantile(&alone, 0.5),
        );
        for (name, gaps) in [("alone", &alone), ("beside prompts", &beside)] {
            self.detail(&format!("inter-token {name}, p50 ms"), quantile(gaps, 0.5) * 1e3);
            self.detail(&format!("inter-token {name}, p99 ms"), quantile(gaps, 0.99) * 1e3);
        }
        #[expect(clippy::cast_precision_loss, reason = "prompts are few")]
        self.detail("prompts read beside decoding", read as f64);
        Ok(())
    }

    fn compare(&mut self, name: Name, peer: &str, ours: &Decoded, theirs: &Answer) {
        self.figure(name, rate(&ours.tokens, ours.seconds) / theirs.rate());
        self.detail(&format!("{peer} tokens/s"), theirs.rate());
        let counts = |rows: &[Vec<u32>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
        self.report.check(
            &format!("{peer} decoded as many tokens"),
            counts(&ours.tokens) == counts(&theirs.tokens),
        );
        // Where two tokens are nearly as likely, other kernels may round to the other one: the work is the same.
        self.report
            .always(&format!("{peer} said the same tokens"), ours.tokens == theirs.tokens);
    }

    /// Not of the round that warms up, and not of a figure that was not asked for.
    fn figure(&mut self, name: Name, value: f64) {
        if self.round > 0 && self.bench.wants(name) {
            self.report.figure(name, value);
        }
    }

    fn detail(&mut self, name: &str, value: f64) {
        if self.round > 0 {
            self.report.detail(name, value);
        }
    }
}

/// Tokens a second and row while decoding: after the first token, so that compiling a form is not in it (a specialist compiles its tasks' forms once).
#[expect(clippy::cast_precision_loss, reason = "tokens are few")]
fn decoding_rate(done: &[Done]) -> f64 {
    let rates: Vec<f64> = done
        .iter()
        .map(|d| d.tokens.len().saturating_sub(1) as f64 / d.timings.decode.as_secs_f64())
        .collect();
    median(&rates)
}
