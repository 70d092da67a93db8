"""A server that is not there: nothing was sent, so nothing is taken for spent."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")  # need_teacher says so where it must be there

from asking_apis import APIS, call_of

from btrm.runs import Resources, RunPaths, StageRun
from btrm.teacher.asking import open_asker
from btrm.teacher.base import Call, TransientError
from btrm.teacher.chain import Chain
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import Journal
from btrm.teacher.tally import Tally

pytestmark = pytest.mark.usefixtures("need_teacher")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a port that nobody listens at."""
    for api in APIS:
        monkeypatch.setenv(f"{api.upper()}_API_KEY", "sk-nobody-reads-this")
    for name in ("GOOGLE_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("host", ["closed", "no-such-host.invalid"])
@pytest.mark.parametrize("api", APIS)
def test_a_server_that_is_not_there_costs_nothing(api: str, host: str, nobody: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[{api}]\n"*" = {{ input = 10, output = 100 }}\n')
    url = nobody if host == "closed" else f"http://{host}/v1"
    config = TeacherConfig(
        backend=api, model="m", base_url=url, prices=str(prices), budget_usd=1.0, max_attempts=1, timeout_s=120.0
    )
    run = StageRun(
        RunPaths(tmp_path), "teacher", tmp_path / "teacher", Resources(), tmp_path / "teacher" / "stage.json"
    )
    (run.dir / "calls").mkdir(parents=True)

    async def asked(call: Call) -> TransientError:
        asker = await open_asker(config, run, Journal(run.dir / "calls" / "0-9.0001.jsonl"))
        turn = await asker.gate.admit(asker.most(call))
        try:
            with pytest.raises(TransientError) as caught:
                await asker.backend.ask(call)
            answers = asker.run([call], wake_s=0.05)
            async for _ in answers:
                pass
            return caught.value
        finally:
            await asker.gate.settle(turn, type(turn.most)())
            await asker.close()

    error = asyncio.run(asked(call_of()))
    assert error.fault == "unreachable" and "cannot be reached" in str(error)
    tally = Tally.from_bytes(Chain(run.dir / ".gate").look())
    assert not sum(tally.spent.values()) and not tally.perhaps and not tally.held
