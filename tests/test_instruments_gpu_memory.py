"""GPU memory: whose it is, on which card, and what a card must be before an engine is started on it."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.errors import ConfigurationError, NotJudged, StackError
from fixtures.instruments import cards
from fixtures.instruments.gpu_memory import WHO_EVERY, CardUse, GpuMemory, GpuTimeline, PodGpuMemory, Use, check_free
from tests.fakes.nvml import FakeCard, FakeNvml

GIB = 1024**3


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A driver with two H100s."""
    fake = FakeNvml([FakeCard(), FakeCard()])
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def processes(*pids: int) -> Any:
    return lambda: [SimpleNamespace(pid=pid) for pid in pids]


def test_a_card_is_named_with_size_driver_and_link(driver: FakeNvml) -> None:
    card = cards.cards()[1]
    assert str(card) == "NVIDIA H100 80GB HBM3, 80 GiB, driver 580.95.05, PCIe 5 x16"
    assert card.link_bytes_per_s == pytest.approx(63e9, rel=0.01)


@pytest.mark.parametrize(
    ("generation", "transfers_per_s", "coding"),
    [
        (1, 2.5e9, 8 / 10),
        (2, 5e9, 8 / 10),
        (3, 8e9, 128 / 130),
        (4, 16e9, 128 / 130),
        (5, 32e9, 128 / 130),
        (6, 64e9, 242 / 256),
    ],
)
def test_a_link_is_as_quick_as_its_generation_and_width(generation: int, transfers_per_s: float, coding: float) -> None:
    """Transfers of a bit on each lane, of which the coding takes a part."""
    card = cards.Card(0, "a", "GPU-0", 1, "580", generation, link_width=8, mig=False)
    assert card.link_bytes_per_s == pytest.approx(8 * transfers_per_s * coding / 8, rel=1e-3)


@pytest.mark.parametrize(("generation", "width"), [(None, None), (5, None), (None, 16), (9, 16)])
def test_a_link_that_is_not_known_has_no_bandwidth(generation: int | None, width: int | None) -> None:
    assert cards.Card(0, "a", "GPU-0", 1, "580", generation, width, mig=False).link_bytes_per_s is None


