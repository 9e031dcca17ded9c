"""python redis_evicts_half_a_chunk.py: a Redis that is full evicts one of the two keys of a chunk, and the lookup finds it still."""
import os, subprocess, time, torch
from lmcache.v1.cache_engine import LMCacheEngineBuilder
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.gpu_connector.mock_gpu_connector import MockGPUConnector
from lmcache.v1.metadata import LMCacheMetadata

redis = subprocess.Popen(["redis-server", "--port", "6390", "--save", "", "--maxmemory", "64mb",
                          "--maxmemory-policy", "allkeys-lru"], stdout=subprocess.DEVNULL)
time.sleep(1)
SHAPE = (4, 2, 256, 8, 32)  # 2 MiB a chunk
config = LMCacheEngineConfig.from_defaults(chunk_size=256, local_cpu=False, max_local_cpu_size=0.0625,
                                           remote_url="redis://127.0.0.1:6390", remote_serde="naive")
about = LMCacheMetadata(model_name="m", world_size=1, local_world_size=1, worker_id=0, local_worker_id=0,
                        kv_dtype=torch.float32, kv_shape=SHAPE)
engine = LMCacheEngineBuilder.get_or_create("x", config, about, MockGPUConnector(SHAPE), lambda t, _: t, lambda o, _: o)
engine.post_init(kvcaches=[])
prompts = [torch.arange(1024) + 10_000 * number for number in range(20)]  # 4 chunks each, 160 MiB in all
for prompt in prompts:
    engine.store(prompt, kvcaches=[], slot_mapping=torch.arange(1024))
    time.sleep(0.3)
for number, prompt in enumerate(prompts):
    found = engine.lookup(prompt)
    if found:
        loaded = int(engine.retrieve(prompt[:found], kvcaches=[], slot_mapping=torch.arange(found)).sum())
        print(f"prompt {number}: lookup finds {found} tokens, {loaded} are loaded")
redis.terminate()
os._exit(0)  # its threads wait for the store
