import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils import env_checker

import agentenv as ae
from agentenv.envs.search_qa import (
    Bm25Retriever,
    Fiction,
    HttpRetriever,
    Passage,
    QaTask,
    SearchQA,
    load_tasks,
    read_corpus,
)
from agentenv.envs.search_qa.corpus import write_corpus
from agentenv.envs.search_qa.index_file import build_index
from agentenv.errors import CorpusError, RetrieverError, TaskError
from agentenv.testing import check_env
from agentenv.types import message_text

PASSAGES = [
    Passage("p1", "Alû", "Alû is a demon. Gallu is another demon."),
    Passage("p2", "Lilu (mythology)", "A lilu is a spirit of the night."),
    Passage("p3", "Twin", "first twin"),
    Passage("p4", "twin", "second twin"),
    Passage("p5", "Long", "word " * 9_999 + "word"),
]
TASK = {"id": "q1", "question": "Lilu is what?", "answer": "a spirit", "supporting_titles": ["Alû", "Lilu (mythology)"]}


def call(name, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c0", "type": "function", "function": function}]}


def make(**options):
    env = SearchQA(corpus=Bm25Retriever.build(PASSAGES), tasks=[TASK], **options)
    env.reset(seed=0)
    return env


def say(env, action):
    observation, reward, terminated, truncated, info = env.step(action)
    return message_text(observation[0]), reward, terminated, truncated, info


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"protocol": "search_r1", "signature": "coarse"},
        {"reward": {"em": 0.5, "f1": 0.5, "supporting_recall": 0.2, "mistake": -0.1}, "max_steps": 4},
        {"world": {"people": 6, "hops": (4,), "questions": 5}, "snippet_chars": 0},
    ],
)
def test_keeps_every_law(options):
    check_env(SearchQA(**options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env_checker.check_env(SearchQA(**options), skip_render_check=True)


def test_is_registered_and_works_at_once():
    assert "agentenv/SearchQA-v0" in ae.env_ids()
    env = gymnasium.make("agentenv/SearchQA-v0", world={"people": 8, "questions": 3})
    observation, _ = env.reset(seed=0)
    assert "Question: " in message_text(observation[0])
    check_env("agentenv/SearchQA-v0")


def test_an_episode_with_tools():
    env = make()
    text, reward, *_, info = say(env, call("search", query="gallu demon", k=2))
    assert text == "[p1] Alû: Alû is a demon. Gallu is another demon."
    assert (reward, info["metrics"]) == (0, {"supporting_recall": 0.5})
    text, *_, info = say(env, call("read", document="LILU (mythology)"))
    assert text == "Lilu (mythology)\nA lilu is a spirit of the night."
    assert info["metrics"] == {"supporting_recall": 1}
    text, reward, terminated, truncated, info = say(env, call("answer", text="The spirit!"))
    assert (reward, terminated, truncated) == (1, True, False)
    assert info["rewards"] == {"outcome": 1}
    assert info["metrics"] == {"supporting_recall": 1, "em": 1, "f1": 1, "sub_em": 1}
    assert env.state.retrieved == ("p1",)
    assert env.state.read == ("p2",)


def test_an_episode_with_tags():
    env = make(protocol="search_r1", top_k=1)
    assert env.tools == ()
    text, *_ = say(env, "<think>who?</think><search> lilu spirit </search><answer>ignored</answer>")
    assert (
        text == '\n\n<information>Doc 1(Title: "Lilu (mythology)") A lilu is a spirit of the night.</information>\n\n'
    )
    text, reward, terminated, _, info = say(env, "no tags at all")
    assert "<search>" in text
    assert (reward, terminated, len(info["mistakes"])) == (0, False, 1)
    _, reward, terminated, _, info = say(env, "<answer> spirit </answer>")
    assert (reward, terminated) == (1, True)


@pytest.mark.parametrize(
    ("reward", "answer", "expected"),
    [
        ("em", "spirit of night", 0),
        ("f1", "spirit of night", 0.5),
        ("sub_em", "spirit of night", 1),
        ({"em": 1, "f1": 0.5}, "a spirit", 1.5),
    ],
)
def test_rewards(reward, answer, expected):
    _, got, _, _, info = say(make(reward=reward), call("answer", text=answer))
    assert got == info["rewards"]["outcome"] == pytest.approx(expected)


def test_reward_components_have_names():
    env = make(reward={"em": 1.0, "supporting_recall": 0.2, "mistake": -0.25})
    *_, info = say(env, call("read", document="p1"))
    assert info["rewards"] == {}
    _, reward, *_, info = say(env, call("read", document="nothing"))
    assert (reward, info["rewards"]) == (-0.25, {"mistake": -0.25})
    _, reward, *_, info = say(env, call("answer", text="a ghost"))
    assert info["rewards"] == {"supporting_recall": pytest.approx(0.1), "outcome": 0}
    assert reward == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (call("search", query="  "), "the query is empty"),
        (call("search", query="x " * 500_000), "at most 10,000 characters, got 1,000,000"),
        (call("search", query="demon", k=0), "k: input should be greater than or equal to 1, got 0"),
        (call("search", query="demon", k=21), "k: input should be less than or equal to 20, got 21"),
        (call("search", query=["demon"]), "wrong arguments for search"),
        (call("read", document="Nobody"), "no document 'Nobody'"),
        (call("read", document=""), "no document ''"),
        (call("read", document="twin"), "2 documents have the title 'twin'; read one of them by its id: p3, p4"),
        (call("answer", text=" "), "the answer is empty"),
        (call("answer", text="x" * 1_001), "at most 1,000 characters"),
        (call("find", query="x"), "there is no tool 'find'"),
        ("I think it is a spirit.", "no tool was called"),
        (call("search", query="\ud800"), ""),
    ],
)
def test_mistakes_are_observations(action, message):
    env = make()
    text, reward, terminated, truncated, info = say(env, action)
    assert message in text
    assert (reward, terminated, truncated) == (0, False, False)
    assert bool(info["mistakes"]) == bool(message)
    assert not env.state.queries or not message


