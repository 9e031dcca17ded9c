"""python cache_server_that_does_not_answer.py MODEL [OPTION OF VLLM...]: how long does a request wait for a stopped cache server?"""
import json, os, signal, subprocess, sys, time, urllib.request

MODEL, *MORE = sys.argv[1:]
PLACE = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 5555}
CONNECTOR = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": PLACE}
SERVER = "lmcache server --host 127.0.0.1 --port 5555 --l1-size-gb 1 --chunk-size 256 --eviction-policy LRU"
ENGINE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "m"]

def ask(first, what):
    body = json.dumps({"model": "m", "prompt": list(range(first, first + 1025)), "max_tokens": 1}).encode()
    request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", body, {"Content-Type": "application/json"})
    began, said = time.monotonic(), "answered"
    try: urllib.request.urlopen(request, timeout=400)
    except OSError as error: said = error
    print(f"{what}: {said} after {time.monotonic() - began:.1f} s", flush=True)

server = subprocess.Popen(f"{SERVER} {os.environ.get('SERVER_OPTIONS', '')}".split(), stdout=open("server.log", "w"), stderr=-2)
ENGINE += ["--kv-transfer-config", json.dumps(CONNECTOR), *MORE]
engine = subprocess.Popen(ENGINE, stdout=open("engine.log", "w"), stderr=-2)
while os.system("curl -sf http://127.0.0.1:8000/health"): time.sleep(1)
ask(2000, "a new prompt, the first of all")
ask(4000, "a new prompt, all is well")
server.send_signal(signal.SIGSTOP)
ask(6000, "a new prompt, cache server stopped (SIGSTOP)")
server.send_signal(signal.SIGCONT)
ask(8000, "a new prompt, cache server continued (SIGCONT)")
engine.kill(), server.kill()
