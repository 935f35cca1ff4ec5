"""What an agent hands in: collected from its sandbox, and laid over a fresh one."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from agentenv.errors import WorkspaceError
from agentenv.protocols import Sandbox
from agentenv.sandboxes import SandboxSpec
from agentenv.sandboxes.opening import origin_of

from .interpreter import ENV, testing_env
from .repositories import check_out
from .suites import as_bytes
from .tasks import PROTECTED, RepairTask

__all__ = ["OpenSandbox", "Submission", "collect_submission", "is_allowed", "lay_over", "solution_of", "spec_of"]

OpenSandbox = Callable[[SandboxSpec], Sandbox]
"""Opens a `Sandbox`."""

_MAX_FILES = 200
_MAX_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Submission:
    """What an agent hands in.

    Attributes:
        files: contents by path; only what differs from the task's files.
        deleted: files of the task that it removed.
        refused: why it cannot be graded and so fails; empty where it can.
    """

    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    deleted: tuple[str, ...] = ()
    refused: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what is graded."""
        content = sorted((path, hashlib.sha256(data).hexdigest()) for path, data in self.files.items())
        return hashlib.sha256(json.dumps([content, sorted(self.deleted)]).encode()).hexdigest()


def spec_of(task: RepairTask) -> SandboxSpec:
    """Returns the sandbox that a task starts in."""
    files = task.workspace()
    base = files
    if task.base or task.executable:
        base = check_out(task.base, tuple(sorted(files.items())), task.executable)
    env = testing_env(task.suite.source if task.suite else (".",)) if task.uses_pytest else ENV
    return SandboxSpec(base=base, env=env, image=task.image)


def is_allowed(path: str, task: RepairTask) -> bool:
    """Whether a file may be part of a submission."""
    if task.suite is not None and not task.suite.may_hold(path):
        return False
    return any(fnmatchcase(path, pattern) for pattern in task.editable) and not any(
        fnmatchcase(path, pattern) for pattern in PROTECTED
    )


def solution_of(task: RepairTask) -> Submission:
    """Returns the task's own solution as a submission; what none may hold is left out."""
    files = {path: as_bytes(content) for path, content in task.solution.items() if is_allowed(path, task)}
    return Submission(files, tuple(path for path in task.removed if is_allowed(path, task)))


def collect_submission(sandbox: Sandbox, task: RepairTask) -> Submission:
    """Returns what the agent changed, of what it may hand in.

    Links, pipes and files in folders that became links are left out, as are all files that it may not change.

    Raises:
        SandboxError: the sandbox broke.
    """
    base = origin_of(spec_of(task))
    changes = [change for change in sandbox.changes(base) if is_allowed(change.path, task)]
    # a file that became a link or a folder is gone, as far as grading goes
    deleted = tuple(c.path for c in changes if c.kind != "added" and (c.kind == "deleted" or c.type != "file"))
    changed = [c for c in changes if c.kind != "deleted" and c.type == "file"]
    size = sum(change.size for change in changed)
    if len(changed) > _MAX_FILES or size > _MAX_BYTES:
        return Submission(
            refused=f"it has {len(changed)} changed files of {size} bytes together; "
            f"at most {_MAX_FILES} files and {_MAX_BYTES} bytes are graded"
        )
    files: dict[str, bytes] = {}
    for change in changed:
        try:
            files[change.path] = sandbox.read(change.path)
        except WorkspaceError as error:
            return Submission(refused=f"{change.path} cannot be read: {error.strerror}")
    return Submission(files, deleted)


def lay_over(sandbox: Sandbox, task: RepairTask, submission: Submission) -> str:
    """Puts the submission over the task's files; returns why that cannot be."""
    for path in (*submission.files, *submission.deleted):
        if not is_allowed(path, task):
            return f"{path} cannot be part of a submission"
    try:
        if submission.deleted:
            sandbox.exec(["rm", "-rf", "--", *submission.deleted])
        sandbox.upload(submission.files)
    except (WorkspaceError, ValueError) as error:
        return f"it cannot be laid over the task's files: {error}"
    return ""
