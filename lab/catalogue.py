"""The faults and the healthy variants, as data.

Every fault names the requirements that must turn (``expected``), those that may turn with them as a consequence
(``allowed``), and nothing else may: a check that fires on everything catches nothing. What is in neither set and fires is
*unrelated*, and the lab fails.

Sources: PS vllm-project/production-stack, LM LMCache/LMCache, V vllm-project/vllm, by issue or pull-request number;
"source" where the code itself was read.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lab.selection import CHAT

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
    """Another model that is made locally (``fixtures/provide/process/recipes.py``), which brings its own tokenizer."""
    files: dict[str, str] = field(default_factory=dict)
    """Files that are written beside the values; ``{folder}`` in ``env`` names their folder."""
    configuration: str = ""
    """Name of another configuration that is changed, in place of the embedded one."""
    router: dict[str, Any] = field(default_factory=dict)
    """Other values of ``routerSpec``."""
    server: tuple[str, ...] = ()
    """More words on the command line of ``lmcache server`` in ``extraObjects``."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Other keys of the ``--l2-adapter`` of the cache server in ``extraObjects``; ``{folder}`` as above."""
    where: Literal["command", "environment", "log", "record"] = "record"
    shows: str = ""
    absent: bool = False


OWN_CONNECTOR = {"lmcacheConfig.enabled": False}
"""The chart puts its own connector behind extraArgs, and the last one counts: it has to go to use another."""

SHORT_DEADLINES = Values(
    OWN_CONNECTOR,
    extra_args=(
        "--kv-transfer-config",
        '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both","kv_connector_extra_config":'
        '{"lmcache.mp.mq_timeout":1,"lmcache.mp.heartbeat_interval":2}}',
    ),
    where="command",
    shows='"lmcache.mp.mq_timeout": 1',
)
"""The connector gives the cache server up after 1 s. Its default is 300 s, and until then every request hangs."""


FAILED_LOADS_COMPUTED = Values(
    OWN_CONNECTOR,
    extra_args=(
        "--kv-transfer-config",
        '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both","kv_load_failure_policy":"recompute"}',
    ),
    where="command",
    shows='"kv_load_failure_policy": "recompute"',
)
"""With vLLM's default (fail), the first load that fails ends the engine of the pair."""


SMALL_TIER = Values(
    {"lmcacheConfig.cpuOffloadingBufferSize": None},
    env=(("LMCACHE_MAX_LOCAL_CPU_SIZE", "0.25"),),
    extra_args=("--num-gpu-blocks-override", "80"),
    where="record",
    shows='"--l1-size-gb",\\s*"0.25"',
)
"""A tier of 128 chunks above a pool of 40: it is overfilled in half a minute."""
DISK = Values(configuration="disk", where="record", shows=r'\\"type\\": \\"fs\\"')
"""A tier in files below the CPU tier."""
REMOTE = Values(configuration="remote", where="record", shows=r'\\"type\\": \\"resp\\"')
"""The same in Redis."""
SIZED = Values(
    configuration="disk",
    adapter={"type": "fs_native", "max_capacity_gb": 0.125, "eviction": {"eviction_policy": "LRU"}},
    where="record",
    shows=r'\\"max_capacity_gb\\": 0.125',
)
"""A tier in files of 128 MiB, twice the CPU tier."""
ENCRYPTED = Values(
    configuration="disk",
    adapter={"serde": {"type": "aesgcm", "master_key_path": "{folder}/key"}},
    files={"key": "sixteen bytes are a key"},
    where="record",
    shows="aesgcm",
)
"""A tier in files whose content is encrypted and authenticated by LMCache."""
BELOW = ("CFG-01", "API-06")
"""What stays silent under the faults of a tier below host memory."""
STATES = tuple(f"TIR-04:{state}" for state in ("full", "read-only", "slow", "frozen", "gone"))


def only(case: str) -> tuple[str, ...]:
    """The other states of such a tier, which are left out; a frozen folder is a known defect of LMCache 0.5.6."""
    return tuple(one for one in STATES if one != f"TIR-04:{case}")


CAPACITY = ("CFG-01", "CAP-01", "CAP-02", "CAP-03", "API-06")


def made_here(recipe: RecipeName) -> Values:
    """Another model of random weights, in place of the configuration's own."""
    return Values(recipe=recipe, where="command", shows=f"models/{recipe}-")


QWEN = made_here("tiny-qwen")
ADAPTERS = made_here("tiny-llama-adapters")
NO_PREFIX_CACHE = Values({"vllmConfig.enablePrefixCaching": False}, where="command", shows="--no-enable-prefix-caching")
TWO_ENGINES = Values({"replicaCount": 2}, where="record", shows="mistral-1")
ROUTED = Values(configuration="two-engines", where="record", shows="router-0")
"""Two engines behind a router, and one cache server for both."""
NATIVE_TIER = Values(configuration="native-cpu", where="command", shows="--kv-offloading-size 1")
"""vLLM's own connector, without LMCache."""
REFUSED_AS_TEXT = (
    *("malformed-json", "empty-body", "not-an-object", "wrong-content-type", "no-prompt"),
    *("prompt-of-wrong-type", "max-tokens-of-wrong-type", "negative-max-tokens"),
    *("chat-without-messages", "chat-messages-of-wrong-type", "chat-negative-max-tokens"),
)
BROKEN_BY_THE_ROUTER = (*(f"{id_}:{name}" for id_ in ("API-09", "RTR-07") for name in REFUSED_AS_TEXT), "RTR-03:frozen")
"""What vllm-router 0.1.17 does not meet without any fault (configs/two-engines/waivers.yaml)."""
ROUTED_TWICE = dataclasses.replace(ROUTED, router={"replicaCount": 2}, shows="router-1")
"""The same with two routers."""
KILLED_ONLY = (*BROKEN_BY_THE_ROUTER, "RTR-03:drained")
EVICTED = ("CFG-01", "ACC-02", "API-02", "TIR-01")
RESTARTED = ("CFG-01", "API-02", "TIR-02")
EVERYTHING_BELOW = ("CFG", "ACT", "ACC-01", "ACC-03", "ACC-07", "COR-01", "API-02", "TIR-01", "TIR-02", "TIR-05")
"""What a small CPU tier above another one can be asked: while it is full, LMCache 0.5.6 refuses to load into it (ACC-02)."""
THROUGH_THE_ROUTER = ("API-09", "RTR-01", "CFG-01")


def server_with(*words: str) -> Values:
    """A cache server with a disk tier, and with more words on its command line."""
    return dataclasses.replace(DISK, server=words, shows=re.escape(words[-1]))


LOOKED_AT = ("TIR-06", "CFG-01", "CFG-03", "API-06")
ROUTING = ("RTR-01", "RTR-02", "RTR-04", "RTR-06", "CFG-01", "CFG-06")


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
        "hang-ups",
        "cpu-load",
        "other-clients",
        "kill-store",
        "remove-folder",
        "write-protect-folder",
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


ACTIVE = ids("ACT-02 ACT-03")
LOADS = ids("ACC-02 ACC-05 ACC-06 ACC-07")
"""Accounted requirements that a tier which gives nothing back cannot meet."""
STORES = ids("ACC-01 ACC-06 ACC-07")
CORRECT = ids("COR-01 COR-02 COR-03 COR-04")
TIMING = ids("LAT-01 LAT-03")
ASKING = ids(
    "ACC-01 ACC-02 ACC-03 ACC-04 ACC-05 ACC-06 ACC-07 ACT-02 ACT-03 COR-01 COR-02 COR-03 COR-04 COR-05 LAT-05 MEM-03 MEM-04 "
    "API-02 API-03 API-04 API-05 API-06 API-07 API-08"
)
"""Everything that sends a prompt of a chunk or more: where requests fail, all of these do."""

REPORTS = ("CFG-01", "ACC-02", "ACC-03", "ACC-09", "API-04", "API-06")
SENTINELS = ids("CFG-01 ACT-04 ACC-02 COR-01 API-02")
"""The most sensitive requirements: they run under every fault, so that a check which fires on anything shows. Those that need
the machine to themselves (LAT, MEM) run under faults of their own link, and in the healthy variants."""


def _below(id_: str, kind: Kind, title: str, hook: Hook, expected: str = "TIR-01", **more: Any) -> Fault:
    """A fault of a tier below the CPU tier; ``hook`` names the fault and has its parameters."""
    values = REMOTE if id_.startswith("redis-") else DISK
    tests = RESTARTED if "TIR-02" in expected else EVICTED
    source = more.pop("source", "source (lmcache/v1/distributed/l2_adapters)")
    injection = dataclasses.replace(hook, values=values)
    return Fault(id_, kind, title, source, injection, ids(expected), tests=more.pop("tests", tests), **more)


BELOW_FAULTS = (
    _below(
        "below-never-written",
        "inactive",
        "what is said to be written to the tier below is not",
        Hook("below-drop"),
    ),
    _below(
        "below-written-late",
        "inactive",
        "what is said to be written below is written a minute later, and lost with the cache server",
        Hook("below-late", {"seconds": 60.0}),
        "TIR-02",
    ),
    _below(
        "below-holds-little",
        "inactive",
        "the tier below keeps the last 40 chunks only, and says nothing",
        Hook("below-keep-few", {"chunks": 40}),
    ),
    _below(
        "below-not-looked-up",
        "inactive",
        "lookups leave out the tier below",
        Hook("below-never-found"),
    ),
    _below(
        "below-first-chunk-only",
        "inactive",
        "of a prompt that is below, only the first chunk is found",
        Hook("below-first-only"),
    ),
    _below(
        "below-in-another-order",
        "wrong answer",
        "the chunks of a prompt come from below in another order",
        Hook("below-mixed-up"),
        allowed=ids("ACT-04"),
    ),
    _below(
        "below-counted-as-cpu",
        "observability",
        "what came from below is counted as found in the CPU tier",
        Hook("below-counted-above"),
    ),
    _below(
        "below-slow",
        "latency",
        "every load from below waits for three seconds",
        Hook("below-slow", {"seconds": 3.0}),
        "TIR-05",
        slow=True,
        tests=("CFG-01", "API-02", "TIR-05"),
    ),
    _below(
        "below-emptied-at-start",
        "inactive",
        "a cache server that starts removes what is below",
        Hook("below-empty-at-start"),
        "TIR-02",
    ),
    _below(
        "below-renamed-at-start",
        "inactive",
        "a cache server that was started again gives chunks other names than before",
        Hook("below-new-names"),
        "TIR-02",
    ),
    _below(
        "keys-differ-after-a-restart",
        "inactive",
        "an engine that was started again makes other keys than before",
        Hook("new-keys"),
        "TIR-02",
        source="V#42625",
    ),
    _below(
        "redis-written-under-other-names",
        "inactive",
        "chunks are written to Redis under names that no lookup asks for",
        Hook("below-lost-names"),
    ),
    _below(
        "redis-renamed-at-start",
        "inactive",
        "a cache server that was started again asks Redis for other names than before",
        Hook("below-new-names"),
        "TIR-02",
    ),
    _below(
        "redis-counted-as-cpu",
        "observability",
        "what came from Redis is counted as found in the CPU tier",
        Hook("below-counted-above"),
    ),
)

