"""Reading shell scripts of containers: what they run, without running them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fixtures.evidence import shell
from fixtures.evidence.pods.containers import main_container, role_of
from fixtures.evidence.shell_syntax import closing_parenthesis, script_of
from fixtures.provide.release import discover


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("# start the engine\nvllm serve m --port 8000", [["vllm", "serve", "m", "--port", "8000"]]),
        ("set -e # fail early\nvllm serve m", [["set", "-e"], ["vllm", "serve", "m"]]),
        ("# don't wait\nexec vllm serve m", [["vllm", "serve", "m"]]),
        ("(vllm serve m) 2>&1 | tee /log", [["vllm", "serve", "m"], ["tee", "/log"]]),
        ("vllm serve m >/log 2>&1 &\nwait $!", [["vllm", "serve", "m"], ["wait", "$!"]]),
        ("vllm serve m &> /log", [["vllm", "serve", "m"]]),
        ("a > >(tee log) < in <<< 'x y'", [["a"]]),
        ("a m#1 '#2' \"#3\" \\#4 #5", [["a", "m#1", "#2", "#3", "#4"]]),
        ("cat <<'EOF' > /x\ndon't\nEOF\nb", [["cat"], ["b"]]),
        ("cat <<-EOF\n\tdon't\n\tEOF\nb", [["cat"], ["b"]]),
        ("cat <<EOF\nA\nb\n\tEOF\nZ\nEOF\nc", [["cat"], ["c"]]),
        ('a "x\\"y\\\\z\\n\\\nw" b', [["a", 'x"y\\z\\nw', "b"]]),
        ("a && b || c", [["a"], ["b"], ["c"]]),
        ("a $(b) `c` $'d' $\"e\" $ f", [["a", "$(b)", "`c`", "d", "e", "$", "f"]]),
        ("eval a b; eval 'c d'", [["a", "b"], ["c", "d"]]),
        ("a # b\nc #", [["a"], ["c"]]),
        ("a 'b' \"c d\" e\\ f \\\n g", [["a", "b", "c d", "e f", "g"]]),
        ("""a --x '{"k": "v"}' "" ''""", [["a", "--x", '{"k": "v"}', "", ""]]),
        ('if [ -n "$X" ]; then exec a; else b; fi', [["[", "-n", "$X", "]"], ["a"], ["b"]]),
        ("while true; do a; done | tee x", [["true"], ["a"], ["tee", "x"]]),
        ("case $X in y) a;; esac; b", [["a"], ["b"]]),
        ("f() { a; }; f", [["f"], ["a"], ["}"], ["f"]]),
        ("A=1 B=2 a $A", [["a", "$A"]]),
        ("A=$(cat 'x)' y) && a \"$A\" `b c`", [["a", "$(cat 'x)' y)", "`b c`"]]),
        ("a; b 'c", [["a"]]),
        ("a; b it's\nc", [["a"], ["c"]]),
        ("A=$(cat <<EOF\ndon't\nEOF\n)\nb", [["EOF"], ["b"]]),
        ("a; b $(c", [["a"]]),
        ("a\r\nb", [["a"], ["b"]]),
    ],
)
def test_simple_commands(script: str, found: list[list[str]]) -> None:
    assert shell.commands(script, {}) == found


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("PORT=8123; a $PORT ${PORT} \"$PORT\" '$PORT'", ["a", "8123", "8123", "8123", "$PORT"]),
        ("export PORT=8123\na --port=$PORT", ["a", "--port=8123"]),
        ("a ${PORT:-8123} ${PORT-1} ${NAME:-8123} ${NODE:-8123}", ["a", "8123", "1", "n", "${NODE:-8123}"]),
        ('a ${A:-${NAME:-x}} ${A:-"$NAME y"} ${A:+no}', ["a", "n", "n", "y"]),
        (": ${PORT:=8123}; a $PORT", ["a", "8123"]),
        ("a ${PORT:?needed} ${NAME%x} ${#NAME}", ["a", "${PORT:?needed}", "${NAME%x}", "${#NAME}"]),
        ("X='--port 9000 --y'; a $X \"$X\"", ["a", "--port", "9000", "--y", "--port 9000 --y"]),
        ("X=(--port 9000)\nX+=('a b'); a \"${X[@]}\"", ["a", "--port", "9000", "a b"]),
        ('X=(\'a b\' c); a "${X[*]}" ${X[@]} "$X"', ["a", "a b c", "a", "b", "c", "a b"]),
        ('a "$*" $@', ["a", "x y z", "x", "y", "z"]),
        ("X=1; X+=2; a $X", ["a", "12"]),
        ("X=(b c); a ${X[*]} ${X} $X", ["a", "b", "c", "b", "b"]),
        ("X=(b\nc\n); a ${X[@]}", ["a", "b", "c"]),
        ("X=(); a ${X[@]} b", ["a", "b"]),
        ("X=(b; c); a ${X[@]}", ["a", "${X[@]}"]),
        ("if b; then X=(c); fi; a ${X[@]}", ["a", "${X[@]}"]),
        ("a ${X:-b c} ${X-'d e'} ${X+f} ${NAME+g} ${NAME:+h}", ["a", "b", "c", "d", "e", "g", "h"]),
        (": ${X-1}; a $X", ["a", "$X"]),
        ("b || X=1; a $X", ["a", "$X"]),
        ("echo || X=1; a $X", ["a", "$X"]),
        ("if [ $NAME ]; then PORT=1; fi; a $PORT", ["a", "$PORT"]),
        ("[ $NAME ] && PORT=1; a $PORT", ["a", "$PORT"]),
        ("cd /x && PORT=1 && a $PORT", ["a", "1"]),
        ("set -e && PORT=1; a $PORT", ["a", "1"]),
        ("for P in 1 2; do a $P; done", ["a", "$P"]),
        ("NAME=2; read NAME; a $NAME", ["a", "$NAME"]),
        ("NAME=2 a $NAME", ["a", "n"]),
        ("a $NODE $UNKNOWN", ["a", "$NODE", "$UNKNOWN"]),
        ('exec a "$@" $1', ["a", "x y", "z", "x", "y"]),
    ],
)
def test_variables_that_the_script_tells(script: str, words: list[str]) -> None:
    found = shell.commands(script, {"NAME": "n", "NODE": None}, ("zero", "x y", "z"))
    assert [one for one in found if one[0] == "a"][-1] == words


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["bash", "-c", "x"], ("x",)),
        (["/bin/sh", "-ec", "x", "y"], ("x", "y")),
        (["bash", "-c", "--", "x"], ("x",)),
        (["bash", "-c", "--", "x", "y", "z"], ("x", "y", "z")),
        (["bash", "-euo", "pipefail", "-c", "x"], ("x",)),
        (["bash", "-o", "pipefail", "-lc", "x"], ("x",)),
        (["bash", "-ceuo", "pipefail", "x"], ("x",)),
        (["bash", "--rcfile", "/etc/x", "-c", "x", "y"], ("x", "y")),
        (["tini", "--", "bash", "-c", "x"], ("x",)),
        (["/usr/bin/env", "bash", "-c", "x"], ("x",)),
        (["ksh", "-c", "x"], ("x",)),
        (["env", "SHELL=/bin/bash", "sh", "-c", "x"], ("x",)),
        (["runuser", "-s", "/bin/bash", "-u", "app", "--", "sh", "-c", "x"], ("x",)),
        (["bash", "/entry.sh", "bash", "-c", "x"], ("x",)),
        (["su", "-c", "x y", "app"], ("x y", "app")),
        (["su", "-", "app", "-s", "/bin/bash", "-c", "x y"], ("x y",)),
        (["su", "-lc", "x y", "app"], ("x y", "app")),
        (["su", "-cx y", "app"], ("x y", "app")),
        (["su", "app", "--command=x y"], ("x y",)),
        (["su", "app", "--session-command", "x y"], ("x y",)),
        (["runuser", "app", "--command", "x y"], ("x y",)),
        (["script", "-qefc", "x y", "/dev/null"], ("x y", "/dev/null")),
        (["flock", "/lock", "-c", "x y"], ("x y",)),
        (["env", "-S", "A=1 x y"], ("A=1 x y",)),
        (["/usr/bin/env", "-u", "B", "-iSx y", "z z"], ("x y 'z z'",)),
        (["env", "--split-string=x y"], ("x y",)),
        (["env", "C=1", "--split-string", "x y"], ("x y",)),
        (["runuser", "-u", "app", "--", "x", "-c", "y"], None),
        (["runuser", "-u", "app", "vllm", "serve", "m", "-cc", '{"level": 0}'], None),
        (["runuser", "--user=app", "vllm", "serve", "m", "-sc", "{}"], None),
        (["env", "x", "-S", "y"], None),
        (["env", "-S"], None),
        (["su", "-c"], None),
        (["bash", "start.sh", "-c", "x"], None),
        (["bash", "--", "x"], None),
        (["bash", "-c", "--"], None),
        (["bash", "-c"], None),
        (["bash"], None),
        (["vllm", "serve", "m"], None),
    ],
)
def test_scripts_of_shells_and_their_arguments(words: list[str], script: tuple[str, ...] | None) -> None:
    found = script_of(words)
    assert (found and (found[0], *found[1])) == script


@pytest.mark.parametrize(
    ("text", "end"),
    [("(a)b", 2), ("(a(b)c)d)", 6), (r"(\))", 3), (r"(')')", 4), (r"('\')", 4), (r'("\")")', 6), ("a(b)", 3)],
)
def test_where_a_parenthesis_is_closed(text: str, end: int) -> None:
    assert closing_parenthesis(text, text.index("(")) == end


@pytest.mark.parametrize("text", ["(a", "(')", r"(\)", "("])
def test_what_is_closed_nowhere_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        closing_parenthesis(text, 0)


def test_no_script_is_too_odd_to_be_read() -> None:
    dice = random.Random(5)
    pieces = [
        *"'\"\\$`(){}[]<>|&;#=\n\t !@*-+:?",
        "${",
        "$(",
        "<<",
        "A=(",
        "${A:-",
        "A",
        "$A",
        "if",
        "fi",
        "done",
        "A+=",
        "a b",
    ]
    for _ in range(3000):
        script = "".join(dice.choice(pieces) for _ in range(dice.randrange(25)))
        assert all(shell.commands(script, {"A": "x y"}))
    assert shell.commands("${A:-" * 3000 + "}" * 3000, {}) is not None
    assert shell.commands("A=$A$A$A\n" * 200, {"A": "x"}) == []
    assert shell.commands("A=(" * 1000 + ")" * 1000, {}) == []
    assert shell.commands('A=("${A[@]}" "${A[@]}")\n' * 200, {"A": ["x"]}) == []


def pod(*containers: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"containers": list(containers)}}


def runs(*command: str, **container: Any) -> dict[str, Any]:
    return {"name": command[0], "command": list(command), **container}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["bash", "-c", "# start the engine\nvllm serve m --port 8000"], "engine"),
        (["bash", "-c", "set -e # fail early\nvllm serve m"], "engine"),
        (["bash", "-c", "# don't wait\nexec vllm serve m"], "engine"),
        (["tini", "--", "bash", "-c", "vllm serve m"], "engine"),
        (["/usr/bin/env", "bash", "-c", "vllm serve m"], "engine"),
        (["su", "-c", "vllm serve m"], "engine"),
        (["su", "-s", "/bin/bash", "app", "-c", "exec vllm serve m"], "engine"),
        (["bash", "-c", "chown app /data && exec su app -c 'vllm serve m'"], "engine"),
        (["runuser", "-u", "app", "--", "vllm", "serve", "m"], "engine"),
        (["gosu", "app", "vllm", "serve", "m"], "engine"),
        (["sudo", "-E", "-u", "app", "vllm", "serve", "m"], "engine"),
        (["numactl", "--membind=0", "nsys", "profile", "-o", "/x", "vllm", "serve", "m"], "engine"),
        (["/usr/bin/env", "-S", "HF_HOME=/x vllm serve", "m"], "engine"),
        (["su", "-c", "lmcache server --port 5555", "app"], "cache server"),
        (["runuser", "-l", "app", "-c", "vllm-router --service-discovery k8s"], "router"),
        (["su", "-c", "tail -F /log/vllm.log # vllm serve m"], "other"),
        (["su", "-c", "echo vllm serve m"], "other"),
        (["env", "-S", "pgrep -f vllm serve"], "other"),
        (["dumb-init", "--", "sh", "-c", "exec vllm serve m"], "engine"),
        (["bash", "-c", "(vllm serve m) 2>&1 | tee /log"], "engine"),
        (["bash", "-c", "bash -c 'vllm serve m'"], "engine"),
        (["bash", "-c", 'exec "$@"', "--", "vllm", "serve", "m"], "engine"),
        (["bash", "-c", "lmcache server --port 5555 & exec vllm serve m"], "engine"),
        (
            ["bash", "-c", "until curl -s http://e; do sleep 1; done; lmcache server & vllm-router --port 1"],
            "cache server",
        ),
        (["bash", "-c", "# x\nlmcache server"], "cache server"),
        (["sh", "-c", "until curl -s http://x; do echo waiting for vllm serve; done"], "other"),
        (["sh", "-c", "while pgrep -f vllm serve; do sleep 1; done; pip install lmcache server"], "other"),
        (["sh", "-c", "# vllm serve m\nsleep infinity"], "other"),
        (["sh", "-c", "M=$$(cat /m); vllm serve $$M"], "engine"),
        (["bash", "-c", "vllm bench serve --model m"], "other"),
        (["bash", "-c", "vllm serve m --headless"], "other"),
        (["vllm-router", "--service-discovery=k8s", "--routing-logic=roundrobin"], "router"),
        (["/opt/venv/bin/vllm-router", "--config", "/x.yaml"], "router"),
        (["bash", "-c", "vllm-router --service-discovery k8s"], "router"),
        (["python3", "-m", "vllm_router.app", "--static-backends", "http://a"], "router"),
        (["curl", "http://vllm-router"], "other"),
    ],
)
def test_roles_within_scripts(command: list[str], role: str) -> None:
    assert role_of(pod(runs("tail"), runs(*command))) == role
    if role != "other":
        assert main_container(pod(runs("tail"), runs(*command)), role)["name"] == command[0]


@pytest.mark.parametrize("beside", [["lmcache", "server"], ["vllm-router", "--service-discovery", "k8s"]])
def test_an_engine_wins_over_what_runs_beside_it(beside: list[str]) -> None:
    found = pod(runs(*beside), runs("vllm", "serve", "m", "--port", "8001"))
    assert role_of(found) == "engine"
    assert discover.port_of(found, "engine") == 8001


@pytest.mark.parametrize(
    ("args", "role"),
    [
        (["org/M", "--port", "8123"], "engine"),
        (["/models/m"], "engine"),
        (["--model", "org/M"], "engine"),
        (["/opt/start.sh"], "other"),
        (["/bin/sleep", "infinity"], "other"),
        (["sleep", "infinity"], "other"),
    ],
)
def test_arguments_of_an_image_that_starts_vllm(args: list[str], role: str) -> None:
    assert role_of(pod({"image": "vllm/vllm-openai:v0.14.0", "args": args})) == role
    assert role_of(pod({"image": "nginx", "args": args})) == "other"
    if args[0] == "org/M":
        assert discover.served_models(pod({"image": "vllm/vllm-openai", "args": args})) == ["org/M"]


@pytest.mark.parametrize(
    ("script", "env", "port"),
    [
        ("PORT=8123; vllm serve m --port $PORT", {}, 8123),
        ("export PORT=8123\nvllm serve m --port=${PORT}", {}, 8123),
        ("vllm serve m --port ${PORT:-8123}", {}, 8123),
        ("vllm serve m --port ${PORT:-8123}", {"value": "9000"}, 9000),
        ("vllm serve m --port $PORT", {"value": "9000"}, 9000),
        ("vllm serve m --port $(PORT)", {"value": "9000"}, 9000),
        ("vllm serve m --port $$PORT", {"value": "9000"}, 9000),
        ("vllm serve m --port ${PORT:-8123}", {"valueFrom": {"configMapKeyRef": {"name": "c", "key": "p"}}}, 8000),
    ],
)
def test_ports_that_a_script_tells(script: str, env: dict[str, Any], port: int) -> None:
    container = runs("bash", "-c", script, env=[{"name": "PORT", **env}] if env else [])
    assert discover.port_of(pod(container), "engine") == port
