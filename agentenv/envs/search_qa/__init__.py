"""Search QA: multi-hop questions over a corpus, answered by searching it."""

__all__: list[str] = []
