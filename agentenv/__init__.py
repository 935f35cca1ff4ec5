"""agentenv."""
