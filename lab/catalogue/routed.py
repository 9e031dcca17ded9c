"""Faults of a router and of several engines."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lab.catalogue.model import Fault, Hook, Proxy, ids
from lab.catalogue.settings import (
    BROKEN_BY_THE_ROUTER,
    BY_KV,
    FROZEN_ONLY,
    KILLED_ONLY,
    ROUTED,
    ROUTED_BY_KV,
    ROUTED_BY_PREFIX,
    ROUTED_TWICE,
    ROUTING,
)

if TYPE_CHECKING:
    from lab.catalogue.model import Kind


def _in_failover(
    id_: str, kind: Kind, title: str, source: str, injection: Proxy, without: tuple[str, ...] = KILLED_ONLY
) -> Fault:
    """A fault in place of a router, one of whose engines fails."""
    tests = ("RTR-03", "CFG-01", "CFG-06")
    return Fault(id_, kind, title, source, injection, ids("RTR-03"), tests=tests, without=without)


FAULTS: tuple[Fault, ...] = (
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
        "router-goes-by-the-header-alone",
        "serving",
        "a router that is to go by the beginning of the prompt sends requests without a session header to the engines in turn",
        "PS#818 (affinity lost)",
        Proxy("astray", values=ROUTED_BY_PREFIX),
        ids("RTR-02"),
        allowed=ids("RTR-06"),
        tests=ROUTING,
    ),
    Fault(
        "registry-is-told-nothing",
        "inactive",
        "the engines behind a KV-aware router tell its registry nothing: their controller is switched off",
        "PS PR#1062 (the index is silently empty)",
        dataclasses.replace(ROUTED_BY_KV, changes={"lmcacheConfig.enableController": False}),
        ids("RTR-02 RTR-06"),
        tests=BY_KV,
    ),
    Fault(
        "registry-names-another-engine",
        "serving",
        "the registry of a KV-aware router has what the first engine stored as held by the second one",
        "PS PR#1061 (stale registration)",
        Hook("told-of-another", {"engine": 0, "instance": "mistral-1"}, values=ROUTED_BY_KV),
        ids("RTR-02"),
        allowed=ids("RTR-06"),
        tests=BY_KV,
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
    _in_failover(
        "router-keeps-a-dead-engine",
        "crash or hang",
        "the router goes on sending every second request to an engine that has ended",
        "PS#749 (a dead engine is kept)",
        Proxy("keeps-dead", {"then": "error"}, values=ROUTED),
    ),
    _in_failover(
        "router-waits-for-a-dead-engine",
        "crash or hang",
        "requests that the router sends to an engine that has ended never end",
        "PS#749 (requests hang)",
        Proxy("keeps-dead", {"then": "hang"}, values=ROUTED),
    ),
    _in_failover(
        "router-ends-answers-of-a-dead-engine",
        "wrong answer",
        "an answer that breaks off with its engine reaches the client as if it was whole",
        "cluster: a stream of an engine that dies ends without an error event",
        Proxy("keeps-dead", {"then": "end"}, values=ROUTED),
    ),
    _in_failover(
        "router-forgets-an-engine",
        "crash or hang",
        "the router never again sends a request to an engine that has failed once",
        "PS#706 (engines lost for good)",
        Proxy("keeps-dead", {"then": "forget"}, values=ROUTED),
    ),
    _in_failover(
        "router-keeps-a-hung-engine",
        "crash or hang",
        "the router goes on sending every second request to an engine that hangs, and gives each up after 3 s",
        "PS#749 (a dead engine is kept)",
        Proxy("gives-up", {"seconds": 3}, values=ROUTED),
        without=FROZEN_ONLY,
    ),
    Fault(
        "router-begins-an-answer-again",
        "wrong answer",
        "where a stream breaks off with its engine, the router sends the whole answer of another one behind what has come",
        "PS#706 (requests that are sent again)",
        Proxy("keeps-dead", {"then": "again"}, values=ROUTED),
        ids("RTR-07"),
        slow=True,
        tests=("RTR-07", "CFG-01", "CFG-06"),
        without=KILLED_ONLY,
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
)
