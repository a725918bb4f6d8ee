"""The stock Python Agent SDK drives the agent in $AGENT."""
