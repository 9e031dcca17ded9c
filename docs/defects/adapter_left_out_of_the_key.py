"""python adapter_left_out_of_the_key.py: the keys under which LMCache stores the same tokens for two LoRA adapters. No engine."""
from types import SimpleNamespace as N

try:
    from lmcache.integration.vllm.lmcache_mp_metadata import LMCacheMPRequestTracker  # LMCache 0.5.5, 0.5.6
except ModuleNotFoundError:
    from lmcache.integration.vllm.lmcache_mp_connector import LMCacheMPRequestTracker  # LMCache 0.5.3
from lmcache.integration.vllm.vllm_multi_process_adapter import LMCacheMPSchedulerAdapter
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys
from vllm.v1.request import Request

scheduler = N(parallel_strategy=N(num_kv_readers=1), model_name="m", world_size=1)

def keys(adapter, number):
    lora = LoRARequest(adapter, number, f"/{adapter}")
    request = Request("r", list(range(2049)), SamplingParams(), None, lora_request=lora)
    tracker = LMCacheMPRequestTracker(request)
    ids = list(tracker.all_token_ids)
    lmcache = LMCacheMPSchedulerAdapter._create_key(scheduler, ids, 0, 2048, "r", tracker.cache_salt)
    return lmcache, generate_block_hash_extra_keys(request, 0, 16, 0)[0]

(one, vllm_one), (other, vllm_other) = keys("a", 1), keys("b", 2)
print(f"LMCache's keys of adapter a and of adapter b are the same: {one == other}")
print(f"what vLLM's own hashes have besides the tokens: {vllm_one} and {vllm_other}")
