"""python logprobs_without_compiler.py MODEL [OPTION OF VLLM...]: the CPU build on a machine without a C++ compiler."""
import json, os, subprocess, sys, time, urllib.error, urllib.request

MODEL, *MORE = sys.argv[1:]
ENGINE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "m", "--enforce-eager"]
environment = {**os.environ, "CXX": "/no/compiler/here", "TORCHINDUCTOR_CACHE_DIR": f"/tmp/{os.getpid()}"}
environment.pop("TORCHDYNAMO_DISABLE", None)

def ask(**more):
    body = json.dumps({"model": "m", "prompt": list(range(1000, 1100)), "max_tokens": 1, **more}).encode()
    try:
        request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", body, {"Content-Type": "application/json"})
        print(more, urllib.request.urlopen(request, timeout=120).status, flush=True)
    except (OSError, urllib.error.HTTPError) as error:
        print(more, error, error.read()[:200] if hasattr(error, "read") else "", flush=True)

engine = subprocess.Popen([*ENGINE, *MORE], stdout=open("engine.log", "w"), stderr=-2, env=environment)
while os.system("curl -sf http://127.0.0.1:8000/health"): time.sleep(1)
ask()
ask(logprobs=1)
time.sleep(5), ask()
os.system("grep -hE 'InvalidCxxCompiler|EngineDeadError|No working C' engine.log | head -3")
engine.kill()
