"""`python -m agentenv`: the command line."""

from agentenv.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
