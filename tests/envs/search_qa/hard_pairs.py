"""Hard pairs for the text scorers: prediction, accepted answers, exact match, F1, sub-match.

Written by us. The verdicts were worked out by hand from the rules of SQuAD's `evaluate-v1.1.py` (lower case, then the
32 ASCII punctuation marks, then the words a, an, the, then white space; F1 over words as multisets; best answer) and of
Search-R1's `qa_em.py` (sub-match: the normalized answer is a substring of the normalized prediction), and confirmed by
running `torchmetrics.functional.text.squad` 1.9.0 and `skyrl_gym.envs.search.utils` 0.4.0; `test_published.py` repeats
that wherever those packages are installed.
"""

from fractions import Fraction

Pair = tuple[str, tuple[str, ...], int, Fraction, int]


def _pair(prediction: str, answers: str | tuple[str, ...], em: int, f1: str, sub: int) -> Pair:
    return prediction, (answers,) if isinstance(answers, str) else answers, em, Fraction(f1), sub


HARD_PAIRS: tuple[Pair, ...] = (
    # Articles
    _pair("the Eiffel Tower", "Eiffel Tower", 1, "1", 1),
    _pair("Eiffel Tower", "The Eiffel Tower", 1, "1", 1),
    _pair("an apple", "apple", 1, "1", 1),
    _pair("A Tale of Two Cities", "Tale of Two Cities", 1, "1", 1),
    _pair("Panthers", "The Panthers", 1, "1", 1),
    _pair("theater", "the ater", 0, "0", 1),
    _pair("then", "n", 0, "0", 1),
    _pair("Vitamin A", "Vitamin", 1, "1", 1),
    _pair("Hepatitis A", "Hepatitis B", 0, "2/3", 0),
    _pair("Los Angeles", "Angeles", 0, "2/3", 1),
    _pair("La La Land", "Land", 0, "1/2", 1),
    _pair("Anne", "an ne", 0, "0", 1),
    # Case
    _pair("NASA", "nasa", 1, "1", 1),
    _pair("mCDONALD", "McDonald", 1, "1", 1),
    _pair("İstanbul", "istanbul", 0, "0", 0),
    _pair("STRASSE", "straße", 0, "0", 0),
    _pair("Straße", "straße", 1, "1", 1),
    _pair("ΑΘΗΝΑ", "αθηνα", 1, "1", 1),
    # Punctuation is removed, and the parts are joined
    _pair("well-known", "wellknown", 1, "1", 1),
    _pair("well-known", "well known", 0, "0", 0),
    _pair("U.S.", "US", 1, "1", 1),
    _pair("U. S.", "US", 0, "0", 0),
    _pair("Washington, D.C.", "Washington DC", 1, "1", 1),
    _pair("Washington,D.C.", "Washington DC", 0, "0", 0),
    _pair("AC/DC", "ACDC", 1, "1", 1),
    _pair("AC/DC", "AC DC", 0, "0", 0),
    _pair("it's", "its", 1, "1", 1),
    _pair("it is", "it's", 0, "0", 0),
    _pair("rock 'n' roll", "rock n roll", 1, "1", 1),
    _pair("rock & roll", "rock roll", 1, "1", 1),
    _pair("rock & roll", "rock and roll", 0, "4/5", 0),
    _pair("O'Neill", "ONeill", 1, "1", 1),
    _pair("O'Neill", "O Neill", 0, "0", 0),
    _pair("Smith, John", "John Smith", 0, "1", 0),
    _pair('"Hamlet"', "Hamlet", 1, "1", 1),
    _pair("(1976)", "1976", 1, "1", 1),
    _pair("email@example.com", "emailexamplecom", 1, "1", 1),
    _pair("snake_case", "snakecase", 1, "1", 1),
    _pair("C++", "C", 1, "1", 1),
    _pair("C#", "C++", 1, "1", 1),
    _pair("$100", "100", 1, "1", 1),
    _pair("50%", "50", 1, "1", 1),
    _pair("50%", "50 percent", 0, "2/3", 0),
    _pair("#1", "1", 1, "1", 1),
    _pair("Yes!", "yes", 1, "1", 1),
    _pair("Yes, it is", "yes", 0, "1/2", 1),
    _pair("Jr.", "Jr", 1, "1", 1),
    # Unicode is left as it is
    _pair("Beyoncé", "Beyonce", 0, "0", 0),
    _pair("Beyoncé", "beyoncé", 1, "1", 1),
    _pair("Cafe\u0301", "Café", 0, "0", 0),
    _pair("1914–1918", "1914-1918", 0, "0", 0),
    _pair("1914–1918", "1914–1918", 1, "1", 1),
    _pair("rock ’n’ roll", "rock 'n' roll", 0, "2/3", 0),
    _pair("“Hamlet”", "Hamlet", 0, "0", 1),
    _pair("New\u00a0York", "New York", 1, "1", 1),
    _pair("New\u200bYork", "New York", 0, "0", 0),
    _pair("北京", "北京", 1, "1", 1),
    _pair("北京市", "北京", 0, "0", 1),
    _pair("Москва", "москва", 1, "1", 1),
    _pair("naïve", "naive", 0, "0", 0),
    _pair("ﬁne", "fine", 0, "0", 0),
    _pair("H₂O", "H2O", 0, "0", 0),
    _pair("€5", "5", 0, "0", 1),
    _pair("¿Qué?", "qué", 0, "0", 1),
    # White space
    _pair("  New   York  ", "New York", 1, "1", 1),
    _pair("New\nYork", "New York", 1, "1", 1),
    _pair("New\tYork City", "New York", 0, "4/5", 1),
    _pair("NewYork", "New York", 0, "0", 0),
    _pair("", "anything", 0, "0", 0),
    _pair("   ", "anything", 0, "0", 0),
    _pair("the", "anything", 0, "0", 0),
    _pair("...", "anything", 0, "0", 0),
    # Numbers
    _pair("1,000", "1000", 1, "1", 1),
    _pair("1 000", "1000", 0, "0", 0),
    _pair("1.5", "15", 1, "1", 1),
    _pair("3.0", "3", 0, "0", 1),
    _pair("three", "3", 0, "0", 0),
    _pair("-5", "5", 1, "1", 1),
    _pair("1/2", "12", 1, "1", 1),
    _pair("0.5", "05", 1, "1", 1),
    _pair("0.5", ".5", 0, "0", 1),
    _pair("10", "1", 0, "0", 1),
    _pair("1", "10", 0, "0", 0),
    _pair("2.5 million", "2,500,000", 0, "0", 0),
    _pair("5 km", "5", 0, "2/3", 1),
    _pair("5km", "5 km", 0, "0", 0),
    _pair("1st", "first", 0, "0", 0),
    _pair("XIV", "14", 0, "0", 0),
    _pair("Louis XIV", "Louis XIV of France", 0, "2/3", 0),
    # Dates
    _pair("July 4, 1776", "July 4 1776", 1, "1", 1),
    _pair("4 July 1776", "July 4, 1776", 0, "1", 0),
    _pair("1776", "July 4, 1776", 0, "1/2", 0),
    _pair("July 4, 1776", "1776", 0, "1/2", 1),
    _pair("1776-07-04", "17760704", 1, "1", 1),
    _pair("1776-07-04", "July 4, 1776", 0, "0", 0),
    _pair("the 1990s", "1990s", 1, "1", 1),
    _pair("1990's", "1990s", 1, "1", 1),
    _pair("1990", "1990s", 0, "0", 0),
    _pair("1990s", "1990", 0, "0", 1),
    _pair("May 5", "5 May", 0, "1", 0),
    # Words in common, as multisets
    _pair("Barack Hussein Obama", "Barack Obama", 0, "4/5", 0),
    _pair("President Barack Obama", "Barack Obama", 0, "4/5", 1),
    _pair("Obama", "Barack Obama", 0, "2/3", 0),
    _pair("New York New York", "New York", 0, "2/3", 1),
    _pair("New York", "New York New York", 0, "2/3", 0),
    _pair("York New", "New York", 0, "1", 0),
    _pair("in 1923", "1923", 0, "2/3", 1),
    _pair("I do not know", "know", 0, "2/5", 1),
    _pair("Paris London Rome Berlin Madrid", "Rome", 0, "1/3", 1),
    _pair("not Paris", "Paris", 0, "2/3", 1),
    # Sub-match looks at characters, not at words
    _pair("party", "art", 0, "0", 1),
    _pair("Romeo", "Rome", 0, "0", 1),
    _pair("no", "no", 1, "1", 1),
    _pair("Norway", "no", 0, "0", 1),
    _pair("art", "party", 0, "0", 0),
    _pair("The answer is Paris.", "Paris", 0, "1/2", 1),
    # Yes and no
    _pair("yes", "no", 0, "0", 0),
    _pair("yes and no", "yes", 0, "1/2", 1),
    _pair("Yes.", "yes", 1, "1", 1),
    _pair("noanswer", "no answer", 0, "0", 0),
    # Aliases: the best one counts
    _pair("NYC", ("New York City", "NYC", "The Big Apple"), 1, "1", 1),
    _pair("Big Apple", ("New York City", "NYC", "The Big Apple"), 1, "1", 1),
    _pair("New York", ("New York City", "NYC"), 0, "4/5", 0),
    _pair("the city of New York", ("New York City", "New York"), 0, "6/7", 1),
    _pair("UK", ("United Kingdom", "U.K.", "Great Britain"), 1, "1", 1),
    _pair("Britain", ("United Kingdom", "U.K.", "Great Britain"), 0, "2/3", 0),
    _pair("14 March 1879", ("March 14, 1879", "14 March 1879"), 1, "1", 1),
    _pair("Mark Twain", ("Samuel Clemens", "Samuel Langhorne Clemens"), 0, "0", 0),
)
