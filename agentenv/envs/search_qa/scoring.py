"""Text answers to scores: exact match, F1, sub-match, aliases, and recall of the supporting documents.

The rules are the published ones, so that numbers compare: SQuAD's normalization and F1 (Rajpurkar et al., 2016,
`evaluate-v1.1.py`), HotpotQA's rule for yes and no (Yang et al., 2018, `hotpot_evaluate_v1.py`), Search-R1's sub-match
(Jin et al., 2025, `qa_em.py`). One deviation, in favor of the task: a reference answer of which normalization leaves
nothing, such as "!!!" or "The The", is compared as written. The published scorers find it in every prediction.
"""

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence

__all__ = ["exact_match", "f1_score", "normalize_answer", "score_answer", "sub_match", "supporting_recall"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


def normalize_answer(text: str) -> str:
    """Returns the answer in lower case without punctuation, articles and extra white space, in this order.

    Only the 32 ASCII punctuation marks are removed, and removed means joined: "well-known" becomes "wellknown".
    Accents, typographic quotes and dashes stay. The rule is SQuAD's.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1 where the normalized prediction equals one of the normalized answers, else 0."""
    return float(any(guess == answer for guess, answer in _pairs(prediction, answers)))


def sub_match(prediction: str, answers: Sequence[str], *, whole_words: bool = False) -> float:
    """Returns 1 where a normalized answer occurs within the normalized prediction, else 0.

    Args:
        prediction: what the agent answered.
        answers: the accepted answers.
        whole_words: the answer must begin and end at word boundaries. Without it, as published, "art" is found in
            "party", and an answer that lists everything is right.
    """
    if whole_words:
        return float(any(f" {answer} " in f" {guess} " for guess, answer in _pairs(prediction, answers)))
    return float(any(answer in guess for guess, answer in _pairs(prediction, answers)))


def f1_score(prediction: str, answers: Sequence[str], *, closed: bool = False) -> float:
    """Returns the harmonic mean of word precision and word recall, for the best answer, in [0, 1].

    With `c` words in common (as multisets), `p` in the prediction and `a` in the answer: `2c / (p + a)`.

    Args:
        prediction: what the agent answered.
        answers: the accepted answers.
        closed: HotpotQA's rule: where the prediction or the answer is "yes", "no" or "noanswer", only equality counts,
            so that "yes and no" earns nothing.
    """
    return max((_f1(guess, answer, closed=closed) for guess, answer in _pairs(prediction, answers)), default=0.0)


def score_answer(prediction: str, answers: Sequence[str]) -> dict[str, float]:
    """Returns every score of an answer by name: `em`, `f1` (with HotpotQA's rule) and `sub_em`."""
    return {
        "em": exact_match(prediction, answers),
        "f1": f1_score(prediction, answers, closed=True),
        "sub_em": sub_match(prediction, answers),
    }


def supporting_recall(found: Collection[str], supporting: Collection[str]) -> float | None:
    """Returns the share of the supporting titles that were found, in [0, 1]; `None` where a task names none."""
    wanted = set(supporting)
    return len(wanted.intersection(found)) / len(wanted) if wanted else None


def _pairs(prediction: str, answers: Sequence[str]) -> list[tuple[str, str]]:
    if isinstance(answers, str):
        msg = f"answers must be a sequence of texts, got the text {answers!r}; write [answer]"
        raise TypeError(msg)
    guess = normalize_answer(prediction)
    return [
        (guess, normal) if (normal := normalize_answer(answer)) else (_plain(prediction), _plain(answer))
        for answer in answers
    ]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _f1(guess: str, answer: str, *, closed: bool) -> float:
    if closed and guess != answer and not _CLOSED.isdisjoint((guess, answer)):
        return 0.0
    left, right = guess.split(), answer.split()
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0
