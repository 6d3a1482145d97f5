//! A specialist inside this process: the engine without a wire.
use super::{
    runtime,
    workload::{Alphabet, ROWS},
};
use anyhow::{Context as _, Result, anyhow};
use futures::future::try_join_all;
use shoal_kit::config;
use shoal_specialist::{
    engine::{Done, Engine, Event, Request, Ticket, queue::Urgency},
    folder::{Folder, Form},
    prompt::Prompt,
    sampling::{Sampling, calibration::Calibration},
    specialist::{Ask, Specialist},
};
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tracing::Span;

/// A loaded decoder.
#[derive(Debug)]
pub(crate) struct Inside {
    specialist: Specialist,
}

/// Rows that were decoded together.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// From the first submission to the last answer.
    pub(crate) seconds: f64,
    /// Of those, inside ONNX Runtime's own runs.
    pub(crate) inside: f64,
    /// Tokens of each row.
    pub(crate) tokens: Vec<Vec<u32>>,
}

/// What a specialist is set to here, in this process and in one of its own.
pub(crate) fn settings(threads: usize) -> config::Specialist {
    config::Specialist {
        slots: ROWS,
        intra_op_threads: threads,
        ..config::Specialist::default()
    }
}

impl Inside {
    /// Checks and loads a decoder's folder.
    ///
    /// # Errors
    /// What is wrong with it, or that it is no decoder.
    pub(crate) async fn load(folder: &Path, threads: usize) -> Result<Self> {
        Self::load_with(folder, &settings(threads)).await
    }