def test_mistakes_with_tags_are_observations():
    env = make(protocol="search_r1")
    for action in ("<search></search>", "<answer> </answer>", f"<answer>{'x' * 2_000}</answer>", "<search>open"):
        _, _, terminated, _, info = say(env, action)
        assert not terminated
        assert len(info["mistakes"]) == 1


def test_code_and_markup_in_an_answer_is_only_text():
    for answer in ("__import__('os').system('x')", "</answer><answer>a spirit", "{{7*7}}", "\x00\x1b[31m", "🦊" * 900):
        _, reward, terminated, *_ = say(make(), call("answer", text=answer))
        assert (reward, terminated) == (0, True)


def test_long_documents_are_cut_and_snippets_short():
    env = make(snippet_chars=30)
    text, *_ = say(env, call("search", query="word", k=1))
    assert text == "[p5] Long: word word word word word word ..."
    text, *_ = say(env, call("read", document="[p5]"))
    assert text.endswith("[cut here; the document has 49,999 characters]")
    assert len(text) < 20_100
    assert say(make(), call("search", query="unheard"))[0] == "No document contains these words."


def test_the_reference_is_hidden():
    env = SearchQA()
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        shown = str(observation) + str(info)
        assert env.task.question in shown
        if env.task.kind == "chain":
            assert not any(answer in shown for answer in env.task.answers)


def test_an_oracle_answers_every_hop_of_a_world():
    """Follows the reasoning path by search and read alone: every fact is found where the path says."""
    env = SearchQA(world=Fiction(seed=2, people=30, questions=60), max_steps=20)
    hops = set()
    for index, task in enumerate(env.tasks):
        env.reset(options={"task": index})
        for edge in task.path:
            subject, _, value = edge.split(" | ")
            found, *_ = say(env, call("search", query=subject, k=5))
            assert f"] {subject}: " in found
            document, *_ = say(env, call("read", document=subject))
            assert value in document
        _, reward, terminated, _, info = say(env, call("answer", text=task.answers[-1]))
        assert (reward, terminated, info["metrics"]["supporting_recall"]) == (1, True, 1)
        hops.add(task.hops)
    assert hops == {1, 2, 3, 4}


def signatures(env, *actions):
    for action in actions:
        env.step(action)
    return env.state_signature()


@pytest.mark.parametrize("signature", ["exact", "coarse"])
def test_states_do_not_depend_on_the_order(signature):
    one, two = call("search", query="demon"), call("search", query="spirit night")
    assert signatures(make(signature=signature), one, two) == signatures(make(signature=signature), two, one)
    assert signatures(make(signature=signature), one) == signatures(make(signature=signature), one, one)
    assert signatures(make(signature=signature), one) != signatures(make(signature=signature), two)


