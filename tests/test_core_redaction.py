"""What counts as a secret, and what must not."""

from __future__ import annotations

import ast
import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.places import ROOT
from fixtures.core.redaction.known import register_environment, register_secret, register_secrets
from fixtures.core.redaction.names import MASK, is_secret_name
from fixtures.core.redaction.redact import mask, redact, redact_tree
from fixtures.core.redaction.secret_patterns import FORMS
from tests.secrets import LIKE_SOMETHING_ELSE, OTHER_NAMES, PLACES, PLANTED, READABLE, SECRET_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_abcdefghijklmnop used", "token [redacted] used"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [redacted]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("key sk-proj-abcdefgh1234 end", "key [redacted] end"),
        ("vllm serve m --api-key topsecret --port 1", "vllm serve m --api-key [redacted] --port 1"),
        ("--api-key=topsecret --port 1", "--api-key=[redacted] --port 1"),
        ("['--api-key', 'topsecret', '--port']", "['--api-key', '[redacted]', '--port']"),
        ("- --api-key\n- topsecret\n- --port", "- --api-key\n- [redacted]\n- --port"),
        ("HF_TOKEN=abc LMCACHE_CHUNK_SIZE=256", "HF_TOKEN=[redacted] LMCACHE_CHUNK_SIZE=256"),
        ('export VLLM_API_KEY="two words"', 'export VLLM_API_KEY="[redacted]"'),
        ('{"REDIS_PASSWORD": "x y", "a": 1}', '{"REDIS_PASSWORD": "[redacted]", "a": 1}'),
        ("- name: HF_TOKEN\n  value: abc\n- name: B", "- name: HF_TOKEN\n  value: [redacted]\n- name: B"),
        ('{"name": "VLLM_API_KEY", "value": "x"}', '{"name": "VLLM_API_KEY", "value": "[redacted]"}'),
        ('{"hf_token": "abc", "n": 1}', '{"hf_token": "[redacted]", "n": 1}'),
        (r"{\"apiKey\": \"abc\"}", r"{\"apiKey\": \"[redacted]\"}"),
        (r'{"password": "a\"bc", "n": 1}', '{"password": "[redacted]", "n": 1}'),
        (r"{\"password\": \"a\\\"bc\", \"n\": 1}", r"{\"password\": \"[redacted]\", \"n\": 1}"),
        (r"{'password': 'a\\', 'n': 'b'}", "{'password': '[redacted]', 'n': 'b'}"),
        ("password: 'it''s me' # n", "password: '[redacted]' # n"),
        (
            r"['--api-key', 'x\'y', '--port']",
            "['--api-key', '[redacted]', '--port']",
        ),
        ("f(password=b'abc', n=1)", "f(password=b'[redacted]', n=1)"),
        ("api_key=SecretStr('abc')", "api_key=SecretStr('[redacted]')"),
        ("cache_key: HF_TOKEN=abc x", "cache_key: HF_TOKEN=[redacted] x"),
        (r"--set a.password=x\,y,b=c", "--set a.password=[redacted],b=c"),
        ("api_key=abc,hf_token=def;n=1", "api_key=[redacted],hf_token=[redacted];n=1"),
        ("  - --api-key\n  - abc\n  - def\n- name: n", "  - --api-key\n  - [redacted]\n  - [redacted]\n- name: n"),
        ("kind: Secret\ndata: {a: abc}\n", "kind: Secret\ndata: [redacted]\n"),
        ("login(\n    token='abc')", "login(\n    token='[redacted]')"),
        ("--set a.name=X_PASS,a.value='b c',d=e", "--set a.name=X_PASS,a.value='[redacted]',d=e"),
        ("redis://u:a/b@$(HOST):6379", "redis://[redacted]@$(HOST):6379"),
        ("REDIS_PASS=abc user=u", "REDIS_PASS=[redacted] user=u"),
        ("HF_TOKEN= abc", "HF_TOKEN= [redacted]"),
        ("HF_TOKEN= VLLM_API_KEY=abc vllm serve m", "HF_TOKEN= VLLM_API_KEY=[redacted] vllm serve m"),
        ("serve --api-key abc def ghi --port 1", "serve --api-key [redacted] [redacted] [redacted] --port 1"),
        ("serve --api-key abc def && echo it", "serve --api-key [redacted] [redacted] && echo it"),
        ("with --api-key abc the server is up", "with --api-key [redacted] the server is up"),
        ("redis://:12/abc@h:1, http://h/a@b", "redis://[redacted]@h:1, http://h/a@b"),
        ("--set e[0].value=abc --set e[0].name=X_PASS,f=1", "--set e[0].value=[redacted] --set e[0].name=X_PASS,f=1"),
        (
            "- kind: Secret\n  data:\n    a: abc\n    b: |\n      def\n- kind: ConfigMap\n  data:\n    a: b\n",
            "- kind: Secret\n  data:\n    a: [redacted]\n    b: |\n      [redacted]\n- kind: ConfigMap\n  data:\n    a: b\n",
        ),
        (
            "kind: ConfigMap\ndata:\n  a: b\n---\ndata:\n  a: abc\nkind: Secret\n",
            "kind: ConfigMap\ndata:\n  a: b\n---\ndata:\n  a: [redacted]\nkind: Secret\n",
        ),
        (
            "kind: SecretList\nitems:\n- data:\n    a: abc\n- data:\n    a: def\n",
            "kind: SecretList\nitems:\n- data:\n    a: [redacted]\n- data:\n    a: [redacted]\n",
        ),
        (
            r'["kind: Secret\ndata:\n  a: \"abc\"\n", "x: y\n"]',
            r'["kind: Secret\ndata:\n  a: [redacted]\n", "x: y\n"]',
        ),
        (
            '[{"kind":"Secret","stringData":{"a":"b{\\"c","d":"e"}},{"kind":"ConfigMap","data":{"a":"b"}}]',
            '[{"kind":"Secret","stringData":{"a":"[redacted]","d":"[redacted]"}},{"kind":"ConfigMap","data":{"a":"b"}}]',
        ),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected, "redacting twice must change nothing"


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert redact_tree({"env": [{"name": name, "value": "planted"}]}) == {"env": [{"name": name, "value": MASK}]}
    register_environment({name: "planted-there"})
    assert mask("it is planted-there") == f"it is {MASK}"


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("secret", LIKE_SOMETHING_ELSE)
def test_a_secret_may_begin_like_something_else(secret: str) -> None:
    assert redact_tree({"redisPassword": secret, "apiKeys": [secret]}) == {"redisPassword": MASK, "apiKeys": [MASK]}
    assert mask(f'redisPassword: "{secret}"') == f'redisPassword: "{MASK}"'
    register_secret(secret)
    assert mask(f"it is {secret}") == f"it is {MASK}"