VALUES_FAULTS = (
    Fault(
        "connector-missing",
        "configuration",
        "lmcacheConfig is switched off: the engine has no connector and answers everything",
        "PS docs kv_cache/index.rst at 0.1.2 (children at the wrong indent)",
        Values({"lmcacheConfig.enabled": False}, where="command", shows="--kv-transfer-config", absent=True),
        ids("CFG-01 ACT-01 ACC-02"),
        allowed=ids("CFG-02 ACC-01 ACC-05 ACC-06 ACC-07 ACT-02 ACT-03"),
    ),
    Fault(
        "role-that-only-stores",
        "configuration",
        "kv_role is kv_producer: nothing needs to be loaded (this connector loads all the same, others do not)",
        "V 0.32 config/kv_transfer.py (source)",
        Values(
            OWN_CONNECTOR,
            extra_args=("--kv-transfer-config", '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_producer"}'),
            where="command",
            shows="kv_producer",
        ),
        ids("CFG-01"),
        allowed=ACTIVE | LOADS | STORES,
    ),
    Fault(
        "chunk-larger-than-any-prompt",
        "inactive",
        "a chunk of 102 400 tokens, longer than any prompt the model takes: nothing can ever be stored",
        "LM#4094, LM#4109",
        Values({}, env=(("LMCACHE_CHUNK_SIZE", "102400"),), where="environment", shows="LMCACHE_CHUNK_SIZE=102400"),
        ids("ACC-02"),
        allowed=LOADS | STORES | ids("ACC-04 ACT-02 ACT-03 COR-01 COR-02 COR-03 COR-04 MEM-03 MEM-04"),
    ),
    Fault(
        "tier-smaller-than-a-prompt",
        "inactive",
        "a CPU tier of 0.02 GiB, far below one long prompt and below the GPU pool",
        "LM#955, LM#745, LM#1034",
        Values(
            {"lmcacheConfig.cpuOffloadingBufferSize": None},
            env=(("LMCACHE_MAX_LOCAL_CPU_SIZE", "0.02"),),
            where="record",
            shows='"--l1-size-gb",\\s*"0.02"',
        ),
        ids("CFG-08 ACC-02"),
        allowed=ACTIVE | LOADS | STORES | ids("CFG-03 ACC-04 ACT-04 ACT-05 COR-04"),
    ),
    Fault(
        "pool-larger-than-the-tier",
        "configuration",
        "a KV pool of 262 144 tokens above a CPU tier of 131 072: whatever the pool evicts, the tier has evicted before",
        "LM#2641 (LRU thrash)",
        Values({}, extra_args=("--num-gpu-blocks-override", "2048"), where="command", shows="override 2048"),
        ids("CFG-08"),
    ),
    Fault(
        "log-level-hides-the-proof",
        "observability",
        "log level ERROR: the lines that prove a store or a load do not exist",
        "PS chart template, logLevel (source)",
        Values({"lmcacheConfig.logLevel": "ERROR"}, where="environment", shows="LMCACHE_LOG_LEVEL=ERROR"),
        frozenset(),
        not_judged=ids("ACT-02 ACT-03"),
    ),
    Fault(
        "hang-up-during-a-load",
        "crash or hang",
        "a client hangs up while its KV is loaded: vLLM 0.32 ends the engine for all clients (nothing is seeded)",
        "V PR#48821: assert req_id in self.requests",
        NO_PREFIX_CACHE,
        ids("MEM-03"),
        allowed=ids("ACT-04 ACT-05 LAT-05"),
        tests=("CFG-01", "CFG-03", "ACC-01", "API-02", "MEM-03"),
    ),
    Fault(
        "hang-up-while-loading",
        "crash or hang",
        "clients hang up while their KV is loaded from the tier: vLLM 0.32 ends the engine for all others (nothing is seeded)",
        "V PR#48821: assert req_id in self.requests",
        Values({}, where="command", shows="--enable-prefix-caching"),
        ids("RES-01"),
        allowed=ids("ACT-04"),
        tests=("CFG-01", "ACC-01", "API-06", "RES-01"),
        without=(),
    ),
    Fault(
        "limit-below-the-buffer",
        "memory",
        "the pod's memory limit is lower than the host buffer it is to hold",
        "LM#792, LM#1399",
        Values({"limitMemory": "1Gi"}, where="record", shows=r'"memory_limit_bytes": 1073741824'),
        ids("CFG-07"),
    ),
    Fault(
        "pool-cut-by-offload",
        "memory",
        "with offload the KV pool is half as large as without",
        "PS PR#1062 (offload at the cost of the pool)",
        Values({}, extra_args=("--num-gpu-blocks-override", "128"), where="command", shows="override 128"),
        ids("MEM-05"),
    ),
    Fault(
        "disk-size-without-a-path",
        "configuration",
        'diskOffloadingBufferSize: "10" alone: the chart renders the size and no path, and LMCache makes no disk tier of it',
        "PS chart template, LM 0.5.6 storage_backend/__init__.py (source)",
        Values({"lmcacheConfig.diskOffloadingBufferSize": "10"}, where="record", shows='"disk_text": "10"'),
        ids("CFG-02"),
        tests=("CFG-01", "CFG-02", "CFG-03", "TIR-06"),
    ),
    Fault(
        "buffer-with-a-unit",
        "configuration",
        'cpuOffloadingBufferSize: "20Gi": the template takes it for 0 and LMCache keeps its default of 5',
        "PS chart template, gt (int ...) 0 (source)",
        Values({"lmcacheConfig.cpuOffloadingBufferSize": "2Gi"}, where="record", shows='"buffer_text": "2Gi"'),
        ids("CFG-02"),
    ),
    Fault(
        "setting-misspelt",
        "configuration",
        "LMCACHE_MAX_CPU_SIZE and LM_CACHE_CHUNK_SIZE: names that LMCache does not read",
        "LM#419",
        Values(
            {},
            env=(("LMCACHE_MAX_CPU_SIZE", "4"), ("LM_CACHE_CHUNK_SIZE", "512")),
            where="environment",
            shows="LMCACHE_MAX_CPU_SIZE=4",
        ),
        ids("CFG-03"),
    ),
)