def test_exact_and_coarse_states():
    pairs = [
        # Another spelling of the query that finds the same: equal in both.
        (call("search", query="demon"), call("search", query=" DEMON "), True, True),
        # Other words that find the same: equal only in the coarse form.
        (call("search", query="gallu"), call("search", query="demon"), False, True),
        # Read or only found: equal only in the coarse form.
        (call("search", query="demon"), call("read", document="p1"), False, True),
        (call("answer", text="A ghost"), call("answer", text="ghost."), True, True),
        (call("answer", text="a ghost"), call("answer", text="a spirit"), False, False),
    ]
    for left, right, exact, coarse in pairs:
        for signature, expected in (("exact", exact), ("coarse", coarse)):
            states = [signatures(make(signature=signature), action) for action in (left, right)]
            assert (states[0] == states[1]) is expected, (left, right, signature)


def test_exact_and_coarse_actions():
    def signature(kind, action, protocol="tools"):
        return make(signature=kind, protocol=protocol).action_signature(ae.Action.parse(action))

    pairs = [
        (call("search", query="Gallu  demon"), call("search", query="gallu demon"), True, True),
        (call("search", query="gallu demon"), call("search", query="the demon Gallu", k=7), False, True),
        (call("search", query="gallu", k=3), call("search", query="gallu", k=4), False, True),
        (call("read", document="ALÛ"), call("read", document="alû"), True, True),
        (call("answer", text="The Ghost"), call("answer", text="ghost!"), True, True),
        (call("answer", text="ghost"), call("read", document="ghost"), False, False),
        ("hm", "ah", False, True),
    ]
    for left, right, exact, coarse in pairs:
        assert (signature("exact", left) == signature("exact", right)) is exact
        assert (signature("coarse", left) == signature("coarse", right)) is coarse
    tags = ["<think>one</think><search>a demon</search>", "<think>two</think><search>A  demon</search> more"]
    assert signature("exact", tags[0], "search_r1") == signature("exact", tags[1], "search_r1")
    assert signature("exact", call("search", query={"a": 1}))
    assert signature("exact", {"role": "assistant", "tool_calls": [{"name": "search", "arguments": "not json"}]})


def test_a_snapshot_travels_and_is_small(tmp_path):
    build_index(PASSAGES, tmp_path / "index")
    env = SearchQA(corpus=tmp_path / "index", tasks=[TASK])
    env.reset(seed=0)
    env.step(call("search", query="demon"))
    snapshot = pickle.dumps(env.snapshot())
    assert len(snapshot) < 5_000
    script = (
        "import pickle, sys\n"
        "from agentenv.envs.search_qa import SearchQA\n"
        "env = SearchQA(corpus=sys.argv[1])\n"
        "env.restore(pickle.loads(sys.stdin.buffer.read()))\n"
        "print(env.state_signature(), env.task.question)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", script, str(tmp_path / "index")]
    done = subprocess.run(command, input=snapshot, capture_output=True, env=environment, check=True)
    assert done.stdout.decode().split(maxsplit=1) == [env.state_signature(), "Lilu is what?\n"]


def test_an_extra_environment_costs_less_than_a_megabyte():
    first = SearchQA(world={"people": 400, "questions": 50})
    tracemalloc.start()
    try:
        others = [SearchQA(world={"people": 400, "questions": 50}) for _ in range(4)]
        for env in others:
            env.reset(seed=0)
            env.step(call("search", query="the capital"))
        others += others[0].fork(4)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(env.retriever is first.retriever for env in others)
    assert size / len(others) < 1_000_000


def test_forks_do_not_read_the_tasks_again(tmp_path):
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK))
    corpus = Bm25Retriever.build(PASSAGES)
    for tasks in ([TASK], str(tmp_path / "tasks.jsonl"), None):
        env = SearchQA(corpus=corpus, tasks=tasks) if tasks else SearchQA()
        env.reset(seed=0, options={"task": 0})
        (child,) = env.fork(1)
        (grandchild,) = child.fork(1)
        assert env.tasks is child.tasks is grandchild.tasks


def test_corpora_by_path(tmp_path):
    write_corpus(PASSAGES, tmp_path / "corpus.jsonl")
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK))
    env = SearchQA(corpus=tmp_path / "corpus.jsonl", tasks=tmp_path / "tasks.jsonl")
    assert SearchQA(corpus=str(tmp_path / "corpus.jsonl")).retriever is env.retriever
    env.reset(seed=0)
    assert env.task == QaTask(
        id="q1", question="Lilu is what?", answers=("a spirit",), supporting=("Alû", "Lilu (mythology)"), hops=2
    )


def test_infrastructure_failure_is_no_zero():
    env = SearchQA(corpus=HttpRetriever("http://127.0.0.1:9", retries=0), tasks=[TASK])
    env.reset(seed=0)
    with pytest.raises(RetrieverError, match=r"127\.0\.0\.1:9 failed"):
        env.step(call("search", query="x"))


