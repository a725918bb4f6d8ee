//! A conversation of its own that begins as a copy of another.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use super::line::REWOUND;
use super::read::{Dropped, next_line};
use crate::meter::Meter;

/// What a conversation begins with that goes on from another.
#[derive(Debug)]
pub(super) struct Fork {
    /// The other's file.
    pub(super) source: Arc<File>,
    /// Its lines that are no part of the conversation.
    pub(super) dropped: Dropped,
    pub(super) session_id: String,
    /// The last message, where the other has more.
    pub(super) at: Option<String>,
    pub(super) meter: Meter,
}

impl Fork {
    /// Writes the copy, line for line under the new id, and what all had cost. Blocks.
    pub(super) fn copy_to(&self, file: &mut File) -> io::Result<()> {
        let mut source = &*self.source;
        source.seek(SeekFrom::Start(0))?;
        let mut source = BufReader::new(source);
        let mut out = BufWriter::new(file);
        let mut line = Vec::new();
        let mut index = 0;
        while next_line(&mut source, &mut line)?.is_some() {
            let is_dropped = self.dropped.contains(index);
            index += 1;
            let Ok(mut value) = serde_json::from_slice::<Value>(&line) else { continue };
            if is_dropped || value["subtype"] == REWOUND {
                continue;
            }
            if let Some(id) = value.get_mut("sessionId") {
                *id = self.session_id.clone().into();
            }
            if let Some(id) = value.pointer_mut("/result/session_id") {
                *id = self.session_id.clone().into();
            }
            writeln!(out, "{value}")?;
        }
        let cost = json!({
            "type": "cost-state",
            "sessionId": self.session_id,
            "totalCostUSD": self.meter.total(),
            "modelUsage": self.meter.by_model(),
        });
        writeln!(out, "{cost}")?;
        if let Some(at) = &self.at {
            writeln!(out, "{}", rewound(&self.session_id, at))?;
        }
        out.flush()
    }
}

/// The note that a conversation goes on from an earlier message.
pub(super) fn rewound(session_id: &str, to: &str) -> Value {
    json!({"type": "system", "subtype": REWOUND, "sessionId": session_id, "to": to})
}
