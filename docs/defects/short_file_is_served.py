"""python short_file_is_served.py: files of a disk tier in process are cut short, and what is read of them is whole."""
import os, pathlib, tempfile, time, torch
from lmcache.v1.cache_engine import LMCacheEngineBuilder
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.gpu_connector.mock_gpu_connector import MockGPUConnector
from lmcache.v1.metadata import LMCacheMetadata

FOLDER, SHAPE = pathlib.Path(tempfile.mkdtemp()), (4, 2, 256, 8, 32)  # 2 MiB a chunk
config = LMCacheEngineConfig.from_defaults(
    chunk_size=256, local_cpu=False, max_local_cpu_size=0.0625, local_disk=f"{FOLDER}/", max_local_disk_size=1)
about = LMCacheMetadata(model_name="m", world_size=1, local_world_size=1, worker_id=0, local_worker_id=0,
                        kv_dtype=torch.float32, kv_shape=SHAPE)
engine = LMCacheEngineBuilder.get_or_create("x", config, about, MockGPUConnector(SHAPE), lambda t, _: t, lambda o, _: o)
engine.post_init(kvcaches=[])
disk = engine.storage_manager.storage_backends["LocalDiskBackend"]
engine.store(torch.arange(1024), kvcaches=[], slot_mapping=torch.arange(1024))
while len(disk.dict) < 4: time.sleep(0.1)
for number, file in enumerate(sorted(FOLDER.glob("*.pt"))):
    file.write_bytes(bytes([number + 1]) * file.stat().st_size)

def read(what, keys):
    for key, one in zip(keys, disk.batched_get_blocking(keys)):
        print(what, pathlib.Path(disk.dict[key].path).read_bytes()[0], "read as", set(one.byte_array.tobytes()))
        one.ref_count_down()

read("whole file of", list(disk.dict))
for file in FOLDER.glob("*.pt"): os.truncate(file, file.stat().st_size // 2)
read("half a file of", list(disk.dict)[::-1])
LMCacheEngineBuilder.destroy("x")
