"""python router_errors_without_an_object.py [--production-stack]: what a router answers to bad requests; no engine is needed."""
import http.server, json, subprocess, sys, threading, time, urllib.error, urllib.request

class Engine(http.server.BaseHTTPRequestHandler):  # a stand-in that is healthy and serves the model m
    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}).encode()
        self.send_response(200), self.send_header("Content-Type", "application/json"), self.end_headers(), self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass

threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", 9001), Engine).serve_forever, daemon=True).start()
ENGINE = "http://127.0.0.1:9001"
ROUTER = f"-m vllm_router.launch_router --host 127.0.0.1 --port 9000 --policy round_robin --worker-urls {ENGINE}"
if "--production-stack" in sys.argv:
    ROUTER = f"-m vllm_router.app --host 127.0.0.1 --port 9000 --service-discovery static --static-backends {ENGINE} "
    ROUTER += "--static-models m --routing-logic roundrobin"
router = subprocess.Popen([sys.executable, *ROUTER.split()], stdout=open("router.log", "w"), stderr=-2)
for _ in range(60):
    try: urllib.request.urlopen("http://127.0.0.1:9000/v1/models"); break
    except OSError: time.sleep(1)
for body, kind in ((b"{", "application/json"), (b"[]", "application/json"), (b'{"prompt": "a"}', "application/json"),
                   (b'{"model": "other", "prompt": "a"}', "application/json"), (b'{"model": "m", "prompt": "a"}', "text/plain")):
    try: answer = urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:9000/v1/completions", body, {"Content-Type": kind}))
    except urllib.error.HTTPError as error: answer = error
    print(f"{body.decode()} as {kind}: {answer.status} {answer.headers['Content-Type']} {answer.read()[:150].decode()}", flush=True)
router.kill()
