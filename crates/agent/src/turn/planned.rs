//! Plan mode, as the model is told of it.

use wardian_policy::PermissionMode;
use wardian_protocol::ContentBlock;

use crate::authorise::lock;
use crate::session::Session;
use crate::words;

impl Session {
    /// Tells the model that it is in plan mode, or no longer, unless it knows: the conversation says so, and in the same
    /// words to its end. A compaction forgets it, and then it is told again.
    pub(super) async fn hear_of_plan_mode(&mut self) {
        if self.setup.out.agent.is_some() {
            return;
        }
        let is_on = lock(&self.setup.live).policy.mode == PermissionMode::Plan;
        let exits = self.setup.tool("ExitPlanMode").is_some();
        let note = words::plan_mode(self.setup.plan_mode_instructions.as_deref(), exits);
        let told = self.last_plan_note();
        let news = match (is_on, told) {
            (true, told) if told != Some(&note) => note,
            (false, Some(told)) if told != words::PLAN_MODE_LEFT => words::PLAN_MODE_LEFT.to_owned(),
            (true | false, _) => return,
        };
        self.be_told(vec![news]).await;
    }

    fn last_plan_note(&self) -> Option<&str> {
        let blocks = self.history.iter().rev().flat_map(|message| message.content.iter().rev());
        let mut texts = blocks.filter_map(|block| match block {
            ContentBlock::Text { text, .. } => Some(text.as_str()),
            ContentBlock::Thinking { .. }
            | ContentBlock::ToolUse { .. }
            | ContentBlock::ToolResult { .. }
            | ContentBlock::Other(_) => None,
        });
        texts.find(|text| text.starts_with(words::PLAN_MODE) || *text == words::PLAN_MODE_LEFT)
    }
}
