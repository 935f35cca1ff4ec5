"""Right or wrong: an answer against a reference."""

from agentenv.errors import VerifierError

from .answers import plain_value

__all__ = ["Verifier"]


class Verifier:
    """Compares answers with references; plain numbers by value."""

    def check_reference(self, reference: str) -> None:
        """Makes sure that the reference can be used."""

    def check(self, reference: str, answer: str) -> bool:
        """Returns whether the answer equals the reference.

        Raises:
            VerifierError: no verdict.
        """
        expected, given = plain_value(reference), plain_value(answer)
        if expected is not None and given is not None:
            return expected == given
        msg = f"only plain numbers so far, got {reference!r:.80} and {answer!r:.80}"
        raise VerifierError(msg)
