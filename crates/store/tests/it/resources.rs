//! Agents, environments, files, idempotent requests.
