"""python altered_file_is_served.py MODEL [OPTION OF VLLM...]: bytes of LMCache's files are changed, and loaded."""
import json, os, pathlib, subprocess, sys, tempfile, time, urllib.error, urllib.request

MODEL, *MORE = sys.argv[1:]
PLACE = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 5555}
CONNECTOR = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": PLACE}
SERVER = "lmcache server --host 127.0.0.1 --port 5555 --http-port 5556 --l1-size-gb 1 --chunk-size 256 --eviction-policy LRU"
ENGINE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "m"]
FILES = pathlib.Path(tempfile.mkdtemp())

def post(path, **body):
    data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    try: return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{path}", data, kind), timeout=60).read()
    except urllib.error.HTTPError as error: return json.dumps({"choices": [{"logprobs": f"{error} {error.read()}"}]})

SERVER += f" {os.environ.get('SERVER_OPTIONS', '')} --l2-adapter " + json.dumps({"type": "fs", "base_path": str(FILES)}).replace(" ", "")
server = subprocess.Popen(SERVER.split(), stdout=open("server.log", "w"), stderr=-2)
ENGINE += ["--kv-transfer-config", json.dumps(CONNECTOR), *MORE]
engine = subprocess.Popen(ENGINE, stdout=open("engine.log", "w"), stderr=-2, env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"})
while os.system("curl -sf http://127.0.0.1:8000/health"): time.sleep(1)
for what, mask in (("computed", b""), ("from disk", b""), ("one bit flipped", b"\x40"), ("4096 bytes flipped", b"\xff" * 4096)):
    for file in (one for one in FILES.rglob("*") if mask and one.is_file()):
        data = bytearray(file.read_bytes())
        for at, bits in enumerate(mask, len(data) // 2): data[at] ^= bits
        file.write_bytes(data)
    post("8000/reset_prefix_cache"), post("5556/cache/clear", tier="l1", force=True)
    answer = post("8000/v1/completions", model="m", prompt=list(range(1000, 3049)), max_tokens=1, temperature=0, logprobs=3)
    print(f"{what}: {json.loads(answer)['choices'][0]['logprobs']}", flush=True), time.sleep(5)
os.system("grep -h 'L2' server.log | tail -1"), engine.kill(), server.kill()