@pytest.mark.parametrize("word", PLACES)
def test_what_only_stands_in_a_secrets_place_stays(word: str) -> None:
    assert redact_tree({"redisPassword": word}) == {"redisPassword": word}
    assert mask(f'redisPassword: "{word}"') == f'redisPassword: "{word}"'


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("around", ["{}", "INFO 08-21 [core.py:10] {} (end)", "E   {}"])
def test_every_kind_of_secret_is_masked(kind: str, around: str) -> None:
    secret, text = PLANTED[kind]
    if "\n" in text:
        around = "{}"
    assert secret in text
    once = redact(around.format(text))
    assert secret not in once
    assert MASK in once
    assert redact(once) == once


@pytest.mark.parametrize("kind", PLANTED)
def test_every_kind_is_masked_inside_json_twice_escaped(kind: str) -> None:
    secret, text = PLANTED[kind]
    assert secret not in redact(json.dumps(text))


def test_a_token_of_yaml_needs_no_digit() -> None:
    assert mask("user:\n  token: 'justletters'\n") == f"user:\n  token: '{MASK}'\n"
    assert mask("- token: justletters # mine\n") == f"- token: {MASK} # mine\n"
    assert mask("Unexpected token: 'justletters'") == "Unexpected token: 'justletters'"


def test_the_password_of_curl_is_known_by_its_place_in_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.core.redaction.known.KNOWN", set())
    words = ["/usr/bin/curl", "-u", "somebody:planted-place", "h"]
    assert redact_tree(words) == ["/usr/bin/curl", "-u", MASK, "h"]
    register_secrets(words)
    register_secrets({"token": "planted-place-2", "nested": {"token": "Hello"}})
    told = "planted-place of somebody, planted-place-2, Hello"
    assert mask(told) == f"{MASK} of somebody, {MASK}, Hello"
    assert redact_tree(["docker", "-u", "somebody:x", "--user", "1000:1000"])[2:] == [
        "somebody:x",
        "--user",
        "1000:1000",
    ]


