import pytest

from agentenv.envs.search_qa.corpus import Passage
from agentenv.envs.search_qa.search_r1 import PROMPT, extract_answer, format_information, parse_block, score_transcript


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<search> who </search>", ("search", "who")),
        ("<think>hm</think>\n<answer>\nParis\n</answer>", ("answer", "Paris")),
        ("<answer>a</answer><answer>b</answer>", ("answer", "a")),
        ("<search>q</search> <answer>a</answer>", ("search", "q")),
        ("<search>two\nlines</search>", ("search", "two\nlines")),
        ("<search>unclosed", None),
        ("<search>q</answer>", None),
        ("<SEARCH>q</SEARCH>", None),
        ("<information>x</information>", None),
        ("", None),
        ("<search></search>", ("search", "")),
        ("<search><search>q</search>", ("search", "<search>q")),
    ],
)
def test_first_block(text, expected):
    assert parse_block(text) == expected


def test_information_as_search_r1_writes_it():
    text = format_information([Passage("1", "A", "one"), Passage("2", 'B "q"', "two")])
    assert text == '\n\n<information>Doc 1(Title: "A") one\nDoc 2(Title: "B "q"") two</information>\n\n'
    assert format_information([]) == "\n\n<information></information>\n\n"


def test_the_trap_of_two_answer_blocks():
    """The published scorer wants two blocks. Its prompt, like ours, holds two; a response holds one."""
    response = "<think>...</think><answer> Paris </answer>"
    prompt = PROMPT.format(question="Capital of France?")
    # What the published scorer computes: the transcript is right, the response alone wrong, and silence an answer.
    assert score_transcript(prompt + response, ["Paris"]) == 1
    assert score_transcript(response, ["Paris"]) == 0
    assert score_transcript(prompt, ["Lisbon"]) == 1
    # What is meant.
    assert score_transcript(response, ["Paris"], prompt_blocks=0) == 1
    assert score_transcript(prompt + response, ["Paris"], prompt_blocks=2) == 1
    assert score_transcript(prompt, ["Lisbon"], prompt_blocks=2) == 0
    assert extract_answer(response + "<answer>Rome</answer>") == "Rome"
    assert extract_answer("no answer") is None


def test_format_score():
    text = "<answer>x</answer> <answer>Rome</answer>"
    assert score_transcript(text, ["Paris"]) == 0
    assert score_transcript(text, ["Paris"], format_score=0.1) == 0.1
    assert score_transcript(text, ["the Rome!"], format_score=0.1) == 1
    assert score_transcript("nothing", ["Paris"], format_score=0.1) == 0
    with pytest.raises(ValueError, match="prompt_blocks"):
        extract_answer("", prompt_blocks=-1)