@pytest.mark.parametrize(
    ("visible", "indices"), [(None, [0, 1]), ("", [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-1", [1]), ("7", [0, 1])]
)
def test_the_visible_cards_come_in_their_order(driver: FakeNvml, visible: str | None, indices: list[int]) -> None:
    assert [card.index for card in cards.visible_cards(visible)] == indices


def test_memory_is_the_processes_own_on_every_card(driver: FakeNvml) -> None:
    driver.cards[0].users = [(10, 30 * GIB), (99, 1 * GIB)]
    driver.cards[1].users = [(11, 20 * GIB)]
    with GpuMemory((0, 1), processes(10, 11)) as memory:
        use = memory.read()
    assert (use.cards[0].own, use.cards[0].others, use.cards[1].own) == (30 * GIB, 1 * GIB, 20 * GIB)
    assert use.engine == 50 * GIB
    assert memory.peak_bytes == 30 * GIB, "of any one card, for a budget is a card's"
    with pytest.raises(NotJudged, match="another process holds 1024 MiB on GPU 0"):
        memory.check_alone(lambda: 80 * GIB)


def test_a_cache_server_on_the_card_is_neither_the_engine_nor_a_stranger(driver: FakeNvml) -> None:
    driver.cards[0].users = [(10, 30 * GIB), (20, 2 * GIB)]
    with GpuMemory((0,), processes(10), processes(20)) as memory:
        use = memory.read()
    assert (use.engine, use.servers, use.whole_stack) == (30 * GIB, 2 * GIB, 32 * GIB)
    memory.check_alone(lambda: 80 * GIB)


@pytest.mark.parametrize(("used", "own"), [(35, 34), (29, 28), (31, 30), (0, 0)])
def test_between_two_questions_what_comes_or_goes_is_the_engines(driver: FakeNvml, used: int, own: int) -> None:
    driver.cards[0].used, driver.cards[0].users = 31 * GIB, [(10, 30 * GIB)]
    with GpuMemory((0,), processes(10)) as memory:
        driver.cards[0].used = used * GIB
        assert memory._sample(whose=False).engine == own * GIB
    assert memory.peak_bytes == max(30, own) * GIB


def test_the_driver_is_asked_whose_memory_it_is_now_and_then() -> None:
    asked: list[bool] = []

    class Noted(GpuTimeline):
        interval_s = 0.5

        def _cards(self, whose: bool) -> dict[int, CardUse]:
            asked.append(whose)
            return {0: CardUse(1, None, 0, 0)}

    waits: list[float] = []
    memory = Noted()
    memory.began = 0.0
    memory._stop = SimpleNamespace(wait=lambda s: bool(waits.append(s)) or len(waits) > 2 * WHO_EVERY)  # type: ignore[assignment]
    memory._run()
    assert asked == [*[False] * (WHO_EVERY - 1), True] * 2
    assert set(waits) == {0.5}


def test_what_sampling_costs_is_a_share_of_its_time(driver: FakeNvml) -> None:
    with GpuMemory((0,), processes(10)) as memory:
        pass
    samples = [Use(seconds, {}) for seconds in (0.0, 1.0, 4.0)]
    memory.samples, memory.busy_s = samples, 0.5
    assert (memory.per_second, memory.busy_share, memory.busy_percent) == (0.5, 0.125, 12.5)
    memory.samples = samples[:1]
    assert memory.busy_share == 0.5 / GpuMemory.interval_s


def test_a_process_that_comes_later_is_found(driver: FakeNvml) -> None:
    running: list[Any] = [SimpleNamespace(pid=10)]
    with GpuMemory((0,), lambda: running) as memory:
        running.append(SimpleNamespace(pid=11))
        driver.cards[0].users = [(10, GIB), (11, 2 * GIB)]
        assert memory.read().engine == 3 * GIB
        memory.check_alone(lambda: 80 * GIB)


def test_where_the_driver_names_no_process_the_whole_card_counts(driver: FakeNvml) -> None:
    driver.cards[0].used, driver.cards[0].users = 7 * GIB, [(4711, None)]
    with GpuMemory((0,), processes(10)) as memory:
        use = memory.read()
    assert (use.cards[0].own, use.engine) == (None, 7 * GIB)
    memory.check_alone(lambda: 80 * GIB)


def test_a_card_that_is_lost_is_no_verdict(driver: FakeNvml) -> None:
    with GpuMemory((0,), processes(10)) as memory:
        driver.cards[0].lost = True
        with pytest.raises(NotJudged, match=r"GPU 0 does not respond .*XID"):
            memory.read()


@pytest.mark.parametrize(
    ("card", "message"),
    [(FakeCard(mig=1), r"MIG mode.*nvidia-smi -mig 0"), (FakeCard(used=5 * GIB), "busy: 5120 MiB were in use")],
)
def test_a_card_that_cannot_be_used_is_refused(driver: FakeNvml, card: FakeCard, message: str) -> None:
    driver.cards[0] = card
    with pytest.raises(ConfigurationError, match=message):
        check_free(cards.cards()[0])


def test_a_free_card_is_taken(driver: FakeNvml) -> None:
    check_free(cards.cards()[0])


def test_no_card_at_all_names_the_way_out(driver: FakeNvml) -> None:
    driver.cards.clear()
    with pytest.raises(ConfigurationError, match="omit --gpu"):
        cards.cards()


TWO_CARDS = "0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 40000\n1, GPU-b, NVIDIA H100 80GB HBM3, 81559, 30000\n"
MIB = 1024**2


def test_the_cards_of_pods_are_counted_each_and_in_sum() -> None:
    tables = {"pod-1": TWO_CARDS, "pod-2": "0, GPU-c, NVIDIA H100 80GB HBM3, 81559, 50000\n"}
    with PodGpuMemory({name: lambda name=name: tables[name] for name in tables}) as memory:  # type: ignore[misc]
        use = memory.read()
        tables["pod-1"] = TWO_CARDS.replace("30000", "60000")
        memory.read()
    assert {index: card.total // MIB for index, card in use.cards.items()} == {0: 40000, 1: 30000, 2: 50000}
    assert all(card.own is None for card in use.cards.values()), "a container does not see whose memory it is"
    assert use.engine == 120000 * MIB
    assert memory.peak_bytes == 60000 * MIB
    assert memory.peak_sum_bytes == 150000 * MIB
    assert memory.busy_share is None
    memory.check_alone(lambda: 80 * GIB)


def test_a_card_that_two_pods_share_is_one_card() -> None:
    table = "0, GPU-a, NVIDIA L4, 23034, 9000\n"
    with PodGpuMemory({"one": lambda: table, "two": lambda: table}) as memory:
        assert memory.read().engine == 9000 * MIB
    with pytest.raises(NotJudged, match=r"pods one, two share one GPU \(GPU-a"):
        memory.check_alone(lambda: 80 * GIB)


@pytest.mark.parametrize(("used", "alone"), [(25_000, True), (25_001, False), (74_284, False)])
def test_a_card_that_holds_more_than_the_budget_before_any_load_is_shared(used: int, alone: bool) -> None:
    tables = [f"0, GPU-a, NVIDIA H200, 143771, {used}\n"]
    with PodGpuMemory({"pod": lambda: tables[-1]}) as memory:
        tables.append("0, GPU-a, NVIDIA H200, 143771, 26000\n")
        assert memory.read().engine == 26_000 * MIB
    with (
        contextlib.nullcontext()
        if alone
        else pytest.raises(
            NotJudged,
            match=f"{used} MiB of GPU 0 were in use before any load, more than the engine's budget of 25000 MiB",
        )
    ):
        memory.check_alone(lambda: 25_000 * MIB)


def test_a_pod_is_sampled_at_a_period_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PodGpuMemory, "interval_s", 0.01)
    enough, asked = threading.Event(), []

    def read() -> str:
        asked.append(1)
        if len(asked) == 4:
            raise StackError("the API server is away")
        if len(asked) > 8:
            enough.set()
        return TWO_CARDS

    with PodGpuMemory({"pod": read}) as memory:
        assert enough.wait(10), "one failure ends no sampling"
    assert memory.per_second > 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "nvidia-smi in pod p shows no GPU"),
        ("0, GPU-a, NVIDIA H100, [Insufficient Permissions], [Insufficient Permissions]", "MIG mode"),
        ("No devices were found", r"does not show how much memory is in use \(No devices were found\)"),
    ],
)
def test_a_table_that_tells_nothing_is_no_verdict(table: str, message: str) -> None:
    with pytest.raises(NotJudged, match=message), PodGpuMemory({"p": lambda: table}):
        pass


def test_a_card_that_a_pod_lost_is_no_verdict() -> None:
    tables = [TWO_CARDS]
    with PodGpuMemory({"p": lambda: tables[-1]}) as memory:
        tables.append(TWO_CARDS.splitlines()[0])
        with pytest.raises(NotJudged, match="no longer shows GPU-b"):
            memory.read()
