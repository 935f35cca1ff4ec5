import hashlib
import re
from collections import Counter

import pytest
from pydantic import ValidationError

from agentenv.envs.search_qa.prose import ASIDES, COMPARISONS, KINDS, RELATIONS
from agentenv.envs.search_qa.questions import Fiction, make_questions
from agentenv.envs.search_qa.scoring import exact_match, normalize_answer
from agentenv.envs.search_qa.world import make_world


@pytest.fixture(scope="module")
def world():
    return make_world(3, people=50, distractors=1)


@pytest.fixture(scope="module")
def tasks(world):
    return make_questions(world, 600, seed=1)


def test_the_same_arguments_give_the_same_world():
    make_world.cache_clear()
    one = make_world(7, people=10)
    make_world.cache_clear()
    two = make_world(7, people=10)
    assert one is not two
    assert one.passages == two.passages
    assert make_questions(one, 30) == make_questions(two, 30)
    assert make_world(8, people=10).passages != one.passages
    assert make_questions(one, 30, seed=1) != make_questions(one, 30)


def test_golden_world():
    """Pins the default world: an env id with a version promises the same tasks on every machine."""
    text = "\n".join(passage.contents for passage in make_world().passages)
    questions = "\n".join(task.model_dump_json() for task in Fiction().tasks())
    digest = [hashlib.sha256(part.encode()).hexdigest()[:16] for part in (text, questions)]
    assert digest == GOLDEN


def test_names_are_unique_as_answers(world):
    names = Counter(normalize_answer(thing.name) for thing in world.things)
    assert max(names.values()) == 1
    assert [p.title for p in world.passages] == [thing.name for thing in world.things]
    assert len({p.id for p in world.passages}) == len(world.passages)


def test_every_fact_is_in_its_subjects_document_and_facts_fit(world):
    expected = {(r.subject, r.name): r.object for r in RELATIONS}
    for thing, passage in zip(world.things, world.passages, strict=True):
        for name, value in thing.facts.items():
            assert value.text in passage.text
            if value.thing >= 0:
                target = world.things[value.thing]
                assert (target.kind, target.name) == (expected[thing.kind, name], value.text)
        assert passage.text.count("{") == 0


def test_times_are_in_order(world):
    def born(number):
        return world.things[number].facts["birth date"].rank // 10_000

    for number, thing in enumerate(world.things):
        facts = thing.facts
        if "mentor" in facts:
            assert 15 <= born(number) - born(facts["mentor"].thing) <= 60
        if "author" in facts:
            assert facts["year"].rank >= born(facts["author"].thing) + 22
        if "founder" in facts:
            assert facts["founding year"].rank >= born(facts["founder"].thing) + 22


def read_path(task):
    return [edge.split(" | ") for edge in task.path]


def test_paths_lead_from_the_question_to_the_answer(world, tasks):
    """Follows each path through the *documents*: what the path says must be readable there."""
    documents = {p.title: p.text for p in world.passages}
    for task in tasks:
        path = read_path(task)
        assert [subject for subject, _, _ in path] == list(task.supporting)
        assert len(path) == task.hops == len(set(task.supporting))
        for subject, _, value in path:
            assert value in documents[subject]
        if task.kind == "chain":
            assert all(path[i][2] == path[i + 1][0] for i in range(len(path) - 1))
            assert path[-1][2] == task.answers[0]
            assert path[0][0] in task.question


def test_chains_by_an_independent_parse_of_the_question(world, tasks):
    """Answers chain questions from their wording alone: unwraps the phrases and follows the facts."""
    phrase = {(r.subject, r.name): [re.escape(p).replace(r"\{s\}", "(.+)") for p in r.phrases] for r in RELATIONS}
    asked = {(r.subject, r.name): [re.escape(q).replace(r"\{s\}", "(.+)") for q in r.questions] for r in RELATIONS}
    by_name = {thing.name: thing for thing in world.things}

    def resolve(text):
        """All things that a phrase may mean."""
        bare = re.sub(r"^the (novel|film|opera) ", "", text)
        found = [by_name[bare]] if bare in by_name else []
        for (kind, name), patterns in phrase.items():
            for pattern in patterns:
                if match := re.fullmatch(pattern, text):
                    inner = [t for t in resolve(match[1]) if t.kind == kind and name in t.facts]
                    found += [world.things[t.facts[name].thing] for t in inner if t.facts[name].thing >= 0]
        return found

    checked = 0
    for task in tasks:
        if task.kind != "chain":
            continue
        found = set()
        for (kind, name), patterns in asked.items():
            for pattern in patterns:
                if match := re.fullmatch(pattern, task.question):
                    found |= {t.facts[name].text for t in resolve(match[1]) if t.kind == kind and name in t.facts}
        assert found == {task.answers[0]}, task.question
        checked += 1
    assert checked > 300


