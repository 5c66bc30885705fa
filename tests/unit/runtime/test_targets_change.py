"""New targets reach a running pod: through the mounted file and through the admin socket, without a
restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

from paceline_core import Outcome, Targets
from paceline_runtime.vllm_plugin import targets_file
from tests.unit.runtime.pod import EASY, Pod, pod, target, until

IMPOSSIBLE = Targets(classes=(target(ttft_ms=1, tpot_ms=1),))


async def answer(one: Pod) -> None:
    await one.answer(max_tokens=4)
    await one.idle()


async def test_targets_put_on_the_admin_socket_judge_the_next_request(tmp_path: Path) -> None:
    async with pod(tmp_path, targets=EASY) as one:
        await answer(one)
        async with one.admin.put("http://pod/targets", data=IMPOSSIBLE.to_json()) as response:
            assert response.status == 200
        await answer(one)
        assert one.count(Outcome.GOOD) == 1
        assert one.count(Outcome.LATE_BOTH) == 1


async def test_targets_that_cannot_be_read_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with pod(tmp_path, targets=EASY) as one:
        async with one.admin.put("http://pod/targets", data='{"latencyClasses": []}') as response:
            assert response.status == 400
            assert "at least one class" in await response.text()
        assert one.serving.ledger.targets == EASY


async def test_a_change_of_the_mounted_file_is_followed(tmp_path: Path) -> None:
    """As the kubelet does it: the file is a link into a folder that is swapped."""
    swap(tmp_path, "first", EASY)
    async with pod(tmp_path, targets=EASY) as one:
        following = asyncio.create_task(targets_file.follow(one.serving, every_s=0.01))
        await asyncio.sleep(0.05)
        swap(tmp_path, "second", IMPOSSIBLE)
        await until(lambda: one.serving.ledger.targets == IMPOSSIBLE)
        await answer(one)
        assert one.count(Outcome.LATE_BOTH) == 1
        following.cancel()


async def test_a_file_that_is_broken_for_a_while_leaves_the_targets_alone(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(EASY.to_json())
    async with pod(tmp_path, targets=EASY) as one:
        following = asyncio.create_task(targets_file.follow(one.serving, every_s=0.01))
        await asyncio.sleep(0.05)
        path.write_text('{"latencyCl')
        await asyncio.sleep(0.1)
        assert one.serving.ledger.targets == EASY
        path.unlink()
        await asyncio.sleep(0.1)
        path.write_text(IMPOSSIBLE.to_json())
        await until(lambda: one.serving.ledger.targets == IMPOSSIBLE)
        following.cancel()


async def test_a_class_that_is_gone_keeps_its_counts(tmp_path: Path) -> None:
    before = Targets(classes=(target(name="old"),))
    after = Targets(classes=(target(name="new"),))
    async with pod(tmp_path, targets=before) as one:
        await answer(one)
        one.serving.ledger.retarget(after)
        await answer(one)
        assert one.counted == {("old", "good"): 1, ("new", "good"): 1}


def swap(folder: Path, version: str, targets: Targets) -> None:
    data = folder / version
    data.mkdir()
    (data / "targets.json").write_text(targets.to_json())
    link = folder / "..data"
    fresh = folder / "..data_tmp"
    fresh.symlink_to(version)
    fresh.replace(link)
    visible = folder / "targets.json"
    if not visible.is_symlink():
        visible.symlink_to("..data/targets.json")