    /// The same with other settings: another provider, more slots.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) async fn load_with(folder: &Path, settings: &config::Specialist) -> Result<Self> {
        let library = runtime::library().await?;
        let specialist = shoal_specialist::load(Folder::open(folder)?, settings, &library).await?;
        let inside = Self { specialist };
        inside.engine()?;
        Ok(inside)
    }

    /// The folder of the version that was loaded: what a peer is given.
    pub(crate) fn version_folder(&self) -> Result<PathBuf> {
        let model = &self.specialist.folder().model;
        Ok(model.parent().context("a model lies in a folder")?.to_owned())
    }

    /// "name@version".
    pub(crate) fn identity(&self) -> String {
        self.specialist.identity()
    }

    /// Positions of a row.
    pub(crate) fn positions(&self) -> Result<usize> {
        Ok(self.engine()?.shape().context_tokens)
    }

    /// What prompts may be made of.
    pub(crate) fn alphabet(&self) -> Result<Alphabet> {
        let exported = self.specialist.folder().exported.as_ref();
        let exported = exported.context("a decoder says its shape")?;
        Ok(Alphabet {
            vocabulary: exported.vocabulary,
            eos: exported.eos.clone(),
        })
    }

    /// Decodes all prompts together, greedily, `lengths[i]` tokens of the i-th.
    ///
    /// # Errors
    /// When one has no answer.
    pub(crate) async fn decode(&self, prompts: &[Vec<u32>], lengths: &[usize]) -> Result<Decoded> {
        let before = self.inside_runtime();
        let started = Instant::now();
        let tickets: Vec<Ticket> = prompts
            .iter()
            .zip(lengths)
            .map(|(prompt, length)| self.submit(prompt, *length))
            .collect::<Result<_>>()?;
        let done = try_join_all(tickets.into_iter().map(Ticket::complete)).await?;
        Ok(Decoded {
            seconds: started.elapsed().as_secs_f64(),
            inside: (self.inside_runtime() - before).as_secs_f64(),
            tokens: done.into_iter().map(|done| done.tokens).collect(),
        })
    }

    /// [`Self::decode`] of one batch after the other, as one: their times and their tokens together.
    ///
    /// # Errors
    /// When one has no answer.
    pub(crate) async fn decode_all(&self, batches: &[Vec<Vec<u32>>], lengths: &[usize]) -> Result<Decoded> {
        let mut all = Decoded {
            seconds: 0.0,
            inside: 0.0,
            tokens: Vec::new(),
        };
        for prompts in batches {
            let Decoded {
                seconds,
                inside,
                tokens,
            } = self.decode(prompts, lengths).await?;
            all.seconds += seconds;
            all.inside += inside;
            all.tokens.extend(tokens);
        }
        Ok(all)
    }

    /// Seconds until the first token of a prompt is there.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn first_token(&self, prompt: &[u32]) -> Result<f64> {
        let started = Instant::now();
        // An answer of one token ends with it, whether or not it makes a whole character.
        self.submit(prompt, 1)?.complete().await?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds until the first event of a text's answer of one token, read and tokenized as a request from the wire is.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn first_token_of(&self, text: &str) -> Result<f64> {
        let started = Instant::now();
        let mut ticket = self.specialist.generate(ask(text, 1, None)).await?;
        match ticket.next().await {
            Event::Failed(error) => Err(error.into()),
            Event::Delta(_) | Event::Done(_) => Ok(started.elapsed().as_secs_f64()),
        }
    }

    /// Decodes all prompts together, greedily, `length` tokens each; seconds between two pieces of a row's text, from when every row had its first.
    /// Beside them the prompts of `arriving` are read, one after the other, each for one token; says how many were.
    ///
    /// # Errors
    /// When one has no answer, or prompts that are to arrive have run out.
    pub(crate) async fn gaps(
        &self,
        prompts: &[Vec<u32>],
        length: usize,
        arriving: &[Vec<u32>],
    ) -> Result<(Vec<f64>, usize)> {
        let rows = try_join_all(prompts.iter().map(|prompt| self.times(prompt, length)));
        let read = Cell::new(0);
        let beside = async {
            if arriving.is_empty() {
                return std::future::pending().await;
            }
            for prompt in arriving {
                self.submit(prompt, 1)?.complete().await?;
                read.set(read.get() + 1);
            }
            Err(anyhow!("{} prompts were read before the rows ended", arriving.len()))
        };
        let times = tokio::select! {
            times = rows => times?,
            failed = beside => return failed,
        };
        let from = times.iter().filter_map(|row| row.first()).max().copied();
        let from = from.context("a row has a first token")?;
        let between = times
            .iter()
            .flat_map(|row| row.windows(2))
            .filter(|pair| pair[0] >= from);
        let gaps = between.map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        Ok((gaps, read.get()))
    }

    /// When the pieces of a prompt's answer came.
    async fn times(&self, prompt: &[u32], length: usize) -> Result<Vec<Instant>> {
        let mut ticket = self.submit(prompt, length)?;
        let mut came = Vec::with_capacity(length);
        loop {
            match ticket.next().await {
                Event::Delta(_) => came.push(Instant::now()),
                Event::Done(_) => return Ok(came),
                Event::Failed(error) => return Err(error.into()),
            }
        }
    }

    /// Answers texts together under a form; the engine's own account of each.
    ///
    /// # Errors
    /// When one has no answer.
    pub(crate) async fn answer(&self, texts: &[String], max_tokens: usize, form: &Form) -> Result<Vec<Done>> {
        let one = |text: &String| {
            let ask = ask(text, max_tokens, Some(form.clone()));
            async move { Ok::<Done, anyhow::Error>(self.specialist.generate(ask).await?.complete().await?) }
        };
        try_join_all(texts.iter().map(one)).await
    }

    fn submit(&self, prompt: &[u32], max_tokens: usize) -> Result<Ticket> {
        let request = Request {
            prompt: prompt.to_vec(),
            sampling: Sampling::greedy(max_tokens),
            grammar: None,
            required: Default::default(),
            calibration: Calibration::default(),
            urgency: Urgency::default(),
            tokenize: Duration::ZERO,
            span: Span::none(),
        };
        Ok(self.engine()?.submit(request)?)
    }

    fn engine(&self) -> Result<&Engine> {
        self.specialist
            .engine()
            .ok_or_else(|| anyhow!("{} does not decode: name a decoder with --model", self.identity()))
    }

    fn inside_runtime(&self) -> Duration {
        self.specialist.inside_runtime().unwrap_or_default()
    }
}

fn ask(text: &str, max_tokens: usize, form: Option<Form>) -> Ask {
    Ask {
        task: String::new(),
        prompt: Prompt::Text(text.to_owned()),
        sampling: Sampling::greedy(max_tokens),
        form,
        urgency: Urgency::default(),
        span: Span::none(),
    }
}
