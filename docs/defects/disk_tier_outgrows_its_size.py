"""python disk_tier_outgrows_its_size.py FOLDER: run it twice; the second run begins with the files of the first one."""
import pathlib, sys, time, torch
from lmcache.v1.cache_engine import LMCacheEngineBuilder
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.gpu_connector.mock_gpu_connector import MockGPUConnector
from lmcache.v1.metadata import LMCacheMetadata

FOLDER, MIB, SHAPE = pathlib.Path(sys.argv[1]), 2**20, (4, 2, 256, 8, 32)  # 2 MiB a chunk
config = LMCacheEngineConfig.from_defaults(
    chunk_size=256, local_cpu=False, max_local_cpu_size=0.0625, local_disk=str(FOLDER), max_local_disk_size=0.03125)
about = LMCacheMetadata(model_name="m", world_size=1, local_world_size=1, worker_id=0, local_worker_id=0,
                        kv_dtype=torch.float32, kv_shape=SHAPE)
engine = LMCacheEngineBuilder.get_or_create("x", config, about, MockGPUConnector(SHAPE), lambda t, _: t, lambda o, _: o)
engine.post_init(kvcaches=[])
print(f"at the start {sum(one.stat().st_size for one in FOLDER.glob('*.pt')) / MIB:.0f} MiB of at most 32 MiB")
for number in range(20):
    tokens = torch.randint(0, 2**30, (1024,))
    engine.store(tokens, kvcaches=[], slot_mapping=torch.arange(1024))
    time.sleep(0.2)
print(f"at the end {sum(one.stat().st_size for one in FOLDER.glob('*.pt')) / MIB:.0f} MiB")
LMCacheEngineBuilder.destroy("x")
