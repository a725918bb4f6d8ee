//! One prompt on the command line: `wardian-agent -p "…"`.

use futures_util::StreamExt;
use tokio::signal::unix::Signal;
use wardian_agent::{Error, Mcp, Message, Options, Query, query};

use crate::args::OutputFormat;
use crate::control::Ended;
use crate::lines::{Gone, Output};

/// Answers a prompt.
pub struct Answer {
    query: Query,
    format: OutputFormat,
    output: Output,
}

impl Answer {
    pub fn begin(prompt: String, options: Options, format: OutputFormat, output: Output) -> Self {
        Self { query: query(prompt, options), format, output }
    }

    pub fn mcp(&self) -> Mcp {
        self.query.handle().mcp()
    }

    /// Writes what the format asks for. `stops` is SIGINT.
    pub async fn run(&mut self, stops: &mut Signal) -> Ended {
        let output = self.output.clone();
        let mut ended = Ended::Failed;
        let mut stopped = false;
        loop {
            let written = tokio::select! {
                biased;
                () = output.gone() => return Ended::Failed,
                Some(()) = stops.recv() => {
                    stopped = true;
                    // It may have just ended.
                    let _ = self.query.interrupt().await;
                    continue;
                }
                message = self.query.next() => match message {
                    None => return if stopped { Ended::Done } else { ended },
                    Some(message) => self.give(message, &mut ended).await,
                },
            };
            if written == Err(Gone) {
                return Ended::Failed;
            }
        }
    }

    pub async fn close(self) {
        self.query.close().await;
    }

    async fn give(&self, message: Result<Message, Error>, ended: &mut Ended) -> Result<(), Gone> {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                eprintln!("error: failed to {error}");
                return Ok(());
            }
        };
        if let Message::Result(result) = &message {
            *ended = if result.is_error { Ended::LastResultWasError } else { Ended::Done };
        }
        match (self.format, &message) {
            (OutputFormat::StreamJson, message) => self.output.frame(message.to_value()).await,
            (OutputFormat::Json, Message::Result(_)) => self.output.frame(message.to_value()).await,
            (OutputFormat::Text, Message::Result(result)) => {
                let text = result.result.clone().unwrap_or_else(|| result.errors.join("\n"));
                self.output.text(text).await
            }
            (OutputFormat::Json | OutputFormat::Text, _) => Ok(()),
        }
    }
}
