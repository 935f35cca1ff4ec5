"""Folders that `write_harbor` writes, in a container as Harbor runs them: its image, its places, its two scripts."""

import io
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sandbox_backends import skip_without

from agentenv.envs.code_repair import bundled_tasks
from agentenv.exports import write_harbor
from agentenv.sandboxes.engines import engine_at

pytestmark = pytest.mark.docker
BASE = "agentenv-harbor-base:latest"
TASK = "agentenv-harbor-task:latest"


def packed(entries: dict[str, Path | str | None]) -> bytes:
    """Returns a tar of folders that are copied, links, and empty folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in entries.items():
            if isinstance(what, Path):
                tar.add(what, name)
                continue
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = (
                (tarfile.SYMTYPE, what, 0o777) if what else (tarfile.DIRTYPE, "", 0o777)
            )
            tar.addfile(info)
    return out.getvalue()


@contextmanager
def container(api: Any, place: Path):
    """Builds the folder's image and starts a container of it, with this machine's programs and no network."""
    links = {name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin")}
    folders = dict.fromkeys(("usr", "tmp", "etc", "proc", "dev", "sys"))
    api.import_image_from_data(packed({**folders, **links}), repository="agentenv-harbor-base", tag="latest")
    built = list(api.build(path=str(place / "environment"), tag=TASK, rm=True, network_mode="none", decode=True))
    assert not any("error" in line for line in built), built
    host = api.create_host_config(binds=["/usr:/usr:ro"], network_mode="none")
    made = api.create_container(TASK, ["sleep", "300"], host_config=host)
    try:
        api.start(made)
        yield made
    finally:
        api.remove_container(made, force=True)
        api.remove_image(TASK, force=True)
        api.remove_image(BASE, force=True)


def run(api: Any, made: Any, *command: str) -> str:
    started = api.exec_create(made, list(command), environment={"PATH": "/usr/local/bin:/usr/bin:/bin"})
    said = api.exec_start(started).decode()
    assert api.exec_inspect(started)["ExitCode"] == 0, said
    return said


def test_the_oracle_is_paid_in_the_image_of_the_folder_and_an_idle_agent_is_not(tmp_path):
    skip_without("docker")
    api = engine_at(None).api
    task = next(task for task in bundled_tasks() if task.hidden and not task.uses_pytest)
    (place,) = write_harbor([task], tmp_path, image=BASE)
    with container(api, place) as made:
        api.put_archive(made, "/", packed({name: place / name for name in ("tests", "solution")}))
        rewards: list[str] = []
        for agent in (None, "/solution/solve.sh"):
            if agent is not None:
                run(api, made, agent)
            run(api, made, "/tests/test.sh")
            rewards.append(run(api, made, "cat", "/logs/verifier/reward.txt").strip())
    assert rewards == ["0", "1"]
