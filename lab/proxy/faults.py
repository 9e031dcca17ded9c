"""Every fault of a proxy, by the name that the catalogue of the lab gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.proxy.answer_faults import (
    BadRequests,
    Buffered,
    CachedTokens,
    ContentType,
    CutBody,
    CutStream,
    DropEvent,
    Echo,
    FinishReason,
    HoldFirstEvent,
    LoseDone,
    SendAgain,
    Status,
    Usage,
    Without,
)
from lab.proxy.forwarding import Delay, ForwardAs, LendKey, Metrics, Swap, WithoutHeader
from lab.proxy.repeat_faults import DropLastToken, EdgeCache, SlowRepeat
from lab.proxy.routing_faults import Astray, GivesUp, KeepsDead, ListModels, Models

if TYPE_CHECKING:
    from lab.proxy.fault import Fault

FAULTS: dict[str, type[Fault]] = {
    "cut-stream": CutStream,
    "lose-done": LoseDone,
    "drop-event": DropEvent,
    "send-again": SendAgain,
    "buffered": Buffered,
    "content-type": ContentType,
    "usage": Usage,
    "cached-tokens": CachedTokens,
    "finish-reason": FinishReason,
    "without": Without,
    "echo": Echo,
    "cut-body": CutBody,
    "hold-first-event": HoldFirstEvent,
    "status": Status,
    "bad-requests": BadRequests,
    "forward-as": ForwardAs,
    "lend-key": LendKey,
    "swap": Swap,
    "slow-repeat": SlowRepeat,
    "drop-last-token": DropLastToken,
    "edge-cache": EdgeCache,
    "models": Models,
    "list-models": ListModels,
    "astray": Astray,
    "keeps-dead": KeepsDead,
    "gives-up": GivesUp,
    "without-header": WithoutHeader,
    "metrics": Metrics,
    "delay": Delay,
}
