"""python hung_engine_keeps_its_requests.py: requests in flight on an engine that hangs, behind vllm-router; no engine is needed."""
import http.server, json, multiprocessing, os, signal, subprocess, sys, threading, time, urllib.request

class Engine(http.server.BaseHTTPRequestHandler):  # a stand-in that serves the model m, and needs 2 s for an answer
    def do_GET(self, wait_s=0.0):
        time.sleep(wait_s)
        body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}).encode()
        self.send_response(200), self.send_header("Content-Type", "application/json"), self.end_headers(), self.wfile.write(body)
    def do_POST(self): self.rfile.read(int(self.headers["Content-Length"])), self.do_GET(2.0)
    def log_message(self, *_): pass

def serve(port): http.server.ThreadingHTTPServer(("127.0.0.1", port), Engine).serve_forever()
def ask(name):
    request = urllib.request.Request("http://127.0.0.1:9000/v1/completions", b'{"model": "m", "prompt": "a"}', {"Content-Type": "application/json"})
    began = time.time()
    try: got = urllib.request.urlopen(request, timeout=60).status
    except OSError as error: got = getattr(error, "code", None) or repr(error)
    print(f"{name}: {got} after {time.time() - began:.0f} s", flush=True)

engines = [multiprocessing.Process(target=serve, args=(port,), daemon=True) for port in (9001, 9002)]
[one.start() for one in engines]
router = subprocess.Popen(f"{sys.executable} -m vllm_router.launch_router --host 127.0.0.1 --port 9000 --policy round_robin --worker-urls "
    "http://127.0.0.1:9001 http://127.0.0.1:9002 --health-check-interval-secs 1 --health-check-timeout-secs 2".split(), stdout=open("router.log", "w"), stderr=-2)
time.sleep(10)
flying = [threading.Thread(target=ask, args=(f"in flight, {n}",)) for n in range(4)]
[one.start() for one in flying], time.sleep(1), os.kill(engines[0].pid, signal.SIGSTOP), print("one engine is stopped", flush=True)
time.sleep(15), [ask(f"15 s later, {n}") for n in range(4)], [one.join() for one in flying]
os.kill(engines[0].pid, signal.SIGCONT), router.kill()
