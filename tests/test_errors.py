"""Errors: every one is ours and the stdlib's, documented, listed and picklable."""

import inspect
import pickle

import pytest

import agentenv as ae
from agentenv import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]
OURS = [cls for cls in CLASSES if not issubclass(cls, errors.ToolError)]
STDLIB: dict[type[Exception], type[Exception]] = {
    errors.AgentEnvError: Exception,
    errors.TaskError: ValueError,
    errors.EpisodeError: RuntimeError,
    errors.SnapshotError: ValueError,
    errors.UnknownEnvError: LookupError,
    errors.TreeError: ValueError,
    errors.TreeFileError: ValueError,
    errors.CorpusError: ValueError,
    errors.ModelError: ValueError,
    errors.CheckError: AssertionError,
    errors.WorkspaceError: OSError,
    errors.MissingDependencyError: ImportError,
    errors.InfrastructureError: RuntimeError,
    errors.SandboxError: RuntimeError,
    errors.SandboxLost: RuntimeError,
    errors.SandboxTimeout: TimeoutError,
    errors.VerifierError: RuntimeError,
    errors.RetrieverError: ConnectionError,
    errors.ToolServerError: ConnectionError,
    errors.AgentError: RuntimeError,
    errors.AgentFault: Exception,
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_is_documented_and_pickles(cls):
    assert inspect.getdoc(cls)
    again = pickle.loads(pickle.dumps(cls("what happened")))
    assert (type(again), str(again)) == (cls, "what happened")
    assert f" {cls.__name__}" in (errors.__doc__ or "") or f"`{cls.__name__}`" in (errors.__doc__ or "")


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_an_error_is_ours_and_the_stdlibs(cls):
    assert issubclass(cls, ae.AgentEnvError)
    assert issubclass(cls, STDLIB[cls])


def test_nothing_is_missing_from_the_list():
    defined = {
        name for name, cls in vars(errors).items() if isinstance(cls, type) and cls.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


def test_a_tools_message_to_the_agent_is_never_taken_for_a_failure():
    assert not issubclass(ae.ToolError, ae.AgentEnvError)
    assert not issubclass(errors.UnusableText, ae.AgentEnvError)
    assert issubclass(errors.UnusableText, ValueError)  # for who gives it to a sandbox himself
    assert not issubclass(ae.InfrastructureError, ae.TaskError)
