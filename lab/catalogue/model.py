"""What a fault and a healthy variant are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lab.case_selection import CHAT

if TYPE_CHECKING:
    from fixtures.provide.values.config import RecipeName

Kind = Literal[
    "configuration",
    "inactive",
    "wrong answer",
    "leakage",
    "crash or hang",
    "memory",
    "serving",
    "observability",
    "latency",
]


@dataclass(frozen=True)
class Values:
    """Other values of the embedded configuration; the stack is stood up with them.

    ``changes`` are dotted paths below ``modelSpec[0]`` (None removes one); ``env`` and ``extra_args`` are appended.
    The proof: ``shows`` (a regular expression) is found, or with ``absent`` not found, in ``where`` of the running stack:
    the engine's ``command``, its ``environment``, the ``log``, or the ``record``.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    env: tuple[tuple[str, str], ...] = ()
    extra_args: tuple[str, ...] = ()
    recipe: RecipeName | None = None
    """Another model that is made locally (``fixtures/provide/process/recipes.yaml``), which brings its own tokenizer."""
    files: dict[str, str] = field(default_factory=dict)
    """Files that are written beside the values; ``{folder}`` in ``env`` names their folder."""
    configuration: str = ""
    """Name of another configuration that is changed, in place of the embedded one."""
    router: dict[str, Any] = field(default_factory=dict)
    """Other values of ``routerSpec``."""
    own_router: bool = False
    """The router is production-stack's own, of the interpreter that ``KV_OFFLOAD_ROUTER_PYTHON`` names, not vllm-router."""
    server: tuple[str, ...] = ()
    """More words on the command line of ``lmcache server`` in ``extraObjects``."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Other keys of the ``--l2-adapter`` of the cache server in ``extraObjects``; ``{folder}`` as above."""
    where: Literal["command", "environment", "log", "record"] = "record"
    shows: str = ""
    absent: bool = False


@dataclass(frozen=True)
class Hook:
    """A fault inside the engine or the cache server (``hooks/seeded.py``); the proof is a line that it writes.

    ``at_start``: it acts while processes start or end, so it needs a stack of its own, which the suite stands up.
    ``values``: it needs a stack with other values.
    A parameter ``prefills`` is a time, in units of what computing as many tokens takes (``Bench.addressed``).
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    at_start: bool = False
    values: Values | None = None


@dataclass(frozen=True)
class Proxy:
    """A fault between clients and engine, or router (``proxy.py``); the proof is its own count."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    values: Values | None = None
    """It needs a stack with other values; one with a router has the fault in front of that."""


@dataclass(frozen=True)
class Process:
    """Something happens to a process of the stack, or to the machine, while the suite runs; the proof is what it says.

    A fault does so while the suite runs, and the stack is not used again; ``values`` may shorten deadlines.
    """

    action: Literal[
        "kill-cache-server",
        "restart-cache-server",
        "freeze-cache-server",
        "kill-engine",
        "freeze-engine",
        "disconnects",
        "cpu-load",
        "other-clients",
        "kill-store",
        "remove-folder",
        "write-protect-folder",
        "small-folder",
    ]
    values: Values | None = None
    seconds: float = 0.0
    count: int = 1
    """Of programs that compute."""


KEPT_S = 0.1
"""How long a prompt that was stored early is kept waiting: what forgets it later has a fault of its own."""


KNOWN_DEFECTS = ("RES-01:load", "RES-04", "RES-07", "COR-06")
"""Cases that vLLM 0.32 with LMCache 0.5.6 does not meet without any fault; faults of the catalogue show them."""


Injection = Values | Hook | Proxy | Process


@dataclass(frozen=True)
class Fault:
    """One fault of the catalogue."""

    id: str
    kind: Kind
    title: str
    source: str
    injection: Injection
    expected: frozenset[str]
    allowed: frozenset[str] = frozenset()
    not_judged: frozenset[str] = frozenset()
    """Requirements that must not be judged: the fault hides what they need."""
    slow: bool = False
    """Run the timing and memory tests too."""
    tests: tuple[str, ...] = ()
    """Only tests of these requirements: for faults under which every request takes its deadline."""
    chat: bool = False
    """Ask the chat endpoint, too."""
    without: tuple[str, ...] = KNOWN_DEFECTS
    """Requirements that are not judged, or cases of them: what the pair without any fault does not meet, either."""
    kept_s: float = KEPT_S
    """How long the suite waits before it asks again for a prompt that was stored early (``--deadline kept``)."""

    @property
    def scope(self) -> tuple[str, ...]:
        """What is run: all of the links that should notice, and of every other link what would notice most."""
        if self.tests:
            return self.tests
        turned = self.expected | self.not_judged
        chat = {CHAT} if self.chat else set()
        return tuple(sorted(turned | {id_.partition("-")[0] for id_ in turned} | SENTINELS | chat))


@dataclass(frozen=True)
class Healthy:
    """A variant on which nothing may fire."""

    id: str
    title: str
    setting: Injection | None = None
    slow: bool = False
    """Run the timing and memory tests too; without a setting, everything is run."""
    tests: tuple[str, ...] = ()
    """Only tests of these requirements: for variants in which every exchange takes its time."""
    without: tuple[str, ...] = ()
    """Requirements that another variant judges, or that a known defect of engine or cache keeps from being met: a fault of the
    catalogue or a report in ``docs/evidence`` shows it."""


def ids(text: str) -> frozenset[str]:
    """Requirement ids from words."""
    return frozenset(text.split())


SENTINELS = ids("CFG-01 ACT-04 ACC-02 COR-01 API-02")
"""The most sensitive requirements: they run under every fault, so that a check which fires on anything shows. Those that need
the machine to themselves (LAT, MEM) run under faults of their own area, and in the healthy variants."""