def test_comparisons(world, tasks):
    things = {thing.name: thing for thing in world.things}
    seen = Counter()
    for task in tasks:
        if task.kind == "chain":
            continue
        path = read_path(task)
        left, right = path[len(path) // 2 - 1], path[-1]
        if task.kind == "same":
            assert task.answers == (("yes",) if left[2] == right[2] else ("no",))
        else:
            ranks = [things[subject].facts[relation].rank for subject, relation, _ in (left, right)]
            assert task.answers == ((left if ranks[0] < ranks[1] else right)[0],)
            assert ranks[0] != ranks[1]
        seen[task.kind, task.answers[0] if task.kind == "same" else ""] += 1
    assert seen["comparison", ""] > 20
    assert abs(seen["same", "yes"] - seen["same", "no"]) <= 4


def test_questions_do_not_contain_their_answer(tasks):
    for task in tasks:
        if task.kind == "chain":
            assert normalize_answer(task.answers[0]) not in normalize_answer(task.question)


def test_questions_differ_and_cover_the_hops(tasks):
    assert len({task.question for task in tasks}) == len({task.id for task in tasks}) == len(tasks)
    hops = Counter(task.hops for task in tasks)
    assert set(hops) == {1, 2, 3, 4}
    assert min(hops.values()) > 100


def test_every_relation_and_comparison_occurs(world):
    tasks = make_questions(world, 1_500, hops=(1, 2, 4))
    used = {relation for task in tasks for _, relation, _ in read_path(task)}
    assert used == {r.name for r in RELATIONS}
    assert {kind for kind in KINDS if world.of_kind(kind)} == set(KINDS) == set(ASIDES)
    assert {c.relation for c in COMPARISONS} <= used


def test_dates_are_accepted_in_three_forms(tasks):
    dates = [task for task in tasks if re.search(r"\d{4}-\d\d-\d\d", task.answers[-1])]
    assert dates
    for task in dates:
        year, _, day = task.answers[-1].split("-")
        assert len(task.answers) == 3
        assert any(a.startswith(f"{int(day)} ") and a.endswith(year) for a in task.answers)
        assert exact_match(task.answers[1], task.answers) == 1


def test_distractors_share_a_word():
    plain, crowded = make_world(1, people=20, distractors=0), make_world(1, people=20, distractors=3)

    def collisions(world):
        families = Counter(t.name.split()[-1] for t in world.things if t.kind == "person")
        givens = Counter(t.name.split()[0] for t in world.things if t.kind == "person")
        return sum(n - 1 for n in (*families.values(), *givens.values()))

    assert len(crowded.of_kind("person")) == 4 * len(plain.of_kind("person"))
    assert collisions(plain) <= 5
    assert collisions(crowded) >= 60


@pytest.mark.parametrize("people", [4, 5, 9])
@pytest.mark.parametrize("distractors", [0, 1, 2])
def test_small_worlds_work(people, distractors):
    for seed in range(5):
        world = make_world(seed, people=people, distractors=distractors)
        for hops in (1, 2, 3):
            assert len(make_questions(world, 3, hops=(hops,))) == 3


def test_bad_arguments(world):
    with pytest.raises(ValueError, match="people >= 4"):
        make_world(people=3)
    with pytest.raises(ValueError, match="distractors >= 0"):
        make_world(distractors=-1)
    for hops in ((), (0,), (5,)):
        with pytest.raises(ValueError, match="hops must be numbers from 1 to 4"):
            make_questions(world, 1, hops=hops)
    with pytest.raises(ValueError, match="too few questions of 1 hops"):
        make_questions(make_world(people=4, distractors=0), 10_000, hops=(1,))
    for fields in ({"hops": (5,)}, {"hops": ()}, {"people": 3}, {"seed": -1}, {"size": 3}):
        with pytest.raises(ValidationError):
            Fiction.model_validate(fields)


GOLDEN = ["f74bf991913585d9", "6da21dd30a7a897e"]
