"""The questions, one module each: the cells that answer it, and what is made of their results.

They are in the order in which they are run: the most informative first.
"""

from . import accuracy, allocation, closed_loop, critic, defaults, estimators, forking

__all__ = ["QUESTIONS"]

QUESTIONS = {
    module.QUESTION.number: module.QUESTION
    for module in (forking, estimators, accuracy, allocation, closed_loop, critic, defaults)
}
"""Every question, by its number."""
