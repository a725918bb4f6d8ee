//! Which agents there are: from files, from `--agents`, from the host; and which of them is the main thread's.

use std::collections::BTreeMap;

use serde_json::Value;
use wardian_agent::Options;
use wardian_agent::subagent::{self, AgentDefinition, AgentSource};

use crate::shelves::Shelves;

/// The agents of a process.
#[derive(Debug, Default)]
pub struct Agents {
    /// Of files.
    found: BTreeMap<String, AgentDefinition>,
    /// `--agents`.
    flag: BTreeMap<String, AgentDefinition>,
    /// `initialize`.
    host: BTreeMap<String, AgentDefinition>,
}

impl Agents {
    /// Takes in `--agents`.
    pub fn add_flag(&mut self, text: &str) -> Result<(), String> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("failed to read --agents: {error}"))?;
        self.flag.extend(subagent::definitions(&value).map_err(|error| format!("--agents: {error}"))?);
        Ok(())
    }

    /// Takes in `initialize.agents`.
    pub fn add_initialize(&mut self, value: &Value) -> Result<(), String> {
        self.host = subagent::definitions(value)?;
        Ok(())
    }

    /// Reads those of files. Blocks.
    pub fn read_files(&mut self, shelves: &Shelves) {
        let of_user = shelves.of_user("agents").into_iter().map(|shelf| (shelf, AgentSource::User));
        let of_projects = shelves.of_projects("agents").map(|shelf| (shelf, AgentSource::Project));
        for (shelf, source) in of_user.chain(of_projects) {
            let (found, complaints) = subagent::files(&shelf, source);
            self.found.extend(found);
            for complaint in complaints {
                eprintln!("warning: {complaint}");
            }
        }
    }

    /// All of them: the host's go before the flag's, those before files.
    fn given(&self) -> BTreeMap<String, AgentDefinition> {
        let mut all = self.found.clone();
        all.extend(self.flag.clone());
        all.extend(self.host.clone());
        all
    }

    /// Takes in a plugin's.
    pub fn add_plugin(&mut self, agents: BTreeMap<String, AgentDefinition>) {
        self.found.extend(agents);
    }

    /// The names of those of files.
    #[cfg(test)]
    pub fn names(&self) -> Vec<String> {
        self.found.keys().cloned().collect()
    }

    /// What `initialize` answers.
    pub fn listing(&self) -> Vec<Value> {
        let entry = |(name, agent): (String, AgentDefinition)| {
            let mut entry = serde_json::json!({"name": name, "description": agent.description});
            if let Some(model) = agent.model {
                entry["model"] = model.into();
            }
            entry
        };
        subagent::all(self.given()).into_iter().map(entry).collect()
    }

    /// Puts them where the query finds them. `model_given`: the main thread's agent does not choose the model.
    pub fn install(&self, options: &mut Options, model_given: bool) {
        options.agents = self.given();
        let Some(name) = &options.agent else { return };
        let all = subagent::all(options.agents.clone());
        let Some(agent) = all.get(name) else {
            eprintln!("warning: there is no agent {name:?}");
            options.agent = None;
            return;
        };
        if let Some(model) = agent.model.clone().filter(|model| !model_given && model != "inherit") {
            options.model = model;
        }
    }
}
