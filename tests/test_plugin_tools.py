"""What the plugin makes of a fault that a test met: whose it is, and how long a test may take."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import SETTABLE, Deadlines, parse
from fixtures.core.errors import NoAnswer, NotJudged, StackError, SubjectFault, SubjectGone
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, StackRecord
from fixtures.plugin import observation
from fixtures.plugin import tools as plugin
from fixtures.plugin.run import RUN_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

GONE = SubjectGone("engine a ended during the run; not judged because of it")


NOBODY: Set[str] = frozenset()


def item_of(behind: Exception | None, *, gone: Set[str] = NOBODY, before: Set[str] = NOBODY, owns: bool) -> Any:
    def explain(_: AssertionError) -> SubjectGone | None:
        if isinstance(behind, StackError | NotJudged) and not isinstance(behind, SubjectGone):
            raise behind
        assert behind is None or isinstance(behind, SubjectGone)
        return behind

    stack = SimpleNamespace(health=SimpleNamespace(explain=explain, known_gone=frozenset(gone)))
    stash = pytest.Stash()
    seen: Any = SimpleNamespace(stack=stack, owns_deaths=owns, gone=frozenset(before))
    stash[observation.OBSERVATION_KEY] = seen
    return SimpleNamespace(stash=stash)


FAULT = NoAnswer("POST http://x/v1/completions: refused")


def test_a_death_is_not_blamed_on_the_claim_under_test() -> None:
    with pytest.raises(SubjectGone):
        observation._explain(item_of(GONE, gone={"a"}, owns=False), FAULT)
    with pytest.raises(SubjectGone):
        observation._explain(item_of(GONE, gone={"a"}, before={"a"}, owns=True), FAULT)


def test_a_test_keeps_the_death_that_its_own_requests_brought_about() -> None:
    observation._explain(item_of(GONE, gone={"a"}, owns=True), FAULT)


@pytest.mark.parametrize(
    ("engines", "asked", "said", "told"),
    [
        (2, ["a", "b"], "expected 1, got 2\nassert 2 == 1", "expected 1, got 2 (engine b)\nassert 2 == 1"),
        (2, ["b"], "expected b to answer", "expected b to answer"),
        (1, ["a"], "expected 1, got 2", "expected 1, got 2"),
        (2, [], "expected 1, got 2", "expected 1, got 2"),
    ],
)
def test_a_fault_names_the_engine_that_was_asked_last(engines: int, asked: list[str], said: str, told: str) -> None:
    stack = SimpleNamespace(record=SimpleNamespace(engines=list(range(engines))))
    stash = pytest.Stash()
    seen: Any = SimpleNamespace(stack=stack, exchanges=[SimpleNamespace(engine=name) for name in asked])
    stash[observation.OBSERVATION_KEY] = seen
    fault = AssertionError(said)
    observation._name_engine(SimpleNamespace(stash=stash), fault)  # type: ignore[arg-type]
    assert str(fault) == told


def test_a_fault_of_a_healthy_stack_stays() -> None:
    observation._explain(item_of(None, owns=False), SubjectFault("expected 1, got 2"))
    observation._explain(item_of(StackError("the API server is away"), owns=False), FAULT)
    observation._explain(SimpleNamespace(stash=pytest.Stash()), FAULT)  # type: ignore[arg-type]


def test_a_release_that_was_changed_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="changed meanwhile"):
        observation._explain(item_of(NotJudged("the release was changed meanwhile"), owns=False), FAULT)


@pytest.fixture
def timer() -> Iterator[None]:
    before, handler = signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)
    signal.signal(signal.SIGALRM, handler)


@pytest.mark.usefixtures("timer")
def test_the_timeout_of_a_test_is_put_off_and_never_brought_forward() -> None:
    signal.setitimer(signal.ITIMER_REAL, 50)
    observation._put_off_timeout(1000)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    observation._put_off_timeout(10)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    signal.setitimer(signal.ITIMER_REAL, 0)
    observation._put_off_timeout(1000)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0, "no timeout is switched on where there is none"


def test_deadlines_are_set_by_name() -> None:
    table = parse(["answer=600", "idle_s=2.5"])
    assert (table.answer_s, table.idle_s, table.reset_s) == (600.0, 2.5, Deadlines().reset_s)
    assert "tokens_per" not in SETTABLE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("anser=5", r"give NAME=SECONDS \(did you mean answer\?\); names: answer, "),
        ("answer", "give NAME=SECONDS"),
        ("answer=soon", "give a number of seconds above 0"),
        ("answer=0", "give a number of seconds above 0"),
        ("answer=inf", "give a number of seconds above 0"),
        ("answer=nan", "give a number of seconds above 0"),
        ("answer=1e20", "above 0, and at most 30 days"),
        ("tokens_per=3", "give NAME=SECONDS"),
    ],
)
def test_a_wrong_deadline_is_refused(given: str, words: str) -> None:
    from fixtures.core.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=words):
        parse([given])


OWNER = ProcessRef(pid=1, started=0.0)


class Tier:
    """A stack whose tier forgets what is chosen here."""

    def __init__(self, *, holds: list[bool]) -> None:
        self.record = StackRecord(id="s", kind="process", config="c", folder=Path(), model="m", owner=OWNER)
        self.context = SimpleNamespace(deadlines=Deadlines(kept_s=0.05), step=lambda _: contextlib.nullcontext())
        self.health = SimpleNamespace(check_serving=lambda: None)
        self.check_whole_chunks = lambda: None
        self.tier = SimpleNamespace(holds=self.holds, forget=lambda: None)
        self.chunk_tokens, self.max_model_len, self.vocabulary = 16, 1000, None
        self.asked: list[Any] = []
        self._holds = iter(holds)

    def complete(self, prompt: Any) -> None:
        self.asked.append(prompt)

    def holds(self, prompt: Any) -> bool:
        assert prompt == self.asked[-1]
        return next(self._holds)


def request_of(*fixtures: str) -> Any:
    stash = pytest.Stash()
    run: Any = SimpleNamespace(context=SimpleNamespace(seed=1))
    stash[RUN_KEY] = run
    items = [SimpleNamespace(fixturenames=("stack", *fixtures))]
    return SimpleNamespace(config=SimpleNamespace(stash=stash), session=SimpleNamespace(items=items))


def early_of(request: Any, stack: Tier) -> plugin.Early:
    return plugin.early.__wrapped__(request, stack)  # type: ignore[attr-defined]


def test_an_early_prompt_is_stored_once_and_only_where_it_is_asked_for() -> None:
    stack, request = Tier(holds=[True, True]), request_of("early")
    plugin._store_early(request_of("prompts"), stack)  # type: ignore[arg-type]
    assert stack.asked == []
    for _ in range(2):
        plugin._store_early(request, stack)  # type: ignore[arg-type]
    found = early_of(request, stack)
    assert [found.prompt] == stack.asked
    assert found.age_s >= 0.05, "a tier that forgets after some time is seen only when that has passed"


def test_prompts_are_new_where_an_earlier_run_may_have_stored_them() -> None:
    """A run can be repeated with its seed; on a remote tier its prompts would be hits."""
    one, other = Tier(holds=[]), Tier(holds=[])
    other.record.id = "t"
    sources = [plugin.source_of(request_of(), stack, "x") for stack in (one, other)]  # type: ignore[arg-type]
    assert sources[0].unique(1).ids == sources[1].unique(1).ids
    for stack in (one, other):
        stack.record.engines = [EngineServer(name="e", url="http://e", env={"LMCACHE_REMOTE_URL": "redis://r"})]
    sources = [plugin.source_of(request_of(), stack, "x") for stack in (one, other)]  # type: ignore[arg-type]
    assert sources[0].unique(1).ids != sources[1].unique(1).ids


@pytest.mark.parametrize(("owner", "new"), [(OWNER, False), (None, True)])
def test_a_deployment_of_others_may_have_met_every_prompt_of_the_seed(owner: ProcessRef | None, new: bool) -> None:
    """By release or by URL nothing tells of an earlier run, nor of all tiers: the record of every run has a name of its own."""
    one, other = Tier(holds=[]), Tier(holds=[])
    for stack, id_ in ((one, "kv-vllm-1"), (other, "kv-vllm-2")):
        stack.record.owner, stack.record.id = owner, id_
    first, second = (plugin.source_of(request_of(), stack, "x").unique(1).ids for stack in (one, other))  # type: ignore[arg-type]
    assert (first != second) == new


def test_several_configurations_are_asked_the_same() -> None:
    prompts = []
    for name in ("disk", "embedded"):
        stack = Tier(holds=[])
        stack.record.config = name
        nodeid = f"suite/test_a.py::test_b[{name}-8]"
        prompts.append(plugin.source_of(request_of(), stack, nodeid).unique(1).ids)  # type: ignore[arg-type]
    assert prompts[0] == prompts[1]


def test_an_early_prompt_that_had_to_make_room_is_stored_again() -> None:
    stack, request = Tier(holds=[False, True]), request_of("early")
    plugin._store_early(request, stack)  # type: ignore[arg-type]
    assert early_of(request, stack).prompt == stack.asked[1]
    assert stack.asked[0] != stack.asked[1]


def test_where_the_content_of_the_tier_is_not_known_nothing_is_claimed() -> None:
    with pytest.raises(NotJudged, match="the expected content of the CPU tier is not known"):
        early_of(request_of("early"), Tier(holds=[False]))


def test_what_goes_wrong_while_it_is_stored_is_not_the_first_tests() -> None:
    stack, request = Tier(holds=[True]), request_of("early")
    stack.complete = lambda _: (_ for _ in ()).throw(SubjectFault("500"))  # type: ignore[method-assign, assignment]
    plugin._store_early(request, stack)  # type: ignore[arg-type]
    assert request.config.stash[plugin.EARLY_KEY] == {}