@pytest.mark.parametrize("index", range(len(FORMS)))
def test_no_rule_is_idle(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.core.redaction.secret_patterns.FORMS", FORMS[:index] + FORMS[index + 1 :])
    assert [kind for kind, (secret, text) in PLANTED.items() if secret in redact(text)]


@pytest.mark.parametrize("text", READABLE)
def test_facts_are_left_alone(text: str) -> None:
    assert redact(text) == text


def test_a_log_of_some_megabytes_takes_seconds() -> None:
    line = "(EngineCore pid=1) LMCache INFO: Stored 7219 out of total 7219 tokens. size: 0.25 GB, cost 1.2 ms\n"
    begin = time.process_time()
    redact(line * 20_000)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "line",
    [
        "kind: Secret\ndata:\n  a: b\n",
        'GET redis://u:p/x?y#z {"kind":"Secret","data":{"a":"b"}} login(token=1) --api-key a b c\n',
        "token=token=token=",
        "\\\\\\\\\\",
        "redis-cli -h x -a.value= a.name=HF_TOKEN key=key: key=' key=\" </x> http://a:b//////////////@\n",
    ],
)
def test_what_looks_like_secrets_is_looked_through_in_seconds(line: str) -> None:
    begin = time.process_time()
    redact(line * (200_000 // len(line)) + '"kind": "Secret"')
    assert time.process_time() - begin < 10


@settings(deadline=None)
@given(st.text(), st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEF0123456789", min_size=16, max_size=40))
def test_no_hugging_face_token_survives(around: str, token: str) -> None:
    secret = f"hf_{token}"
    assert secret not in redact(f"{around} {secret} {around}")


def test_folders_of_this_machine_are_named_by_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("KV_OFFLOAD_CACHE", "/home/somebody/.cache/kv/")
    assert redact("/home/somebody/x /home/somebody") == "~/x ~"
    assert redact("file:///home/somebody/x") == "file://~/x"
    assert redact("/home/somebody/.cache/kv/engine/bin/python") == "$KV_OFFLOAD_CACHE/engine/bin/python"
    assert (
        redact("/home/somebodyelse/x https://host/home/somebody") == "/home/somebodyelse/x https://host/home/somebody"
    )
    assert redact(f"{ROOT}/suite/test_x.py:3") == "./suite/test_x.py:3"


@pytest.mark.parametrize("home", ["", "/"])
def test_a_home_that_is_no_folder_hides_nothing(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert redact("/usr/bin/python") == "/usr/bin/python"


@pytest.mark.parametrize("known", ["Bearer", "HF_TOKEN", "hf_token", "--api-key", "password"])
def test_a_secret_that_reads_like_a_name_hides_no_other(known: str) -> None:
    register_secret(known)
    text = 'Bearer abcdefghijk HF_TOKEN=letmein1 {"hf_token": "letmein2"} --api-key letmein3 password: letmein4'
    assert not re.search("abcdef|letmein", mask(text))
    assert known not in mask(f"it is {known}")


def test_what_was_remembered_is_masked_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    register_secrets(
        {"servingEngineSpec": {"vllmApiKey": "plain-word"}, "modelSpec": [{"hf_token": "other-word"}], "tag": "v1"}
    )
    register_secret("abc")  # too short to be masked by value
    assert redact("vllmApiKey: plain-word, hf_token: other-word, v1 abc") == (
        f"vllmApiKey: {MASK}, hf_token: {MASK}, v1 abc"
    )
    assert redact_tree({"args": ["serve", "plain-word"]}) == {"args": ["serve", MASK]}


def _sentences() -> Iterator[tuple[str, str]]:
    """(place, text) of every literal of the code that is not a docstring; what is put into it stands as one letter."""
    for folder in ("fixtures", "suite"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.JoinedStr):
                    yield (
                        where,
                        "".join(str(one.value) if isinstance(one, ast.Constant) else "x" for one in node.values),
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                    yield where, node.value


def test_no_message_of_the_suite_looks_like_a_secret() -> None:
    """A sentence with "password: give" loses its remedy wherever it is printed."""
    garbled = {
        where: text
        for where, text in _sentences()
        if " " in text.strip() and "core/redaction" not in where and redact(text) != text and text != "Bearer x"
    }
    assert garbled == {}


def test_half_a_character_can_be_written_down() -> None:
    """The escapes of JSON name halves of surrogate pairs, in names and answers alike."""
    assert redact("expected a, got m\ud800x") == "expected a, got m\\ud800x"
    assert redact_tree({"m\udcff": ["\U0001f600 \ud83d"]}) == {"m\\udcff": ["\U0001f600 \\ud83d"]}
