"""python failed_load_ends_the_engine.py MODEL [OPTION OF VLLM...]: KV that the cache has found is gone when it is to be loaded."""
import json, os, subprocess, sys, threading, time, urllib.request

MODEL, *MORE = sys.argv[1:]
PLACE = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 5555}
CONNECTOR = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": PLACE}
SERVER = "lmcache server --host 127.0.0.1 --port 5555 --http-port 5556 --l1-size-gb 1 --chunk-size 256 --eviction-policy LRU"
ENGINE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "m"]

def post(path, **body):
    data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    try: urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{path}", data, kind), timeout=60)
    except OSError as error: print(path, "->", error, flush=True)

def ask(first, tokens=2049):  # returns at once
    body = {"model": "m", "prompt": [first + n % 20000 for n in range(tokens)], "max_tokens": 1}
    (asked := threading.Thread(target=post, args=("8000/v1/completions",), kwargs=body)).start()
    return asked

server = subprocess.Popen(f"{SERVER} {os.environ.get('SERVER_OPTIONS', '')}".split(), stdout=open("server.log", "w"), stderr=-2)
ENGINE += ["--kv-transfer-config", json.dumps(CONNECTOR), *MORE]
engine = subprocess.Popen(ENGINE, stdout=open("engine.log", "w"), stderr=-2, env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"})
while os.system("curl -sf http://127.0.0.1:8000/health"): time.sleep(1)
for delay in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0):
    for n in range(1, 9): ask(n * 1000).join()  # stored
    post("8000/reset_prefix_cache")
    asked = [ask(9000 + int(delay * 100), 8000), *(ask(n * 1000) for n in range(1, 9))]  # a long step, and eight loads
    time.sleep(delay), post("5556/cache/clear", tier="l1", force=True), [one.join() for one in asked], time.sleep(1)
    if os.system(f"echo cleared after {delay} s; grep -hB1 'assert req_id' engine.log") == 0: break
engine.kill(), server.kill()
