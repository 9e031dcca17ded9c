"""python store_that_starts_later.py: LMCache's Redis client is made before redis-server (on PATH) runs; both are asked."""
import select, subprocess, time

from lmcache.lmcache_redis import LMCacheRedisClient

PORT = 16379

def ask(when, client):
    client.submit_batch_exists(["key"])
    ready = select.poll()
    ready.register(int(client.event_fd()), select.POLLIN)
    print(f"{when}: {client.drain_completions() if ready.poll(15000) else 'no answer within 15 s'}", flush=True)

early = LMCacheRedisClient("127.0.0.1", PORT, 2, "", "")
ask("nothing listens", early)
store = subprocess.Popen(["redis-server", "--port", str(PORT), "--save", ""], stdout=subprocess.DEVNULL)
time.sleep(2)
ask("redis-server runs, the same client", early)
ask("redis-server runs, a new client", LMCacheRedisClient("127.0.0.1", PORT, 2, "", ""))
store.kill()
