"""Settings for all tests: Hypothesis repeats itself exactly, and has no deadline on a loaded machine."""

from hypothesis import settings

settings.register_profile("agentenv", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("agentenv")