HOOK_FAULTS = (
    Fault(
        "store-dropped",
        "inactive",
        "the engine says a store is done and sends nothing",
        "LM#1353, LM#445",
        Hook("drop-store"),
        ids("ACC-01 ACC-02 ACC-05 ACC-06 ACC-07 ACT-02 ACT-03"),
    ),
    Fault(
        "later-steps-not-stored",
        "inactive",
        "only the first prefill step of a long prompt is stored",
        "LM#4109, LM#4094",
        Hook("drop-store", {"from": 1}),
        ids("ACC-01 ACC-02 ACT-02 ACT-03"),
        allowed=ids("ACC-05 COR-04"),
    ),
    Fault(
        "write-never-published",
        "inactive",
        "the cache server acknowledges a store, logs it, and never makes it visible to a reader",
        "LM#4064 (requests counted, objects 0)",
        Hook("lost-write"),
        ids("ACC-01 ACC-02 ACT-03"),
        allowed=ids("ACC-05 ACC-06 ACC-07 ACT-05"),
    ),
    Fault(
        "store-raises",
        "crash or hang",
        "the store path raises an error in the cache server",
        "LM#1330 (the allocation path raises when the pool is full)",
        Hook("raise-in-store", values=SHORT_DEADLINES),
        ids("ACC-01 ACT-02 ACT-04"),
        allowed=ids("LAT-05"),
        tests=("CFG-01", "CFG-03", "ACC-01", "ACT-02", "ACT-04", "LAT-05", "API-06"),
    ),
    Fault(
        "store-refused",
        "inactive",
        "the cache server answers that a store failed",
        "LM#3388",
        Hook("refuse-store"),
        ids("ACT-04"),
    ),
    Fault(
        "index-forgotten",
        "inactive",
        "a lookup finds nothing although everything is stored",
        "LM#1803, LM#1658, LM#2310",
        Hook("lost-index"),
        ids("ACC-02 ACC-05 ACT-03"),
        allowed=ids("ACC-06 ACC-07 ACT-05"),
    ),
    Fault(
        "hash-seed-differs",
        "inactive",
        "prompts are hashed with another seed at every call, as in processes without a common PYTHONHASHSEED",
        "LM#1095, LM#1139, V#42625",
        Hook("reseed"),
        ids("ACC-02 ACC-05 ACC-07 ACT-03"),
        allowed=ids("ACC-06 ACC-01"),
    ),
    Fault(
        "hit-counted-but-recomputed",
        "inactive",
        "the cache counts a hit, the engine computes the prompt all the same",
        "V#30522, PS#818, LM#1109",
        Hook("ignore-hit"),
        ids("ACC-02 ACC-05 ACT-03"),
        allowed=ids("ACC-06 ACC-07 ACT-05"),
    ),
    Fault(
        "one-chunk-too-few",
        "inactive",
        "of every hit the last chunk is left out and computed",
        "LM#2703 (chunk granularity of a hit)",
        Hook("short-hit"),
        ids("ACC-02 ACC-05 ACT-03"),
        allowed=ids("ACC-06 ACT-05 COR-04"),
    ),
    Fault(
        "load-fails",
        "crash or hang",
        "every load fails on the engine's side and is reported as failed",
        "LM#3388; V PR#48821 (the same assertion ends the engine)",
        Hook("failed-load"),
        ids("ACT-04"),
        allowed=ASKING | ids("ACT-05"),
    ),
    Fault(
        "hit-with-nothing-behind",
        "crash or hang",
        "the cache server answers a hit for prompts that it has never seen",
        "V#30522, LM#955",
        Hook("false-hit"),
        ids("ACT-04"),
        allowed=ASKING | ids("ACT-05"),
    ),
    Fault(
        "lookup-raises",
        "crash or hang",
        "every lookup raises an error in the cache server",
        "LM#5270",
        Hook("raise-in-lookup", values=SHORT_DEADLINES),
        ids("ACC-02 ACT-03 ACT-04"),
        allowed=ids("ACC-01 LAT-05"),
        tests=("CFG-01", "CFG-03", "ACC-01", "ACC-02", "ACT-03", "ACT-04", "LAT-05", "API-06"),
    ),
    Fault(
        "pins-kept",
        "memory",
        "chunks stay pinned after they were read",
        "V#44100 (locks of a lookup never released)",
        Hook("keep-pins"),
        ids("ACT-05"),
    ),
    Fault(
        "memory-leak",
        "memory",
        "the cache server keeps 4 MiB of every store for ever",
        "LM#5270 (memory grows with every failed request)",
        Hook("leak", {"bytes": 4 << 20, "most": 1 << 30}),
        ids("MEM-04"),
        slow=True,
    ),
    Fault(
        "blocks-kept",
        "memory",
        "a KV block of every finished request is never given back to the pool",
        "V#46502 (KV still in use 20 min after the load)",
        Hook("keep-blocks"),
        ids("MEM-03"),
        tests=("CFG-01", "CFG-03", "MEM-03", "API-02", "API-06"),
    ),
    Fault(
        "repeats-end-the-engine",
        "crash or hang",
        "the twelfth hit of one prompt in a row ends the engine core",
        "LM#2238 (a repeat ends the engine)",
        Hook("die-at-hit", {"number": 12}),
        ids("RES-02"),
        allowed=ids("ACT-04"),
        tests=("CFG-01", "ACC-02", "API-06", "RES-02"),
    ),
    Fault(
        "request-lost-after-an-abort",
        "crash or hang",
        "the request that comes after an aborted one is never scheduled",
        "PS#749, V#44100 (requests that wait for ever)",
        Hook("lose-after-abort"),
        ids("RES-05"),
        allowed=ids("ACT-04"),
        tests=("CFG-01", "ACC-02", "API-06", "RES-05"),
    ),
    Fault(
        "loads-lock-each-other-out",
        "crash or hang",
        "a load that finds no room in the KV pool keeps all later ones waiting for ever",
        "V#28950, V#44100 (loads that wait for each other)",
        Hook("lock-loads"),
        ids("RES-08"),
        allowed=ids("ACT-04 ACC-02"),
        tests=("CFG-01", "ACC-05", "API-06", "RES-08"),
    ),
    Fault(
        "restarted-engine-loads-nothing",
        "inactive",
        "an engine that was started again stores, and ignores every hit",
        "LM#2876 (a tier that is not found again after a restart)",
        Hook("deaf-when-restarted"),
        ids("RES-03"),
        tests=("CFG-01", "ACC-02", "API-06", "RES-03"),
    ),
    Fault(
        "cache-server-never-used-again",
        "inactive",
        "a cache server that was away is not taken into use again",
        "LM#5270 (after an outage)",
        Hook("never-recovers", values=SHORT_DEADLINES),
        ids("RES-04"),
        tests=("CFG-01", "ACC-02", "API-06", "RES-04"),
        without=(),
    ),
    Fault(
        "cache-server-given-up-over-a-bad-network",
        "inactive",
        "a cache server that was away twice, the second time behind a bad network, is not taken into use again",
        "LM#5270 (after an outage)",
        Hook("never-recovers", {"after": 1}, values=SHORT_DEADLINES),
        ids("RES-07"),
        tests=("CFG-01", "ACC-02", "API-06", "RES-07"),
        without=(),
    ),
    Fault(
        "failed-load-hidden",
        "wrong answer",
        "a load that fails is reported as done, and the blocks hold what was there before",
        "V#20063",
        Hook("hide-failed-load", values=FAILED_LOADS_COMPUTED),
        ids("COR-06"),
        allowed=ids("ACC-02 ACC-03 ACC-04"),
        tests=("CFG-01", "ACC-02", "API-06", "COR-06"),
        without=(),
    ),
    Fault(
        "tier-pads-short-files",
        "wrong answer",
        "a file of the tier that is too short is filled with zeros, and served",
        "V#20063 (a load that fails, and is served)",
        Hook("pad-short-file", values=DISK),
        ids("COR-07"),
        tests=(*BELOW, "COR-07"),
    ),
    Fault(
        "tier-serves-another-file",
        "wrong answer",
        "an index remembers a file that is gone, and another one is served in its place",
        "LM#4385 (file reuse)",
        Hook("serve-another-file", values=DISK),
        ids("COR-07"),
        tests=(*BELOW, "COR-07"),
    ),
    Fault(
        "tier-without-checksums",
        "wrong answer",
        "LMCache as it is: altered content of a tier in files is loaded and served",
        "source: fs_l2_adapter.py keeps no checksum",
        DISK,
        ids("COR-08"),
        tests=(*BELOW, "COR-08"),
    ),
    Fault(
        "tier-with-nameless-checksums",
        "wrong answer",
        "checksums of a tier show that a file is one of its files, not which one",
        "source: aesgcm.py authenticates the content without its key",
        Hook("checksum", {"nameless": True}, values=DISK),
        ids("COR-08"),
        tests=(*BELOW, "COR-07", "COR-08"),
    ),
    Fault(
        "slow-tier-called-done",
        "wrong answer",
        "a load from a slow tier is called done after half a second, whatever has come",
        "LM#3685 (a slow remote tier)",
        Hook("hasty-load", {"seconds": 0.5}, values=DISK),
        ids("TIR-04"),
        tests=(*BELOW, "TIR-04"),
        without=only("slow"),
    ),
    Fault(
        "misses-wait-for-a-slow-tier",
        "latency",
        "a lookup waits until the load of another request has ended",
        "LM#3472",
        Hook("lookup-behind-load", values=DISK),
        ids("TIR-04"),
        tests=(*BELOW, "TIR-04"),
        without=only("slow"),
    ),
    Fault(
        "full-tier-ends-the-cache-server",
        "crash or hang",
        "the cache server ends when its disk is full",
        "LM#2238",
        Hook("die-when-full", values=DISK),
        ids("TIR-04"),
        tests=(*BELOW, "TIR-04"),
        without=only("full"),
    ),
    Fault(
        "gone-tier-never-answers",
        "crash or hang",
        "a lookup in a folder that is gone never ends",
        "LM#5270",
        Hook("endless-lookup", values=DISK),
        ids("TIR-04"),
        tests=(*BELOW, "TIR-04"),
        without=only("gone"),
    ),
    Fault(
        "tier-given-up-for-good",
        "inactive",
        "after one store that failed a tier is never used again",
        "LM#5270 (after an outage)",
        Hook("give-up-tier", values=DISK),
        ids("TIR-04"),
        tests=(*BELOW, "TIR-04"),
        without=only("read-only"),
    ),
    Fault(
        "tier-fails-in-silence",
        "observability",
        "nothing in log or metrics tells of stores that fail",
        "LM#4064 (a failure that is swallowed)",
        Hook("silent", {"about": "lmcache.v1.distributed"}, values=DISK),
        ids("TIR-04"),
        tests=(*BELOW, "TIR-04"),
        without=only("full"),
    ),
    Fault(
        "tier-never-evicts",
        "memory",
        "a tier in files with a size evicts nothing",
        "LM#1399 (a disk tier beyond its size)",
        Hook("never-evict-below", values=SIZED),
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
        without=("TIR-03:True",),
    ),
    Fault(
        "tier-counts-half",
        "memory",
        "a tier counts half of what lies in it",
        "LM#1399 (a disk tier beyond its size)",
        Hook("count-half", values=SIZED),
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
        without=("TIR-03:True",),
    ),
    Fault(
        "tier-forgets-what-lies-there",
        "memory",
        "LMCache as it is: after a restart the files of before are not counted, and the tier outgrows its size",
        "source: native_connector_l2_adapter.py begins with no sizes",
        SIZED,
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
    ),
    Fault(
        "replay-damaged",
        "wrong answer",
        "what a preempted request loads when it is resumed is damaged",
        "LM#2158 (computed tokens of a resumed request)",
        Hook("corrupt-load", {"replayed": True, "last": 1}),
        ids("RES-06"),
        tests=("CFG-01", "ACC-02", "COR-01", "API-06", "RES-06"),
    ),
    Fault(
        "aborted-blocks-kept",
        "memory",
        "the KV blocks of a request whose client hung up are never given back to the pool",
        "V#46502, V PR#48821 (blocks of aborted requests)",
        Hook("keep-aborted"),
        ids("RES-01"),
        tests=("CFG-01", "ACC-02", "API-06", "RES-01"),
    ),
    Fault(
        "load-left-out",
        "wrong answer",
        "chunks are reported as loaded and never copied: the engine reads whatever was in its blocks",
        "V#20063, LM#3388",
        Hook("empty-load"),
        CORRECT,
    ),
    Fault(
        "one-layer-zero",
        "wrong answer",
        "one layer of four is zero after a load",
        "V#45704 (missing synchronisation)",
        Hook("corrupt-load", {"layer": 3}),
        CORRECT,
    ),
    Fault(
        "sixty-four-numbers-zero",
        "wrong answer",
        "64 of the 262 144 numbers of one chunk are zero",
        "LM#2206 (a part of a chunk is overwritten)",
        Hook("corrupt-load", {"numbers": 64, "first": 1}),
        ids("COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "second-load-damaged",
        "wrong answer",
        "what is stored comes back right once: the next time its last chunk is zero, as if its memory had been given away",
        "LM#4385 (slot reuse); LMCache 0.5.3, double unpin (evidence/README.md)",
        Hook("corrupt-load", {"again": True, "last": 1}),
        ids("COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "chunks-swapped",
        "wrong answer",
        "the first two chunks of a load change places: attention does not see the order, who shares the prefix does",
        "LM#2206",
        Hook("corrupt-load", {"damage": "swap"}),
        ids("COR-04"),
        allowed=CORRECT,
    ),
    Fault(
        "one-position-off",
        "wrong answer",
        "the right bytes, one token position off",
        "V#52617",
        Hook("corrupt-load", {"damage": "shift"}),
        CORRECT,
    ),
    Fault(
        "precision-lost",
        "wrong answer",
        "KV goes through 8-bit floats on the way: close, but not the same",
        "LM#4064, V PR#28783",
        Hook("corrupt-load", {"damage": "round"}),
        ids("COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "near-the-longest-prompt-only",
        "wrong answer",
        "only loads of more than 7 000 tokens are damaged: close to the model's longest prompt",
        "LM#3388; V#19186 (contexts at their limit)",
        Hook("corrupt-load", {"tokens": 7001, "last": 1}),
        ids("COR-01"),
        slow=True,
        tests=("CFG-01", "ACC-02", "ACT-04", "COR-01", "COR-02", "COR-04", "COR-05", "API-02"),
    ),
    Fault(
        "every-twelfth-load",
        "wrong answer",
        "one load of twelve is damaged",
        "V#45704 (intermittent)",
        Hook("corrupt-load", {"every": 12, "last": 1}),
        ids("COR-03"),
        allowed=CORRECT,
    ),
    Fault(
        "engine-with-keys-of-its-own",
        "inactive",
        "of two engines that share a tier, the second one makes keys that the first one never finds",
        "LM#1095, LM#2136 (PYTHONHASHSEED)",
        Hook("own-keys", {"engine": 1}, values=ROUTED),
        ids("RTR-04"),
        tests=("RTR-04", "CFG-06", "CFG-01", "ACC-02", "RTR-01"),
    ),
    Fault(
        "engine-with-another-model",
        "configuration",
        "of two engines that share a tier, the second one serves the model from another folder under the same name",
        "LM#1139 (engines of one tier that are not alike)",
        Hook("other-model", {"instance": "-1"}, at_start=True, values=ROUTED),
        ids("CFG-06"),
        allowed=ids("RTR-04"),
        tests=("CFG-06", "CFG-01", "RTR-01"),
    ),
    Fault(
        "router-takes-turns",
        "serving",
        "the router sends requests to the engines in turn, whatever session they belong to",
        "PS#818, PS#990 (affinity lost)",
        Proxy("astray", values=ROUTED),
        ids("RTR-02"),
        allowed=ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "router-sends-one-repeat-astray",
        "serving",
        "one repeat of five goes to another engine than the one that holds its KV",
        "PS#1055 (hash ring rebuilt on every scrape)",
        Proxy("astray", {"by": "repeats", "every": 5}, values=ROUTED),
        ids("RTR-02"),
        allowed=ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "router-sticks-to-another-engine",
        "serving",
        "every repeat goes to another engine than the one that holds its KV, and always to that",
        "PS#990 (sticky to the wrong engine)",
        Proxy("astray", {"by": "repeats", "every": 1}, values=ROUTED),
        ids("RTR-02"),
        allowed=ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "router-goes-by-the-whole-prompt",
        "serving",
        "the router chooses engines by the whole prompt, so that a conversation that goes on moves",
        "PS#818 (affinity lost)",
        Proxy("astray", {"by": "hash"}, values=ROUTED),
        ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "router-replicas-disagree",
        "serving",
        "one of two router replicas goes by the whole prompt, the other one by the session",
        "PS#1055 (hash rings that differ)",
        Proxy("astray", {"by": "hash"}, values=ROUTED_TWICE),
        ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "router-loses-the-session-header",
        "serving",
        "the router loses the header that tells sessions apart, and goes by the whole prompt",
        "PS#201 (headers lost in the router)",
        Proxy("without-header", {"name": "x-user-id"}, values=ROUTED),
        ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "router-is-slow",
        "latency",
        "the router takes 100 ms for every request",
        "PS#448 (a router that starves)",
        Proxy("delay", {"seconds": 0.1}, values=ROUTED),
        ids("RTR-05"),
        tests=("RTR-05", "RTR-01", "RTR-02"),
    ),
    Fault(
        "router-collects-streams",
        "serving",
        "the router collects a stream and sends it at its end",
        "PS#706 (streams)",
        Proxy("hold-first-event", {"seconds": 0.2}, values=ROUTED),
        ids("RTR-05"),
        tests=("RTR-05", "RTR-01", "RTR-02"),
    ),
    Fault(
        "router-refuses-in-text",
        "serving",
        "the router answers what it refuses with an error that is a text",
        'cluster: production-stack\'s router answers {"error": "text"}',
        Proxy("bad-requests", {"body": '{"error": "no such model"}'}, values=ROUTED),
        ids("RTR-07"),
        tests=("RTR-07", "RTR-01", "CFG-01"),
        without=BROKEN_BY_THE_ROUTER,
    ),
    Fault(
        "router-refuses-as-its-own-fault",
        "serving",
        "the router answers what the engine refuses with a server error",
        "PS#201 (statuses lost in the router)",
        Proxy("bad-requests", {"status": 500}, values=ROUTED),
        ids("RTR-07"),
        tests=("RTR-07", "RTR-01", "CFG-01"),
        without=BROKEN_BY_THE_ROUTER,
    ),
    Fault(
        "router-keeps-a-dead-engine",
        "crash or hang",
        "the router goes on sending every second request to an engine that has ended",
        "PS#749 (a dead engine is kept)",
        Proxy("keeps-dead", {"then": "error"}, values=ROUTED),
        ids("RTR-03"),
        tests=("RTR-03", "CFG-01", "CFG-06"),
        without=KILLED_ONLY,
    ),
    Fault(
        "router-waits-for-a-dead-engine",
        "crash or hang",
        "requests that the router sends to an engine that has ended never end",
        "PS#749 (requests hang)",
        Proxy("keeps-dead", {"then": "hang"}, values=ROUTED),
        ids("RTR-03"),
        tests=("RTR-03", "CFG-01", "CFG-06"),
        without=KILLED_ONLY,
    ),
    Fault(
        "router-ends-answers-of-a-dead-engine",
        "wrong answer",
        "an answer that breaks off with its engine reaches the client as if it was whole",
        "cluster: a stream of an engine that dies ends without an error event",
        Proxy("keeps-dead", {"then": "end"}, values=ROUTED),
        ids("RTR-03"),
        tests=("RTR-03", "CFG-01", "CFG-06"),
        without=KILLED_ONLY,
    ),
    Fault(
        "router-forgets-an-engine",
        "crash or hang",
        "the router never again sends a request to an engine that has failed once",
        "PS#706 (engines lost for good)",
        Proxy("keeps-dead", {"then": "forget"}, values=ROUTED),
        ids("RTR-03"),
        tests=("RTR-03", "CFG-01", "CFG-06"),
        without=KILLED_ONLY,
    ),
    Fault(
        "router-sends-an-answer-again",
        "wrong answer",
        "a stream begins again in its middle, as if the request had been sent to another engine",
        "PS#706 (requests that are sent again)",
        Proxy("send-again", {"after": 3}, values=ROUTED),
        ids("API-09"),
        tests=THROUGH_THE_ROUTER,
        without=BROKEN_BY_THE_ROUTER,
    ),
    Fault(
        "router-answers-for-another-model",
        "wrong answer",
        "answers through the router name another model than the engine does",
        "PS#201 (fields lost in the router)",
        Proxy("echo", {"name": "model", "to": "another/model"}, values=ROUTED),
        ids("API-09"),
        tests=THROUGH_THE_ROUTER,
        without=BROKEN_BY_THE_ROUTER,
    ),
    Fault(
        "router-streams-as-text",
        "serving",
        "streams through the router are of another content type than the engine's",
        "PS#612 (body framing through the router)",
        Proxy("content-type", {"stream": True, "to": "text/plain"}, values=ROUTED),
        ids("API-09"),
        allowed=ids("RTR-05"),
        tests=THROUGH_THE_ROUTER,
        without=BROKEN_BY_THE_ROUTER,
    ),
    Fault(
        "router-loses-an-option",
        "serving",
        "the router passes requests on without max_tokens",
        "PS#201 (fields and headers lost in the router)",
        Proxy("forward-as", {"drop": ("max_tokens",)}, values=ROUTED),
        ids("API-09"),
        tests=THROUGH_THE_ROUTER,
        without=BROKEN_BY_THE_ROUTER,
    ),
    Fault(
        "router-lists-models-of-dead-engines",
        "serving",
        "the router goes on listing what it listed before its engines ended",
        "PS#490 (models of removed pods)",
        Proxy("list-models", {"first": True}, values=ROUTED),
        ids("RTR-01"),
        slow=True,
        tests=("RTR-01", "CFG-01", "CFG-06"),
    ),
    Fault(
        "router-lists-a-model-that-is-gone",
        "serving",
        "the router lists the model of an engine that is gone",
        "PS#490 (models of removed pods)",
        Proxy("list-models", values=ROUTED),
        ids("RTR-01"),
        tests=ROUTING,
    ),
    Fault(
        "router-lists-no-model",
        "serving",
        "the router answers, and lists nothing",
        "PS#490 (empty model list)",
        Proxy("list-models", {"none": True}, values=ROUTED),
        ids("RTR-01"),
        tests=ROUTING,
    ),
    Fault(
        "second-engine-only",
        "wrong answer",
        "of two engines only the second one gets damaged loads",
        "LM#1095 (the second instance only)",
        Hook("corrupt-load", {"engine": 1, "layer": 1}, values=TWO_ENGINES),
        ids("COR-01"),
        tests=("CFG-01", "ACC-02", "COR", "API-02"),
    ),
    Fault(
        "damaged-once-the-tier-is-full",
        "wrong answer",
        "a store that reuses the place of an evicted chunk leaves the old bytes there",
        "LM#4385 (slot reuse)",
        Hook("corrupt-store", {"after": 750}),
        ids("COR-03"),
        slow=True,
    ),
    Fault(
        "concurrent-loads-only",
        "wrong answer",
        "a load is damaged only while another one is in flight",
        "V#31210, V#45704",
        Hook("corrupt-load", {"concurrent": 2}),
        ids("COR-02"),
    ),
    Fault(
        "damaged-at-the-store",
        "wrong answer",
        "the last chunk of every store is zero in the tier",
        "dynamo#14416",
        Hook("corrupt-store", {"last": 1}),
        CORRECT,
    ),
    Fault(
        "foreign-chunk",
        "leakage",
        "the first chunk of a load is that of the request before",
        "LM#4385",
        Hook("foreign-chunk"),
        ids("COR-01 COR-02 COR-03"),
        allowed=ids("COR-04"),
    ),
    Fault(
        "hash-of-length-only",
        "leakage",
        "a prompt's key depends on its length only: any prompt hits any other of its length",
        "LM#3301 (hash collision), LM#690",
        Hook("weak-hash", {"ignores": "content"}),
        ids("ACC-04 ACC-05"),
        allowed=ASKING,
    ),
    Fault(
        "hash-ignores-a-token",
        "leakage",
        "the last token of every chunk is left out of its key",
        "LM#3301, LM PR#4783 (a hash of 16 bits)",
        Hook("weak-hash", {"ignores": "last-token-of-a-chunk"}),
        ids("ACC-05"),
        allowed=ids("COR-03"),
    ),
    Fault(
        "hash-without-its-prefix",
        "leakage",
        "a chunk's key does not depend on what came before it",
        "LM#4385",
        Hook("weak-hash", {"ignores": "prefix"}),
        ids("COR-03"),
        allowed=ids("ACC-05 ACC-01"),
    ),
    Fault(
        "salt-left-out",
        "leakage",
        "the cache salt of a tenant is left out of the key",
        "LM#2961, V PR#56643",
        Hook("no-salt"),
        ids("COR-05"),
    ),
    Fault(
        "adapter-left-out",
        "leakage",
        "two LoRA adapters, and nothing of the adapter is in the key (LMCache 0.5.6 as it is)",
        "source (lmcache_mp_metadata.py)",
        ADAPTERS,
        ids("COR-05"),
        tests=("COR-05", "ACC-02", "ACC-04"),
    ),
    Fault(
        "lookup-slow",
        "latency",
        "every lookup takes 300 ms",
        "LM#3472, LM#1938",
        Hook("slow-lookup", {"seconds": 0.3}),
        ids("LAT-05"),
        allowed=TIMING,
        tests=("CFG-01", "ACC-02", "COR-01", "LAT-05", "ACT-04", "API-06"),
    ),
    Fault(
        "store-slow",
        "latency",
        "every store takes 1 s longer, and the first token of a cold prompt waits for it",
        "LM#2205, LM#1938",
        Hook("slow-store", {"seconds": 1.0}),
        ids("LAT-04 LAT-05"),
        allowed=ids("LAT-07"),
        tests=("CFG-01", "ACC-02", "COR-01", "LAT-04", "LAT-05", "ACT-04", "API-02", "API-06"),
    ),
    Fault(
        "load-slow",
        "latency",
        "every load takes as long as computing its tokens twice",
        "LM#1938, LM#2205",
        Hook("slow-load", {"prefills": 2.0}),
        ids("LAT-01 LAT-03 LAT-06"),
        tests=("CFG-01", "ACC-02", "LAT-01", "LAT-02", "LAT-03", "LAT-05", "LAT-06", "ACT-04", "API-06"),
    ),
    Fault(
        "short-load-slow",
        "latency",
        "a load of up to 1 024 tokens takes as long as computing them twice",
        "LM#1938",
        Hook("slow-load", {"prefills": 2.0, "most": 1024}),
        ids("LAT-08"),
        tests=("CFG-01", "ACC-02", "LAT-01", "LAT-03", "LAT-08", "ACT-04", "API-06"),
    ),
    Fault(
        "step-slow",
        "latency",
        "the connector holds every step of the engine up for 20 ms",
        "V#32604 (decoding slows down with offload)",
        Hook("slow-step", {"seconds": 0.02}),
        ids("LAT-09"),
        allowed=TIMING | ids("LAT-04 LAT-05 LAT-07"),
        tests=("CFG-01", "ACC-02", "COR-01", "LAT-09", "ACT-04", "API-06"),
    ),
    Fault(
        "crowded-store-slow",
        "latency",
        "where several requests store at once, each store holds the engine up for 300 ms",
        "LM#2205",
        Hook("slow-store", {"seconds": 0.3, "crowded": 0.05}),
        ids("LAT-07"),
        tests=("CFG-01", "ACC-02", "COR-01", "LAT-07", "ACT-04", "API-06"),
    ),
    Fault(
        "crowded-load-slow",
        "latency",
        "where several requests load at once, each load takes as long as computing its tokens twice",
        "LM#1938, LM#2205",
        Hook("slow-load", {"prefills": 2.0, "crowded": 0.5}),
        ids("THR-01"),
        tests=("CFG-01", "ACC-02", "COR-01", "THR-01", "ACT-04", "API-06"),
    ),
    Fault(
        "loads-slow-down",
        "latency",
        "from the 200th load on each takes 300 ms longer",
        "LM#2205 (slower the longer it runs)",
        Hook("slow-load", {"seconds": 0.3, "after": 200}),
        ids("RES-09"),
        tests=("CFG-01", "ACC-02", "COR-01", "RES-09", "ACT-04", "API-06"),
    ),
    Fault(
        "one-in-sixty-fails",
        "serving",
        "every sixtieth completion fails with HTTP 503",
        "PS#612, PS#448 (limits under load)",
        Proxy("status", {"status": 503, "every": 60}),
        ids("THR-02"),
        allowed=ASKING,
        tests=("CFG-01", "ACC-02", "COR-01", "THR-02", "ACT-04", "API-06"),
    ),
    Fault(
        "store-takes-longer",
        "latency",
        "every store holds the engine up for half a second",
        "LM#2205, V#32604",
        Hook("slow-store", {"seconds": 0.5}),
        ids("THR-03"),
        tests=("CFG-01", "ACC-02", "COR-01", "THR-03", "ACT-04", "API-06"),
    ),
    Fault(
        "store-after-a-load-forgotten",
        "inactive",
        "what a request computes behind the tokens that it has loaded is never stored",
        "LM#2029 (what follows a partial hit is not stored)",
        Hook("drop-store", {"loaded": True}),
        ids("ACC-08"),
        tests=("CFG-01", "ACC-02", "ACC-05", "ACC-08", "COR-01", "ACT-04", "API-06"),
    ),
    Fault(
        "loaded-tokens-not-reported",
        "observability",
        "usage reports as cached what came from the GPU, and leaves out what was loaded",
        "V 0.32 v1/metrics/stats.py, PrefillStats (source); V#28585 (counts that changed their meaning)",
        Hook("count-gpu-only"),
        ids("ACC-09"),
        tests=REPORTS,
    ),
    Fault(
        "found-reported-as-loaded",
        "observability",
        "LMCache's statistics of a request report everything that was found as loaded, also what is on the GPU already",
        "LM 0.5.6 lmcache_mp_connector.py, request_finished (source); V#30522",
        Hook("count-hit-as-loaded"),
        ids("ACC-09"),
        tests=REPORTS,
    ),
    Fault(
        "load-leaves-a-file-open",
        "memory",
        "every load leaves a file of the engine open",
        "LM PR#2936 (descriptors left open by a transfer)",
        Hook("leak-files", {"count": 1}),
        ids("MEM-07"),
        tests=("CFG-01", "ACC-02", "COR-01", "MEM-07", "ACT-04", "API-06"),
    ),
    Fault(
        "write-expired",
        "wrong answer",
        "the cache server says that it has given the buffer of a write to another one",
        "LM 0.5.6 l1_manager.py (source)",
        Hook(
            "say",
            {
                "level": "WARNING",
                "text": "write reservation on key k expired; handing the buffer to a new writer",
            },
        ),
        ids("ACT-04"),
        tests=("CFG-01", "ACT-03", "ACT-04", "ACT-05"),
    ),
    Fault(
        "error-of-unknown-wording",
        "observability",
        "the cache server logs an error that no signature knows",
        "LM 0.5.6 (545 ERROR literals, source)",
        Hook("say", {"level": "ERROR", "text": "the flux compensator is misaligned"}),
        ids("ACT-05"),
        tests=("CFG-01", "ACT-03", "ACT-04", "ACT-05"),
    ),
    Fault(
        "tier-loses-chunks",
        "inactive",
        "the tier loses one chunk in ten once it has taken forty; a load stops at the first gap",
        "LM#4064, LM#1803 (objects lost behind a live index)",
        Hook("lose-chunks", {"every": 10, "after": 40}),
        ids("ACC-02"),
        allowed=ids("ACT-03 ACC-05 ACC-06 ACC-07 COR-04"),
    ),
    Fault(
        "chunks-expire",
        "inactive",
        "chunks expire 20 s after they were stored, whatever room the tier has",
        "LM#1658, LM#2310 (entries gone before eviction)",
        Hook("expire-chunks", {"seconds": 20.0}),
        ids("ACC-02"),
        allowed=ids("COR-03"),
        kept_s=25.0,
    ),
    Fault(
        "tier-holds-less-than-it-says",
        "memory",
        "whatever the size of the tier, it keeps the last 48 chunks only",
        "LM#1034, LM#1285 (the pool shrinks over time)",
        Hook("keep-few", {"chunks": 48}, values=SMALL_TIER),
        ids("CAP-01"),
        tests=CAPACITY,
    ),
    Fault(
        "full-tier-stores-nothing",
        "memory",
        "a tier that is full evicts nothing, and stores nothing any more",
        "LM#955, LM#745 (failed to allocate memory, the KV cache will not be stored)",
        Hook("never-evict", values=SMALL_TIER),
        ids("CAP-02"),
        allowed=ids("CAP-01 CAP-03"),
        tests=CAPACITY,
    ),
    Fault(
        "engine-ends-beyond-the-tier",
        "crash or hang",
        "the engine ends when more was stored than the tier holds",
        "LM#1330 (the engine ends when the CPU pool is full)",
        Hook("end-engine", {"after": 150, "chunk": 256}, values=SMALL_TIER),
        ids("CAP-02"),
        allowed=ids("ACT-04"),
        tests=CAPACITY,
    ),
    Fault(
        "newest-evicted-first",
        "memory",
        "a full tier evicts what was used last",
        "LM cache_policy/mru.py (source)",
        Hook("evict-newest", values=SMALL_TIER),
        ids("CAP-03"),
        allowed=ids("CAP-01 CAP-02"),
        tests=CAPACITY,
    ),
    Fault(
        "use-not-noted",
        "memory",
        "a tier that evicts by LRU does not note that chunks were used: it evicts by age",
        "LM 0.5.6 lookup.py, end_session (source: chunks of a lower tier are not touched)",
        Hook("forget-use", values=SMALL_TIER),
        ids("CAP-03"),
        tests=CAPACITY,
    ),
    Fault(
        "load-leaks",
        "memory",
        "the cache server keeps 128 KiB of every chunk that is loaded for ever",
        "LM#5270; V#44100",
        Hook("leak-load", {"bytes": 128 << 10, "most": 1 << 30}),
        ids("MEM-04"),
        slow=True,
    ),
    Fault(
        "load-never-ends",
        "crash or hang",
        "one load never reports its end: its request waits for ever",
        "V#44100, PS#749",
        Hook("endless-load", {"number": 3}),
        ids("ACC-02 ACT-04"),
        allowed=ids("ACT-03 ACT-05"),
        tests=("CFG-01", "ACC-01", "ACC-02", "ACT-03", "ACT-04", "API-06"),
    ),
    Fault(
        "log-volume-full",
        "observability",
        "no log line can be written any more: the volume is full",
        "LM#1399 (ephemeral storage full)",
        Hook("log-full"),
        ids("ACT-02 ACT-03"),
    ),
    Fault(
        "sigterm-ignored",
        "memory",
        "processes do not end on SIGTERM and have to be killed: their shared memory stays",
        "LM#4287 (memory not given back, the next deployment fails)",
        Hook("ignore-sigterm", at_start=True),
        ids("MEM-06"),
        tests=("CFG-01", "ACC-02", "MEM-06"),
    ),
)

PROXY_FAULTS = (
    Fault(
        "stream-cut",
        "serving",
        "a stream breaks off after three events",
        "PS#706, PS#749 (requests break off behind the router)",
        Proxy("cut-stream", {"after": 3}),
        ids("API-03 API-02"),
        allowed=ids("ACC-03 API-04 API-07 LAT-05"),
        chat=True,
    ),
    Fault(
        "done-lost",
        "serving",
        "a stream ends in good order without its final [DONE]",
        "OpenAI API reference: a stream ends with [DONE]",
        Proxy("lose-done"),
        ids("API-03"),
        allowed=ids("API-02 API-04 API-07"),
    ),
    Fault(
        "event-lost",
        "serving",
        "the first event with text is lost in every stream",
        "PS#612 (body framing through the router)",
        Proxy("drop-event"),
        ids("API-02"),
    ),
    Fault(
        "stream-buffered",
        "serving",
        "a stream is collected and sent in one piece at its end",
        "nginx documentation, proxy_buffering",
        Proxy("buffered"),
        ids("API-03"),
        allowed=ids("LAT-05"),
    ),
    Fault(
        "stream-content-type",
        "serving",
        "streams come as text/plain",
        "WHATWG HTML, server-sent events: text/event-stream",
        Proxy("content-type", {"stream": True, "to": "text/plain"}),
        ids("API-03"),
    ),
    Fault(
        "prompt-usage-wrong",
        "serving",
        "usage counts one prompt token too many",
        "OpenAI API reference, usage; V#57596 (counts that changed their meaning)",
        Proxy("usage", {"name": "prompt_tokens"}),
        ids("ACC-03 API-04"),
        allowed=ids("API-03 API-07"),
    ),
    Fault(
        "cached-tokens-of-another-answer",
        "observability",
        "every answer reports the cached tokens of the answer before",
        "OpenAI API reference, usage.prompt_tokens_details; LM#4385 (what belongs to another request)",
        Proxy("cached-tokens"),
        ids("ACC-09"),
        allowed=ids("API-04"),
        tests=REPORTS,
    ),
    Fault(
        "usage-missing",
        "serving",
        "plain answers have no usage",
        "OpenAI API reference, the completion object",
        Proxy("without", {"name": "usage"}),
        ids("API-04"),
        allowed=ids("ACC-03 API-07"),
    ),
    Fault(
        "finish-reason-wrong",
        "serving",
        "an answer that was cut at max_tokens says that it stopped",
        "OpenAI API reference, finish_reason",
        Proxy("finish-reason", {"to": "stop"}),
        ids("API-04"),
        allowed=ids("API-07"),
    ),
    Fault(
        "stop-ignored",
        "serving",
        "stop strings do not reach the engine",
        "OpenAI API reference, stop",
        Proxy("forward-as", {"drop": ("stop",)}),
        ids("API-04"),
    ),
    Fault(
        "schema-field-missing",
        "serving",
        "plain answers lack `created`",
        "OpenAI API reference, the completion object; PS#490",
        Proxy("without", {"name": "created"}),
        ids("API-02"),
        chat=True,
    ),
    Fault(
        "another-model-in-the-answer",
        "serving",
        "answers name another model than the one that was asked for",
        "OpenAI API reference, the completion object; PS#490",
        Proxy("echo", {"name": "model", "to": "another-model"}),
        ids("API-02"),
        allowed=ids("API-04"),
    ),
    Fault(
        "same-id-in-every-answer",
        "serving",
        "every answer carries the same id",
        "OpenAI API reference, the completion object",
        Proxy("echo", {"name": "id", "to": "cmpl-1"}),
        ids("API-07"),
        allowed=ids("API-02 API-04"),
    ),
    Fault(
        "created-in-milliseconds",
        "serving",
        "the time of creation is in milliseconds",
        "OpenAI API reference, the completion object: Unix time in seconds",
        Proxy("echo", {"name": "created", "to": 1_790_000_000_000}),
        ids("API-02"),
        allowed=ids("API-04"),
    ),
    Fault(
        "last-token-dropped",
        "wrong answer",
        "the second time that a prompt comes, its last token is left out",
        "V#52617 (one position off)",
        Proxy("drop-last-token"),
        ids("ACC-02"),
        allowed=CORRECT | ids("ACC-03 ACC-06 ACT-02 API-02"),
    ),
    Fault(
        "body-cut-in-half",
        "serving",
        "the body of every plain answer breaks off in its middle",
        "PS#612 (body framing through the router)",
        Proxy("cut-body"),
        ids("API-02"),
        allowed=ASKING,
        tests=("CFG-01", "ACC-01", "API-02", "API-06"),
    ),
    Fault(
        "first-event-held",
        "latency",
        "a gateway holds the first event of every stream for 300 ms, cold and reloaded alike: not the fault of the cache",
        "nginx documentation, proxy_buffering",
        Proxy("hold-first-event", {"seconds": 0.3}),
        frozenset(),
        not_judged=ids("LAT-05"),
        tests=("CFG-01", "ACC-02", "LAT-05", "API-02", "API-06"),
    ),
    Fault(
        "model-without-a-length",
        "serving",
        "/v1/models gives the context length as text",
        "PS PR#927 (metadata of /v1/models lost)",
        Proxy("models", {"change": {"max_model_len": "8192"}}),
        ids("API-01"),
    ),
    Fault(
        "error-as-200",
        "serving",
        "a refused request comes back with status 200",
        "PS PR#1017 (malformed requests)",
        Proxy("bad-requests", {"status": 200}),
        ids("API-05"),
        allowed=ids("API-08"),
    ),
    Fault(
        "error-without-a-body",
        "serving",
        "a refused request comes back without an error object",
        "PS PR#1017 (malformed requests)",
        Proxy("bad-requests", {"body": "Bad Request"}),
        ids("API-05"),
    ),
    Fault(
        "every-ninth-fails",
        "serving",
        "every ninth completion fails with HTTP 500",
        "PS#612 (refused after the first N requests)",
        Proxy("status", {"status": 500, "every": 9}),
        ids("COR-03"),
        allowed=ASKING,
    ),
    Fault(
        "fails-when-busy",
        "serving",
        "a completion fails with HTTP 503 while eight others are in flight",
        "PS PR#767, PS#448 (limits under load)",
        Proxy("status", {"status": 503, "busy": 8}),
        ids("API-07"),
        allowed=ids("COR-02 MEM-03"),
    ),
    Fault(
        "answers-swapped",
        "leakage",
        "two answers in flight together go to each other's client",
        "PS#612 (connections used again); LM#4385",
        Proxy("swap"),
        ids("COR-02 API-07"),
    ),
    Fault(
        "salt-lost-on-the-way",
        "leakage",
        "a gateway drops `cache_salt`, which it does not know",
        "PS#201 (fields and headers lost in the router); LM#2961",
        Proxy("forward-as", {"drop": ("cache_salt",)}),
        ids("COR-05"),
    ),
    Fault(
        "key-lent-to-everybody",
        "leakage",
        "a gateway opens the engine's chat with its own key to clients that have another one or none",
        "PS#201 (fields and headers lost in the router); PS docs, vllmApiKey",
        Proxy("lend-key", {"endpoint": "/v1/chat/completions"}),
        ids("API-08"),
        chat=True,
    ),
    Fault(
        "chat-at-another-temperature",
        "serving",
        "a gateway sets its own temperature on the chat endpoint",
        "vLLM documentation, --generation-config (defaults of the model override those of the API)",
        Proxy("forward-as", {"change": {"temperature": 2.0}, "endpoint": "/v1/chat/completions"}),
        ids("API-06"),
        allowed=ids("API-02 API-04"),
        chat=True,
    ),
    Fault(
        "cold-delay-on-repeats",
        "latency",
        "a repeat is held as long as its cold run took",
        "LM#2334, LM#1109 (ratio without its cause)",
        Proxy("slow-repeat"),
        TIMING,
        allowed=ids("ACC-02"),
        tests=("CFG-01", "ACC-02", "COR-01", "LAT-01", "LAT-02", "LAT-03", "LAT-05", "API-06"),
    ),
    Fault(
        "answered-by-an-edge-cache",
        "inactive",
        "repeats are answered by a cache in front of the engine, which never hears of them",
        "LM#2334 (something else answers)",
        Proxy("edge-cache", {"most": 4, "tokens": 300}),
        ids("ACC-02"),
        allowed=ids("ACC-03 ACC-05 ACC-07"),
    ),
    Fault(
        "edge-cache-with-a-shadow",
        "latency",
        "repeats are answered at the edge while the engine is asked behind the client's back, so that every counter is right",
        "LM#2334 (the same ratio with and without a cache)",
        Proxy("edge-cache", {"shadow": True, "tokens": 300}),
        ids("LAT-02"),
        tests=("CFG-01", "ACC-02", "COR-01", "LAT-01", "LAT-02", "LAT-03", "LAT-05", "API-06"),
    ),
    Fault(
        "metric-renamed",
        "observability",
        "a gauge that dashboards watch has another name",
        "PS engine_stats.py at a6c01db (reads names that vLLM no longer has)",
        Proxy("metrics", {"rename": ("vllm:kv_cache_usage_perc", "vllm:kv_usage")}),
        ids("ACC-07"),
        allowed=ids("MEM-03"),
    ),
    Fault(
        "metrics-fail",
        "observability",
        "/metrics answers 500 from its fiftieth call on",
        "V#57596; LM#5270",
        Proxy("metrics", {"after": 50, "body": "Internal Server Error"}),
        ids("ACC-07"),
    ),
    Fault(
        "metrics-are-a-web-page",
        "observability",
        "/metrics answers with a gateway's web page and status 200",
        "nginx documentation, error_page",
        Proxy("metrics", {"after": 0, "status": 200, "body": "<html><body>502 Bad Gateway</body></html>"}),
        ids("ACC-07"),
    ),
    Fault(
        "loaded-tokens-counted-twice",
        "observability",
        "the engine's counter of loaded tokens counts everything twice",
        "V#28585 (double count)",
        Proxy("metrics", {"double": 'source="external_kv_transfer"'}),
        ids("ACC-02 ACC-03"),
        allowed=ids("ACC-05 ACC-06 MEM-03"),
    ),
)

PROCESS_FAULTS = (
    Fault(
        "cache-server-killed",
        "crash or hang",
        "the cache server is killed while clients are served",
        "LM#5270 (requests after the server lost its engine)",
        Process("kill-cache-server", values=SHORT_DEADLINES),
        ids("ACT-04"),
        allowed=ids("ACT-05"),
        tests=("CFG-01", "ACC-02", "ACT-03", "ACT-04", "API-06"),
    ),
    Fault(
        "cache-server-restarts",
        "crash or hang",
        "the cache server is killed and comes back at once, empty",
        "LM#5270; Kubernetes restarts a container that ends",
        Process("restart-cache-server", values=SHORT_DEADLINES),
        ids("ACT-04"),
        allowed=ids("ACT-05"),
    ),
    Fault(
        "cache-server-frozen",
        "crash or hang",
        "the cache server stops for 20 s (SIGSTOP) and goes on",
        "PS#749 (one dead backend hangs every request); LM#5270",
        Process("freeze-cache-server", seconds=20.0),
        ids("ACT-04"),
        allowed=ids("ACC-02 LAT-05"),
        tests=("CFG-01", "ACC-01", "ACC-02", "ACT-04", "LAT-05", "API-06"),
    ),
    Fault(
        "engine-killed",
        "crash or hang",
        "the engine core is killed while clients are served",
        "LM#2238, LM#1330 (EngineDead)",
        Process("kill-engine"),
        ids("ACT-04"),
        allowed=ids("ACT-05"),
        tests=("CFG-01", "CFG-03", "CFG-07", "ACC-02", "ACT-04", "API-06"),
    ),
)

ADDRESS_FAULTS = (
    Fault(
        "store-port-closed",
        "configuration",
        "nothing listens where the cache server's store is to be: engine and cache server are healthy all the same",
        "LM 0.5.6 l2_adapters/resp_l2_adapter.py (source)",
        Process("kill-store", values=REMOTE),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "coordinator-port-closed",
        "configuration",
        "a coordinator at a port where nothing listens: the cache server serves alone",
        "PS tutorials/17-kv-aware-routing.md (port 9001 of the controller), LM 0.5.6 mp_coordinator/registrar.py (source)",
        server_with("--coordinator-url", "http://127.0.0.1:9"),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "coordinator-unknown-host",
        "configuration",
        "a coordinator whose name does not resolve",
        "LM 0.5.6 mp_coordinator/registrar.py (source)",
        server_with("--coordinator-url", "http://kv-coordinator.invalid:9300"),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "disk-folder-gone",
        "configuration",
        "the folder of the disk tier is gone, as after an unmounted volume: LMCache makes it once, at its start",
        "LM 0.5.6 l2_adapters/fs_l2_adapter.py (source)",
        Process("remove-folder", values=DISK),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "disk-folder-write-protected",
        "configuration",
        "the folder of the disk tier cannot be written to: LMCache starts on it without an error",
        "LM 0.5.6 l2_adapters/fs_l2_adapter.py (source)",
        Process("write-protect-folder", values=DISK),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
)

GPU_FAULTS: tuple[Fault, ...] = (
    Fault(
        "connector-overridden",
        "configuration",
        "--kv-offloading-size beside the chart's connector: vLLM puts its own in its place, without a word",
        "V 0.32 config/vllm.py (source)",
        Values({}, extra_args=("--kv-offloading-size", "1"), where="command", shows="--kv-offloading-size 1"),
        ids("CFG-01"),
        allowed=ACTIVE | LOADS | STORES,
        tests=("CFG-01", "ACT-02", "ACC-02", "API-06"),
    ),
    Fault(
        "card-load-damaged",
        "wrong answer",
        "one layer of the first chunk is zero when it reaches the card",
        "V#31210, LM#4385",
        Hook("corrupt-load", {"first": 1, "layer": 7}),
        ids("COR-01"),
        allowed=CORRECT,
        tests=("CFG-01", "ACC-02", "COR-01", "COR-02", "COR-03", "COR-04", "API-02", "API-06"),
    ),
    Fault(
        "card-load-left-out",
        "wrong answer",
        "chunks are reported as loaded and never reach the card",
        "V#45704; LM 0.5.3 vllm_v1_adapter.py, start_load_kv without attention metadata (source)",
        Hook("empty-load"),
        ids("COR-01"),
        allowed=CORRECT | ids("ACT-03"),
        tests=("CFG-01", "ACC-02", "COR-01", "COR-02", "COR-03", "COR-04", "API-02", "API-06"),
    ),
    Fault(
        "card-load-slow",
        "latency",
        "every load to the card takes half a second longer than its bytes need",
        "LM#1938, LM#2205",
        Hook("slow-load", {"seconds": 0.5}),
        ids("LAT-01 LAT-03 LAT-06"),
        tests=("CFG-01", "ACC-02", "LAT-01", "LAT-02", "LAT-03", "LAT-05", "LAT-06", "API-06"),
    ),
    Fault(
        "card-memory-leak",
        "memory",
        "every load keeps 32 MiB of the card",
        "LM#5270, LM#1399",
        Hook("take-gpu-memory", {"bytes": 32 << 20, "most": 3 << 30}),
        ids("MEM-02"),
        allowed=ids("MEM-01"),
        tests=("CFG-01", "ACC-02", "MEM-02", "API-06"),
    ),
    Fault(
        "card-memory-taken",
        "memory",
        "the first load takes 4 GiB of the card beyond what the engine was promised, and keeps them",
        "PS#1062",
        Hook("take-gpu-memory", {"bytes": 4 << 30, "most": 4 << 30}),
        ids("MEM-01"),
        tests=("CFG-01", "ACC-02", "MEM-01", "API-06"),
    ),
)
"""Seeded where there is a card, with the in-process connector: ``--gpu``."""

NATIVE_FAULTS: tuple[Fault, ...] = (
    Fault(
        "native-nothing-stored",
        "inactive",
        "vLLM's own connector stores nothing",
        "V 0.32 kv_offload/cpu/manager.py, prepare_store (source)",
        Hook("drop-store", values=NATIVE_TIER),
        ids("ACC-01 ACC-02 ACC-05 ACC-06 ACC-07"),
        allowed=ids("ACC-08 ACC-09"),
    ),
    Fault(
        "native-store-left-out",
        "wrong answer",
        "vLLM's own connector counts stores that it did not make: the tier gives back what was there before",
        "V#45704",
        Hook("empty-store", values=NATIVE_TIER),
        ids("COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "native-index-forgotten",
        "inactive",
        "vLLM's own connector finds nothing of what it has stored",
        "V 0.32 kv_offload/cpu/manager.py, lookup (source)",
        Hook("lost-index", values=NATIVE_TIER),
        ids("ACC-02 ACC-05 ACC-07"),
        allowed=ids("ACC-06 ACC-08 ACC-09"),
    ),
    Fault(
        "native-load-damaged",
        "wrong answer",
        "vLLM's own connector loads a block of which one layer is zero",
        "V#31210",
        Hook("corrupt-load", {"first": 1, "layer": 1}, values=NATIVE_TIER),
        ids("COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "native-load-left-out",
        "wrong answer",
        "vLLM's own connector counts loads that it did not make, in tokens and in bytes",
        "V#45704",
        Hook("empty-load", values=NATIVE_TIER),
        ids("COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "native-load-not-counted",
        "wrong answer",
        "the engine counts tokens as loaded of which its connector has copied no byte",
        "V 0.32 v1/simple_kv_offload/manager.py, 'skipping load' (source)",
        Hook("uncounted-load", values=NATIVE_TIER),
        ids("ACC-02 COR-01"),
        allowed=CORRECT,
    ),
    Fault(
        "native-pool-larger-than-the-tier",
        "configuration",
        "vLLM's own connector with a tier of 0.125 GiB (16 384 tokens) above a KV pool of 32 768",
        "LM#2641 (LRU thrash)",
        Values(
            configuration="native-cpu",
            extra_args=("--kv-offloading-size", "0.125"),
            where="command",
            shows="--kv-offloading-size 0.125",
        ),
        ids("CFG-08"),
        tests=("CFG-01", "CFG-02", "CFG-08", "ACC-02", "API-06"),
    ),
)
"""Seeded into vLLM's own OffloadingConnector, on a CPU."""

FAULTS: tuple[Fault, ...] = (
    *HOOK_FAULTS,
    *PROXY_FAULTS,
    *VALUES_FAULTS,
    *PROCESS_FAULTS,
    *ADDRESS_FAULTS,
    *NATIVE_FAULTS,
    *BELOW_FAULTS,
)

SAMPLE: tuple[str, ...] = (
    "write-expired",
    "one-layer-zero",
    "stream-cut",
    "metrics-fail",
    "metric-renamed",
)
"""A few of several kinds, in some minutes (``--sample``): what a pipeline has time for."""

GPU_HEALTHY: tuple[Healthy, ...] = (
    Healthy("card-as-configured", "the configuration as it is", None, without=("ACT-05", "API-05", "COR-05")),
)


JSON_LOGS = """{
  "version": 1, "disable_existing_loggers": false,
  "formatters": {"json": {"class": "pythonjsonlogger.json.JsonFormatter",
                          "format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
  "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
  "loggers": {"vllm": {"handlers": ["out"], "level": "INFO", "propagate": false}}
}"""


BFLOAT16 = Values({"vllmConfig.dtype": "bfloat16"}, where="command", shows="--dtype bfloat16")


def _env(name: str, value: str, files: dict[str, str] | None = None) -> Values:
    """The configuration with one more variable, and files that it names."""
    shows = f"{name}={re.escape(value)}".replace(re.escape("{folder}"), ".*")
    return Values({}, env=((name, value),), files=files or {}, where="environment", shows=shows)


def _args(*words: str, shows: str = "") -> Values:
    """The configuration with more words on the engine's command line."""
    return Values({}, extra_args=words, where="command", shows=shows or re.escape(" ".join(words)))


HEALTHY: tuple[Healthy, ...] = (
    Healthy(
        "as-published",
        "the embedded configuration as it is, GPU prefix cache on",
        None,
        without=("THR-01", "THR-02", "THR-03", "RES"),  # by "under-load" and "under-disruption"
    ),
    Healthy("under-load", "the same under conversations", None, tests=("THR",)),
    Healthy("under-disruption", "the same with clients that disconnect", None, tests=("RES",), without=KNOWN_DEFECTS),
    Healthy("failed-loads-computed", "a failed load is computed anew", FAILED_LOADS_COMPUTED, tests=("COR-06",)),
    Healthy("short-deadlines", "a cache server is given up after 1 s", SHORT_DEADLINES, tests=("RES-04", "RES-07")),
    Healthy(
        "tier-in-files",
        "a tier in files, full, read-only, slow and gone, with files removed and cut short",
        DISK,
        tests=("TIR-04", "COR-07"),
        without=("TIR-04:frozen",),
    ),
    Healthy(
        "tier-with-checksums", "the same with checksums", Hook("checksum", values=DISK), tests=("COR-07", "COR-08")
    ),
    Healthy(
        "tier-encrypted", "the same, encrypted", ENCRYPTED, tests=("COR-07", "COR-08"), without=("COR-08:swapped",)
    ),
    Healthy(
        "tier-recounted",
        "a tier with a size counts the files of before when it starts",
        Hook("recount-at-start", values=SIZED),
        tests=("TIR-03",),
    ),
    Healthy("busy-network", "50 ms more on every request", Proxy("delay", {"seconds": 0.05})),
    Healthy(
        "metrics-slow",
        "/metrics takes eight seconds, as on an engine with many series and a busy API server",
        Proxy("delay", {"seconds": 8.0, "path": "/metrics"}),
        tests=tuple(sorted(SENTINELS | {"ACC-07"})),
    ),
    Healthy("busy-machine", "another program computes on one core", Process("cpu-load"), slow=True),
    Healthy("overloaded-machine", "thirty other programs compute", Process("cpu-load", count=30)),
    Healthy("other-clients", "another client asks once a second", Process("other-clients")),
    Healthy("after-hang-ups", "forty clients have hung up before", Process("hang-ups")),
    Healthy(
        "gpu-prefix-cache-off",
        "enablePrefixCaching: false",
        NO_PREFIX_CACHE,
        without=("MEM-03",),
    ),
    Healthy(
        "chunk-128",
        "chunks of 128 tokens",
        Values({}, env=(("LMCACHE_CHUNK_SIZE", "128"),), where="environment", shows="LMCACHE_CHUNK_SIZE=128"),
    ),
    Healthy(
        "chunk-512",
        "chunks of 512 tokens",
        Values({}, env=(("LMCACHE_CHUNK_SIZE", "512"),), where="environment", shows="LMCACHE_CHUNK_SIZE=512"),
    ),
    Healthy(
        "two-engines",
        "replicaCount: 2",
        TWO_ENGINES,
    ),
    Healthy(
        "two-engines-behind-a-router",
        "two engines behind a router, and one cache server for both",
        ROUTED,
        without=BROKEN_BY_THE_ROUTER,
    ),
    Healthy(
        "log-level-debug",
        "log level DEBUG",
        Values({"lmcacheConfig.logLevel": "DEBUG"}, where="environment", shows="LMCACHE_LOG_LEVEL=DEBUG"),
    ),
    Healthy(
        "chunk-64",
        "chunks of 64 tokens, in blocks of 64",
        Values(
            {},
            env=(("LMCACHE_CHUNK_SIZE", "64"),),
            extra_args=("--block-size", "64", "--num-gpu-blocks-override", "512"),
            where="environment",
            shows="LMCACHE_CHUNK_SIZE=64",
        ),
    ),
    Healthy("disk-fs", "a tier of files below a small CPU tier", DISK, tests=EVERYTHING_BELOW),
    Healthy("remote-resp", "a tier in Redis below a small CPU tier", REMOTE, tests=EVERYTHING_BELOW),
    Healthy("small-tier", "a CPU tier of 0.25 GiB, overfilled", SMALL_TIER, tests=CAPACITY),
    Healthy("chunk-1024", "chunks of 1 024 tokens", _env("LMCACHE_CHUNK_SIZE", "1024")),
    # vLLM's CPU attention takes multiples of 32; blocks of 16 are the default on a card, where ``--gpu`` runs.
    Healthy("block-32", "KV blocks of 32 tokens", _args("--block-size", "32", "--num-gpu-blocks-override", "1024")),
    Healthy("block-64", "KV blocks of 64 tokens", _args("--block-size", "64", "--num-gpu-blocks-override", "512")),
    Healthy(
        "adapters",
        "two LoRA adapters, and the adapter is in the key",
        Hook("adapter-in-key", values=ADAPTERS),
        tests=("COR-05", "ACC-02"),
    ),
    Healthy("llama", "a Llama-like model with a Hugging Face tokenizer", made_here("tiny-llama")),
    Healthy("mixture-of-experts", "a Mixtral-like model: eight experts, two per token", made_here("tiny-mixtral")),
    Healthy("sliding-window", "a window of 1 024 tokens in every layer", made_here("tiny-sliding")),
    Healthy("kv-fp8", "KV in fp8", _args("--kv-cache-dtype", "fp8")),
    Healthy("no-log-probabilities", "--max-logprobs 0", _args("--max-logprobs", "0")),
    Healthy("no-prompt-tokens-details", "usage without its details", _args("--no-enable-prompt-tokens-details")),
    Healthy("usage-always", "usage in every stream, asked for or not", _args("--enable-force-include-usage")),
    Healthy("data-parallel", "two data-parallel ranks, which are given requests in turn", _args("-dp", "2")),
    Healthy("bfloat16", "weights and KV in bfloat16", BFLOAT16),
    Healthy("reasoning-parser", "chat answers through a reasoning parser", _args("--reasoning-parser", "granite")),
    Healthy("engine-log-level-debug", "vLLM logs at DEBUG", _env("VLLM_LOGGING_LEVEL", "DEBUG")),
    Healthy("log-prefix", "every line of vLLM's log has a prefix", _env("VLLM_LOGGING_PREFIX", "[blue] ")),
    Healthy(
        "hugging-face-tokenizer",
        "a Qwen-like model: 8 192 words, a Hugging Face tokenizer, a chat template of its own, no begin-of-sequence token",
        QWEN,
    ),
    Healthy(
        "qwen-bfloat16",
        "a Qwen-like model in bfloat16",
        dataclasses.replace(QWEN, changes=QWEN.changes | BFLOAT16.changes, shows=BFLOAT16.shows),
    ),
    Healthy(
        "two-served-names",
        "the model is served by two names",
        _args("--served-model-name", "mistralai/Mistral-7B-Instruct-v0.3", "an-alias"),
    ),
    Healthy(
        "json-logs",
        "vLLM logs JSON (VLLM_LOGGING_CONFIG_PATH)",
        _env("VLLM_LOGGING_CONFIG_PATH", "{folder}/logging.json", files={"logging.json": JSON_LOGS}),
    ),
    Healthy(
        "lmcache-config-file",
        "LMCache's settings come from a file (LMCACHE_CONFIG_FILE)",
        _env("LMCACHE_CONFIG_FILE", "{folder}/lmcache.yaml", files={"lmcache.yaml": "chunk_size: 256\n"}),
    ),
    Healthy(
        "multi-connector",
        "LMCache's connector inside a MultiConnector",
        Values(
            OWN_CONNECTOR,
            extra_args=(
                "--kv-transfer-config",
                '{"kv_connector":"MultiConnector","kv_role":"kv_both","kv_connector_extra_config":{"connectors":'
                '[{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}]}}',
            ),
            where="command",
            shows="MultiConnector",
        ),
    ),
    Healthy("native-offload", "vLLM's own connector, without LMCache", NATIVE_TIER),
    Healthy(
        "native-chunks-of-two-blocks",
        "vLLM's own connector with chunks of two blocks, by the connector's own configuration, and without LMCache",
        Values(
            configuration="native-cpu",
            extra_args=("--kv-transfer-config", '{"kv_connector_extra_config":{"blocks_per_chunk":2}}'),
            where="command",
            shows="blocks_per_chunk",
        ),
    ),
    Healthy(
        "disk-tier",
        "a cache server with a disk tier, and addresses that are not read: no controller, another connector",
        dataclasses.replace(
            DISK,
            env=(
                ("LMCACHE_REMOTE_URL", "lm://127.0.0.1:9"),
                ("LMCACHE_ENABLE_CONTROLLER", "False"),
                ("LMCACHE_CONTROLLER_PULL_URL", "kv-controller.invalid:9000"),
            ),
        ),
        tests=LOOKED_AT,
    ),
    Healthy(
        "three-engines",
        "replicaCount: 3, one cache server",
        Values({"replicaCount": 3}, where="record", shows="mistral-2"),
    ),
)
