"""Which functions of vLLM and LMCache are wrapped, and the names of all faults."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from typing import Any

from . import cache_server, engine_core, in_process, lookup, lower_tier, native, transfer
from .control import fired, wrap


def _worker_transfer(module: Any) -> None:
    wrap(module, "scatter_cpu_to_paged_kv", transfer.scatter)
    wrap(module, "gather_paged_kv_to_cpu", transfer.gather)
    wrap(module.EngineDrivenTransferContext, "submit_store", transfer.submit_store)
    wrap(module.EngineDrivenTransferContext, "submit_retrieve", transfer.submit_retrieve)


def _gpu_connectors(module: Any) -> None:
    wrap(module.VLLMPagedMemGPUConnectorV2, "batched_to_gpu", transfer.batched_to_gpu)
    wrap(module.VLLMPagedMemGPUConnectorV3, "batched_to_gpu", transfer.batched_to_gpu)


def _adapter(module: Any) -> None:
    wrap(module.LMCacheMPSchedulerAdapter, "check_lookup_result", lookup.check_lookup_result)
    wrap(module.LMCacheMPSchedulerAdapter, "_create_key", cache_server.no_salt)
    wrap(module.LMCacheMPWorkerAdapter, "_create_key", cache_server.no_salt)
    wrap(module.LMCacheMPWorkerAdapter, "batched_submit_retrieve_requests", transfer.batched_retrieves)
    wrap(module.LMCacheMPWorkerAdapter, "get_finished", transfer.worker_get_finished)
    wrap(module.LMCacheMPWorkerAdapter, "_reregister_kv_caches_callback", transfer.reregister)
    for name in ("get_block_ids_with_load_errors", "get_failed_request_ids"):
        wrap(module.LMCacheMPWorkerAdapter, name, transfer.load_errors)


def _mp_metadata(module: Any) -> None:
    wrap(module.LMCacheMPRequestTracker, "__init__", cache_server.tracker)


def _lookup_module(module: Any) -> None:
    wrap(module.LookupModule, "lookup", cache_server.lookup)
    wrap(module.LookupModule, "_consume_prefetch_result", cache_server.consume_prefetch_result)


def _engine_driven_module(module: Any) -> None:
    wrap(module.EngineDrivenTransferModule, "commit_store", cache_server.commit_store)


def _storage_manager(module: Any) -> None:
    wrap(module.StorageManager, "finish_write_by_owner", cache_server.finish_write)
    wrap(module.StorageManager, "finish_read_prefetched", cache_server.finish_read)


def _files_below(module: Any) -> None:
    wrap(module, "_object_key_to_filename", lower_tier.file_name)
    for name, make in (
        ("__init__", lower_tier.empty_at_start),
        ("_execute_store", lower_tier.write_below),
        ("_execute_lookup", lower_tier.look_below),
        ("_key_exists_on_disk", lower_tier.is_below),
        ("_execute_load", lower_tier.read_below),
    ):
        wrap(module.FSL2Adapter, name, make)


def _store_below(module: Any) -> None:
    wrap(module, "_object_key_to_string", lower_tier.file_name)
    wrap(module.NativeConnectorL2Adapter, "submit_store_task", lower_tier.write_to_store)


def _prefetch_controller(module: Any) -> None:
    wrap(module.PrefetchController, "query_prefetch_result", lower_tier.prefetch_result)


def _lru_policy(module: Any) -> None:
    wrap(module.LRUEvictionPolicy, "get_eviction_actions", cache_server.eviction_actions)
    wrap(module.LRUEvictionPolicy, "on_keys_touched", cache_server.keys_touched)


def _fs_adapter(module: Any) -> None:
    wrap(module, "_async_readinto_full", lower_tier.readinto)
    adapter = module.FSL2Adapter
    wrap(adapter, "_key_to_path", lower_tier.key_to_path)
    wrap(adapter, "_execute_store", lower_tier.l2_store)
    wrap(adapter, "_execute_lookup", lower_tier.l2_lookup)
    wrap(adapter, "_execute_load", lower_tier.l2_load)
    wrap(adapter, "submit_load_task", lower_tier.l2_loaded)
    wrap(adapter, "query_load_result", lower_tier.l2_result)
    _files_below(module)


def _l2_base(module: Any) -> None:
    wrap(module.L2AdapterInterface, "get_usage", lower_tier.l2_usage)


def _l2_eviction(module: Any) -> None:
    wrap(module.L2EvictionController, "_check_and_evict", lower_tier.l2_evict)
    wrap(module.L2AdapterEvictionState, "__init__", lower_tier.l2_state)


def _token_hasher(module: Any) -> None:
    wrap(module.TokenHasher, "hash_tokens", cache_server.hash_tokens)


def _block_pool(module: Any) -> None:
    wrap(module.BlockPool, "free_blocks", engine_core.free_blocks)


def _scheduler(module: Any) -> None:
    wrap(module.Scheduler, "_free_blocks", engine_core.free_blocks_of)
    wrap(module.Scheduler, "finish_requests", engine_core.finish_requests)
    wrap(module.Scheduler, "add_request", engine_core.add_request)


def _kv_cache_manager(module: Any) -> None:
    wrap(module.KVCacheManager, "allocate_slots", engine_core.allocate_slots)


def _stats(module: Any) -> None:
    wrap(module.PrefillStats, "set", engine_core.prefill_stats)


def _connector(module: Any) -> None:
    wrap(module.LMCacheMPConnector, "request_finished", engine_core.request_finished)


def _host_tier(module: Any) -> None:
    wrap(module.HostCopyWorker, "_copy", native.native_copy)


def _gpu_worker(module: Any) -> None:
    wrap(module.SingleDirectionOffloadingHandler, "transfer_async", native.native_transfer)


def _native_manager(module: Any) -> None:
    wrap(module.CPUOffloadingManager, "lookup", native.native_lookup)
    wrap(module.CPUOffloadingManager, "prepare_store", native.native_store)


def _local_disk(module: Any) -> None:
    wrap(module.LocalDiskBackend, "submit_put_task", in_process.put_on_disk)
    wrap(module.LocalDiskBackend, "read_file", in_process.read_from_disk)


def _remote(module: Any) -> None:
    wrap(module.RemoteBackend, "batched_submit_put_task", in_process.put_in_store)


def _controller(module: Any) -> None:
    wrap(module.LMCacheWorker, "put_msg", in_process.tell_controller)


def _shm_broadcast(module: Any) -> None:
    wrap(module.SpinCondition, "wait", engine_core.wait)


def _l2_throughput(module: Any) -> None:
    wrap(module.L2ThroughputSubscriber, "_on_load_completed", lower_tier.load_measured)


TARGETS = {
    "lmcache.v1.multiprocess.transfer_context.worker_transfer": _worker_transfer,
    "lmcache.v1.gpu_connector.gpu_connectors": _gpu_connectors,
    "lmcache.integration.vllm.vllm_multi_process_adapter": _adapter,
    "lmcache.integration.vllm.lmcache_mp_metadata": _mp_metadata,
    "lmcache.v1.multiprocess.modules.lookup": _lookup_module,
    "lmcache.v1.multiprocess.modules.engine_driven_transfer": _engine_driven_module,
    "lmcache.v1.distributed.storage_manager": _storage_manager,
    "lmcache.v1.distributed.eviction_policy.lru": _lru_policy,
    "lmcache.v1.distributed.l2_adapters.fs_l2_adapter": _fs_adapter,
    "lmcache.v1.distributed.l2_adapters.base": _l2_base,
    "lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter": _store_below,
    "lmcache.v1.distributed.storage_controllers.prefetch_controller": _prefetch_controller,
    "lmcache.v1.distributed.storage_controllers.eviction_controller": _l2_eviction,
    "lmcache.v1.mp_observability.subscribers.metrics.l2_throughput": _l2_throughput,
    "lmcache.v1.multiprocess.token_hasher": _token_hasher,
    "lmcache.v1.cache_controller.worker": _controller,
    "lmcache.v1.storage_backend.local_disk_backend": _local_disk,
    "lmcache.v1.storage_backend.remote_backend": _remote,
    "lmcache.integration.vllm.lmcache_mp_connector": _connector,
    "kv_offload_host_tier": _host_tier,
    "vllm.v1.kv_offload.cpu.gpu_worker": _gpu_worker,
    "vllm.v1.kv_offload.cpu.manager": _native_manager,
    "vllm.v1.metrics.stats": _stats,
    "vllm.v1.core.block_pool": _block_pool,
    "vllm.v1.core.sched.scheduler": _scheduler,
    "vllm.v1.core.kv_cache_manager": _kv_cache_manager,
    "vllm.distributed.device_communicators.shm_broadcast": _shm_broadcast,
}
HOOKS = frozenset(
    {
        "corrupt-load",
        "empty-load",
        "foreign-chunk",
        "uncounted-load",
        "empty-store",
        "corrupt-store",
        "drop-store",
        "slow-store",
        "slow-load",
        "slow-step",
        "leak-files",
        "failed-load",
        "endless-load",
        "take-gpu-memory",
        "ignore-hit",
        "short-hit",
        "slow-lookup",
        "say",
        "raise-in-lookup",
        "lost-index",
        "false-hit",
        "raise-in-store",
        "refuse-store",
        "leak",
        "leak-load",
        "lost-write",
        "lose-chunks",
        "expire-chunks",
        "keep-few",
        "never-evict",
        "evict-newest",
        "forget-use",
        "end-engine",
        "keep-pins",
        "reseed",
        "weak-hash",
        "no-salt",
        "adapter-in-key",
        "own-keys",
        "new-keys",
        "below-drop",
        "below-late",
        "below-keep-few",
        "below-never-found",
        "below-first-only",
        "below-mixed-up",
        "below-slow",
        "below-counted-above",
        "below-empty-at-start",
        "below-new-names",
        "below-lost-names",
        "below-no-salt",
        "disk-drop",
        "disk-never-full",
        "disk-slow",
        "store-drop",
        "told-of-another",
        "other-model",
        "other-words",
        "keep-blocks",
        "keep-aborted",
        "count-gpu-only",
        "count-hit-as-loaded",
        "lose-after-abort",
        "lock-loads",
        "die-at-hit",
        "deaf-when-restarted",
        "never-recovers",
        "hide-failed-load",
        "pad-short-file",
        "serve-another-file",
        "checksum",
        "give-up-tier",
        "die-when-full",
        "hasty-load",
        "loads-not-measured",
        "endless-lookup",
        "lookup-behind-load",
        "never-evict-below",
        "count-half",
        "recount-at-start",
        "silent",
        "log-full",
        "ignore-sigterm",
    }
)
"""Every name that the control file may hold."""


class Finder(importlib.abc.MetaPathFinder):
    """Wraps the functions of a module right after the module was first executed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002
        """Let Python find the module; have its loader call the patch."""
        patch = TARGETS.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if patch else None
        if patch is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            try:
                patch(module)
            except AttributeError as error:
                print(f"lab: {name} is not as expected: {error}", file=sys.stderr)
            else:
                fired(f"wrapped {name}")

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
