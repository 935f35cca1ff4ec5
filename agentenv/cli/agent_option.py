"""What `--agent` takes, in words, for the help of all commands that have it."""

__all__ = ["ABOUT", "KINDS"]

KINDS = "random|scripted|sloppy|human|URL|vllm:FOLDER|FOLDER|module:Class"
"""In short."""

ABOUT = (
    "Who acts. random: valid calls by chance. scripted, sloppy: the environment's demonstrations, carefully or with "
    "slips. human: you. http://HOST:PORT/v1: a server with chat completions. vllm:FOLDER or vllm:URL: vLLM, with exact "
    "tokens. FOLDER: a transformers model. module:Class: yours; a function that returns an agent will do."
)
"""At length."""
