"""python redis_connection_out_of_step.py: LMCache's Redis client after a short value, a refused write, and a restart of the store."""
import ctypes, os, subprocess, time
from lmcache.lmcache_redis import LMCacheRedisClient
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import NativeConnectorL2Adapter as Adapter

class Chunk:
    def __init__(self, n): self.byte_array = memoryview((ctypes.c_ubyte * 4096).from_buffer(bytearray([n]) * 4096)); KEPT.append(self)
KEPT, PORT = [], "16379"
key = lambda n: ObjectKey(chunk_hash=bytes([n]) * 8, model_name="m", kv_rank=1, object_group_id=0)
cli = lambda *words: subprocess.run(["redis-cli", "-p", PORT, *words], capture_output=True).stdout
def wait(read):
    for _ in range(300):
        if (found := read()) not in (None, {}): return found
        time.sleep(0.01)
def store(t, n): t.submit_store_task([key(n)], [Chunk(n)]); return next(iter(wait(t.pop_completed_store_tasks).values())).is_successful()
def load(t, n): task = t.submit_load_task([key(n)], [Chunk(255)]); return bool(wait(lambda: t.query_load_result(task)).get_indices_list())
def redis():
    process = subprocess.Popen(["redis-server", "--port", PORT, "--save", ""], stdout=-3)
    while b"PONG" not in cli("PING"): time.sleep(0.05)
    return process
server, new = redis(), lambda workers: Adapter(LMCacheRedisClient("127.0.0.1", int(PORT), workers, "", ""))
for workers in (1, 8):
    tier = new(workers); print(workers, "workers:", [store(tier, n) for n in (1, 2, 3)], [load(tier, n) for n in (1, 2, 3)])
    cli("SET", "m@00000001@0@" + "02" * 8, "short"); print("  short value:", load(tier, 2), [load(tier, n) for n in (1, 3) * 8])
    tier = new(workers); cli("CONFIG", "SET", "min-replicas-to-write", "1"); print("  refused write:", store(tier, 5), end=" ")
    cli("CONFIG", "SET", "min-replicas-to-write", "0"); print([store(tier, n) for n in range(6, 22)])
    tier = new(workers); server.kill(); server.wait(); server = redis(); print("  restart:", [store(tier, n) for n in range(6, 22)])
server.kill(); os._exit(0)  # the threads of the client do not end
