"""Environments by id: ours and Gymnasium's registry are one."""

import re

import gymnasium
import pytest
from envs_for_tests import Guess

import agentenv as ae
from agentenv.errors import UnknownEnvError
from agentenv.registry import BUNDLED, env_class


@pytest.fixture
def registered():
    """Registers `Newer` in two versions, and takes it away again."""

    class First(Guess):
        name = "tests/Some-vN"

    class Second(First):
        name = "tests/Some-vN"
        version = 10

    classes = {cls().env_id: cls for cls in (First, Second)}
    for env_id, cls in classes.items():
        ae.register(env_id, cls)
    yield classes
    for env_id in classes:
        del gymnasium.registry[env_id]
        ae.registry._registered.remove(env_id)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_bundled_environments_are_known_to_both():
    assert set(BUNDLED) <= set(ae.env_ids())
    assert ae.env_ids() == sorted(ae.env_ids())
    for env_id in BUNDLED:
        assert env_id in gymnasium.registry
        env = ae.make(env_id)
        assert env.env_id == env_id
        assert isinstance(env, ae.Env)
        env.close()


@pytest.mark.parametrize("env_id", ae.env_ids())
def test_gymnasium_makes_the_same_class_without_wrappers(env_id):
    made: list[gymnasium.Env] = [gymnasium.make(env_id), ae.make(env_id)]
    assert type(made[0]) is type(made[1])
    assert made[0].spec is not None
    assert made[0].spec.id == env_id
    for env in made:
        env.close()


@pytest.mark.parametrize("name", ["./inner/some.py:Some", ".\\inner\\some:Some", "..some:Some"])
def test_a_path_is_no_module(name):
    with pytest.raises(ImportError, match=r"a module is named as for import, and .* is a path: write '.*some:Some'"):
        ae.make(name)


@pytest.mark.parametrize(
    ("function", "given", "words"),
    [
        (ae.make, (5,), "env_id must be text such as 'agentenv/MathVerifier-v0' or 'module:Class', got 5"),
        (env_class, (Guess,), "env_id must be text .*, got <class '.*Guess'>"),
        (ae.register, ("a/b-v0", 5), "entry_point must be a class derived from agentenv.Env, or .*, got 5"),
        (ae.register, ("a/b-v0", dict), "entry_point must be a class .*, got <class 'dict'>"),
    ],
)
def test_what_is_neither_an_id_nor_a_class_is_named(function, given, words):
    with pytest.raises(TypeError, match=words):
        function(*given)
    assert "a/b-v0" not in ae.env_ids()


def test_options_reach_the_class(registered):
    assert ae.make("tests/Some-vN-v0", max_steps=3).max_steps == 3
    with pytest.raises(TypeError, match="no_such_option"):
        ae.make("tests/Some-vN-v0", no_such_option=3)


def test_the_newest_version_is_the_default(registered):
    assert list(registered) == ["tests/Some-vN-v0", "tests/Some-vN-v10"]
    assert type(ae.make("tests/Some-vN")) is registered["tests/Some-vN-v10"]
    assert type(ae.make("tests/Some-vN-v0")) is registered["tests/Some-vN-v0"]
    assert set(registered) <= set(ae.env_ids())


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("agentenv/MathVerifer-v0", "agentenv/MathVerifier-v0"),
        ("agentenv/mathverifier-v0", "agentenv/MathVerifier-v0"),
        ("MathVerifier", "agentenv/MathVerifier-v0"),
        ("mathverify", "agentenv/MathVerifier-v0"),
        ("agentenv/MathVerifier-v7", "agentenv/MathVerifier-v0"),
    ],
)
def test_an_unknown_id_gets_the_nearest_one_and_the_list(wrong, near):
    with pytest.raises(UnknownEnvError, match=f"no environment '{wrong}'. Did you mean '{near}'") as caught:
        ae.make(wrong)
    assert ", ".join(ae.env_ids()) in str(caught.value)
    assert isinstance(caught.value, LookupError)


def test_an_id_like_no_other_gets_the_list_alone():
    with pytest.raises(UnknownEnvError, match=r"no environment 'zzz'\. Known: agentenv/"):
        ae.make("zzz")


def test_an_environment_of_gymnasium_alone_is_refused():
    with pytest.raises(UnknownEnvError, match=r"'CartPole-v1' is a Gymnasium environment, not an agentenv\.Env"):
        ae.make("CartPole-v1")


def test_a_class_that_is_not_registered_and_a_module_that_registers_when_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "its_own_module.py").write_text(
        "import agentenv as ae\nfrom envs_for_tests import Guess\n"
        "class Own(Guess):\n    name = 'tests/Own'\nae.register('tests/Own-v0', Own)\nNUMBER = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        for name in ("its_own_module:Own", "its_own_module:tests/Own-v0", "its_own_module:tests/Own"):
            env = ae.make(name, max_steps=3)
            assert (type(env).__name__, env.env_id, env.max_steps) == ("Own", "tests/Own-v0", 3)
            assert env_class(name) is type(env)
        assert type(gymnasium.make("its_own_module:tests/Own-v0")) is type(env)
    finally:
        del gymnasium.registry["tests/Own-v0"]
        ae.registry._registered.remove("tests/Own-v0")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UnknownEnvError, match="no such name in its_own_module, and no environment 'Other'"):
        ae.make("its_own_module:Other")
    with pytest.raises(UnknownEnvError, match=r"NUMBER is no class derived from agentenv\.Env in its_own_module"):
        ae.make("its_own_module:NUMBER")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        ae.make("no_such_module:Other")


@pytest.mark.parametrize("env_id", ["Guess", "Guess-v", "Guess-vx", "Guess-v1.0"])
def test_an_id_needs_a_version(env_id):
    with pytest.raises(ValueError, match=re.escape(f"env_id must end in a version such as '-v0', got {env_id!r}")):
        ae.register(env_id, Guess)


def test_an_id_must_be_the_one_that_the_class_says():
    words = "env_id is 'tests/Guess-v2' but the class says 'Guess-v0': set name = 'tests/Guess' and version = 2 in it"
    with pytest.raises(ValueError, match=words):
        ae.register("tests/Guess-v2", Guess)
    assert "tests/Guess-v2" not in ae.env_ids()


def test_an_entry_point_is_imported_when_it_is_made():
    ae.register("tests/Lazy-v0", "no_such_module:Lazy")
    try:
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            ae.make("tests/Lazy-v0")
    finally:
        del gymnasium.registry["tests/Lazy-v0"]
        ae.registry._registered.remove("tests/Lazy-v0")  # pyright: ignore[reportAttributeAccessIssue]