class Fragile(Bm25Retriever):
    """Fails at requests with a snowman; `down` counts how many of any kind it fails at first."""

    down = 0

    def _fail(self, text):
        if self.down or "\N{SNOWMAN}" in text:
            self.down = max(0, self.down - 1)
            msg = "status 500"
            raise RetrieverError(msg)

    def search(self, queries, k):
        self._fail(queries[0])
        return super().search(queries, k)

    def find(self, document):
        self._fail(document)
        return super().find(document)


@pytest.mark.parametrize("name", ["search", "read", "tag"])
def test_a_request_that_breaks_the_retriever_and_no_other_does_is_the_agents(name):
    corpus = Fragile.build(PASSAGES)
    env = SearchQA(corpus=corpus, tasks=[TASK], protocol="search_r1" if name == "tag" else "tools")
    env.reset(seed=0)
    bad = {"search": call("search", query="lilu \N{SNOWMAN}"), "read": call("read", document="\N{SNOWMAN}")}
    text, reward, terminated, _, info = say(env, bad.get(name, "<search>\N{SNOWMAN}</search>"))
    assert "fails at this request, and not at another: status 500" in text
    assert (reward, terminated, len(info["breakages"]), len(info["mistakes"])) == (0, False, 1, 1)
    good = {"search": call("search", query="lilu"), "read": call("read", document="p2")}
    corpus.down = 1  # once: the retriever's own, and no mistake
    text, _, _, _, info = say(env, good.get(name, "<search>lilu</search>"))
    assert "Lilu" in text
    assert "breakages" not in info
    corpus.down = 2
    with pytest.raises(RetrieverError, match="status 500"):
        env.step(bad.get(name, "<search>\N{SNOWMAN}</search>"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"protocol": "xml"}, ValueError, "protocol must be one of 'tools', 'search_r1'"),
        ({"signature": "fuzzy"}, ValueError, "signature must be one of"),
        ({"reward": "bleu"}, ValueError, "reward must be one of 'em', 'f1'"),
        ({"reward": {"em": 1, "bleu": 1}}, ValueError, "reward must be one of"),
        ({"top_k": 0}, ValueError, "top_k must be from 1 to 20"),
        ({"snippet_chars": -1}, ValueError, "snippet_chars must be from 0"),
        ({"prompt": "Answer!"}, ValueError, "prompt must contain '{question}'"),
        ({"tasks": [TASK]}, ValueError, "tasks need a corpus"),
        ({"corpus": "http://x", "world": {}}, ValueError, "exclude each other"),
        ({"world": {"people": 1}}, ValueError, "people"),
        ({"corpus": "/nowhere/at/all"}, CorpusError, "neither a JSONL file"),
        ({"corpus": "http://x", "tasks": [{"question": "?"}]}, TaskError, "row 0: answers"),
        ({"corpus": "http://x", "tasks": "/nowhere.jsonl"}, TaskError, "cannot read"),
        ({"corpus": "http://x", "tasks": []}, TaskError, "at least one task"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        SearchQA(**options)


def test_a_corpus_alone_takes_its_task_from_reset():
    env = SearchQA(corpus=Bm25Retriever.build(PASSAGES))
    with pytest.raises(TaskError, match="no tasks"):
        env.reset(seed=0)
    env.reset(seed=0, options={"task": {"question": "Who?", "answers": ["x"]}})
    with pytest.raises(TaskError, match="answers"):
        env.reset(seed=0, options={"task": {"question": "Who?", "answers": [" "]}})


DATA = os.environ.get("AGENTENV_DATA")


@pytest.mark.data
@pytest.mark.parametrize("protocol", ["tools", "search_r1"])
def test_an_oracle_on_the_hotpotqa_questions(protocol):
    """Searching the two supporting titles finds both documents, and the reference answer scores 1."""
    folder = Path(str(DATA))
    retriever = Bm25Retriever.build(read_corpus(folder / "hotpotqa_corpus_994.jsonl"))
    tasks = load_tasks(folder / "hotpotqa_questions_100.jsonl")
    env = SearchQA(corpus=retriever, tasks=tasks, protocol=protocol, top_k=10)
    for index, task in enumerate(tasks):
        env.reset(options={"task": index})
        for title in task.supporting:
            action = call("search", query=title, k=10) if protocol == "tools" else f"<search>{title}</search>"
            env.step(action)
        answer = task.answers[0]
        action = call("answer", text=answer) if protocol == "tools" else f"<answer>{answer}</answer>"
        _, reward, terminated, _, info = env.step(action)
        assert (reward, terminated) == (1, True)
        assert info["metrics"] == {"supporting_recall": 1, "em": 1, "f1": 1, "sub_em": 1}
