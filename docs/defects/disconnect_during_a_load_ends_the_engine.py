"""python disconnect_during_a_load_ends_the_engine.py MODEL [OPTION OF VLLM...]: clients go away while their KV is loaded."""
import json, os, socket, subprocess, sys, time

MODEL, *MORE = sys.argv[1:]
PLACE = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 5555}
CONNECTOR = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": PLACE}
SERVER = "lmcache server --host 127.0.0.1 --port 5555 --l1-size-gb 1 --chunk-size 256 --eviction-policy LRU"
ENGINE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "m"]

def send(path, **body):  # returns the connection
    data, connection = json.dumps(body).encode(), socket.create_connection(("127.0.0.1", 8000))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection

def ask(first):
    return send("/v1/completions", model="m", prompt=[first + n for n in range(7000)], max_tokens=1)

server = subprocess.Popen(f"{SERVER} {os.environ.get('SERVER_OPTIONS', '')}".split(), stdout=open("server.log", "w"), stderr=-2)
ENGINE += ["--kv-transfer-config", json.dumps(CONNECTOR), *MORE]
engine = subprocess.Popen(ENGINE, stdout=open("engine.log", "w"), stderr=-2, env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"})
while os.system("curl -sf http://127.0.0.1:8000/health"): time.sleep(1)
for n in range(1, 5): ask(n * 1000).recv(100)  # stored
for ms in (10, 20, 30, 50, 80, 120, 200, 300, 10, 20, 30, 50, 80, 120, 200, 300):
    send("/reset_prefix_cache").recv(100)
    asked = [ask(n * 1000) for n in range(1, 5)]  # four loads
    time.sleep(ms / 1000), [one.close() for one in asked], time.sleep(3)
    if os.system(f"echo disconnected after {ms} ms; grep -hB1 'assert req_id' engine.log") == 0: break
engine.kill(), server.kill()
