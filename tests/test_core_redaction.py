"""What counts as a secret, and what must not."""

from __future__ import annotations

import base64
import json
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.places import ROOT
from fixtures.core.redaction.known import register_environment, register_secret, register_secrets, register_sets
from fixtures.core.redaction.names import MASK, is_secret_name
from fixtures.core.redaction.patterns import FORMS
from fixtures.core.redaction.redact import mask, redact, redact_tree, redact_xml
from tests.secrets import LIKE_SOMETHING_ELSE, OTHER_NAMES, PLACES, PLANTED, READABLE, SECRET_NAMES


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
    monkeypatch.setattr("fixtures.core.redaction.patterns.FORMS", FORMS[:index] + FORMS[index + 1 :])
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


def test_an_environment_list_and_a_secret_are_masked_by_their_structure() -> None:
    tree = {
        "env": [{"name": "LMCACHE_REMOTE_SERDE", "value": "naive"}, {"name": "REDIS_PASSWORD", "value": "planted"}],
        "args": ["--api-key", "planted", "--port", "1"],
        "api_key": ["planted"],
        "secret": {"kind": "Secret", "data": {"k": "cGxhbnRlZA=="}, "metadata": {"name": "s"}},
    }
    found = redact_tree(tree)
    assert found["env"] == [
        {"name": "LMCACHE_REMOTE_SERDE", "value": "naive"},
        {"name": "REDIS_PASSWORD", "value": MASK},
    ]
    assert found["args"] == ["--api-key", MASK, "--port", "1"]
    assert found["api_key"] == [MASK]
    assert found["secret"] == {"kind": "Secret", "data": {"k": MASK}, "metadata": {"name": "s"}}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"apiKeys": {"alice": "planted"}}, {"apiKeys": {"alice": MASK}}),
        ({"password": {"value": "planted"}}, {"password": {"value": MASK}}),
        ({"apiKeys": [{"alice": ["planted"]}]}, {"apiKeys": [{"alice": [MASK]}]}),
        ({"credentials": {"user": "u", "x": "planted"}}, {"credentials": {"user": "u", "x": MASK}}),
        ({"redisPassword": 12345678, "n": 5}, {"redisPassword": MASK, "n": 5}),
        ({"env": [{"name": "HF_TOKEN", "value": 12345678}]}, {"env": [{"name": "HF_TOKEN", "value": MASK}]}),
        ({"redis://:planted@h:1": "up"}, {f"redis://{MASK}@h:1": "up"}),
        (
            {"redis://:planted@h:1": "up", "redis://:planted2@h:1": "no"},
            {f"redis://{MASK}@h:1": "up", f"redis://{MASK}@h:1'": "no"},
        ),
        (["redis-cli", "-h", "h", "-a", "planted", "ping"], ["redis-cli", "-h", "h", "-a", MASK, "ping"]),
        (["serve", "-a", "planted"], ["serve", "-a", "planted"]),
        (["--api-key", "planted", "planted2", "--port", "1"], ["--api-key", MASK, MASK, "--port", "1"]),
        (
            ["--set", "e[0].name=X_PASS", "--set", "e[0].value=planted"],
            ["--set", "e[0].name=X_PASS", "--set", f"e[0].value={MASK}"],
        ),
        (
            {"extraObjects": ["kind: Secret\ndata:\n  a: planted"]},
            {"extraObjects": [f"kind: Secret\ndata:\n  a: {MASK}"]},
        ),
        (["--hf-token", "planted", "m"], ["--hf-token", MASK, "m"]),
        (
            {"kind": "SecretList", "items": [{"data": {"a": "planted"}, "metadata": {"name": "s"}}]},
            {"kind": "SecretList", "items": [{"data": {"a": MASK}, "metadata": {"name": "s"}}]},
        ),
    ],
)
def test_a_secret_is_masked_wherever_a_tree_holds_it(tree: object, expected: object) -> None:
    assert redact_tree(tree) == expected
    assert redact_tree(expected) == expected


@pytest.mark.parametrize(
    "tree",
    [
        {"hf_token": {"secretName": "s", "secretKey": "k"}},
        {"vllmApiKey": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}},
        {"HF_TOKEN": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        {"password": {"name": "s", "key": "k"}, "clientSecret": {"name": "s"}},
        {"volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}]},
        {"properties": {"apiKey": {"type": "string", "description": "a key"}}},
        {"name": "cache_key", "value": 17},
    ],
)
def test_what_refers_to_a_secret_stays(tree: object) -> None:
    assert redact_tree(tree) == tree
    register_secrets(tree)
    assert redact("name s, key k, a key, string, secretKeyRef") == "name s, key k, a key, string, secretKeyRef"


@pytest.mark.parametrize(
    "tree",
    [
        ["--api-key", "first-key", "planted-there", "--port", "1"],
        ["redis-cli", "-a", "planted-there", "ping"],
        {"apiKeys": {"alice": "planted-there"}},
        {"password": {"value": "planted-there"}},
        {"redis://:planted-there@h:1": "up"},
        {"REDIS_DSN": "redis://:planted-there@h:1"},
        ["--token=planted-there"],
    ],
)
def test_a_secret_is_remembered_wherever_a_tree_holds_it(tree: object) -> None:
    register_secrets(tree)
    assert mask("it is planted-there") == f"it is {MASK}"


@pytest.mark.parametrize(
    "tree",
    [
        ["lmcache", "server", "--l2-adapter", '{"type": "resp", "host": "h", "password": "planted+there"}'],
        {"LMCACHE_REMOTE_URL": "redis://u:planted+there@h:1"},
        {"LMCACHE_RESP_PASSWORD": "planted+there"},
        {"LMCACHE_EXTRA_CONFIG": '{"valkey_password": "planted+there"}'},
        {"remote_url": "lm://h:1", "extra_config": {"password": "planted+there"}},
    ],
)
def test_the_password_of_a_store_is_remembered_by_every_route(tree: object) -> None:
    register_secrets(tree)
    assert mask("the store refused planted+there, planted%2Bthere") == f"the store refused {MASK}, {MASK}"


def test_a_password_of_a_url_is_remembered_with_what_ought_to_be_encoded() -> None:
    register_secrets({"url": "redis://:ab/c?d#e@h:6379", "other": "http://h/a@b", "port": "http://h:8000/a@b"})
    assert mask("ab/c?d#e h/a 8000/a") == f"{MASK} h/a 8000/a"


def test_a_number_is_remembered_too() -> None:
    register_secrets({"redisPassword": 12345678, "env": [{"name": "X_PASS", "value": 87654321}], "port": 80801})
    assert mask("12345678 87654321 80801") == f"{MASK} {MASK} 80801"


def test_what_set_gives_to_an_entry_of_an_environment_list_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "servingEngineSpec.modelSpec[0].env[0]"
    register_sets(
        [
            f"{path}.name=MY_PASSWORD,{path}.value=planted-by-set",
            "servingEngineSpec.vllmApiKey=planted-too",
            "a.b=plain-word",
            r"a.password=with\,comma",
        ]
    )
    assert redact("planted-by-set planted-too plain-word with,comma") == f"{MASK} {MASK} plain-word {MASK}"


def test_what_is_known_is_masked_in_other_writings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    register_secrets(
        {
            "env": [{"name": "X_PASSWORD", "value": "p/anted of all"}],
            "url": "redis://:planted-pw@h",
            "args": ["--token", "planted-token"],
        }
    )
    coded = base64.b64encode(b"p/anted of all").decode()
    assert redact(f"p%2Fanted%20of%20all {coded} planted-pw planted-token") == f"{MASK} {MASK} {MASK} {MASK}"
    register_secret("token")
    assert redact("max_tokens 8, a token") == f"max_tokens 8, a {MASK}", "a short word is masked as a word only"


def test_xml_is_redacted_and_stays_xml() -> None:
    text = '<a><p name="HF_TOKEN" value="planted"/><t m="--api-key=planted-2">Bearer planted-3 &lt;x&gt;</t></a>'
    found = redact_xml(text)
    assert "planted" not in found
    assert ElementTree.fromstring(found).findtext("t") == f"Bearer {MASK} <x>"
    assert redact_xml("<a> Bearer planted-3") == f"<a> Bearer {MASK}"


@pytest.mark.parametrize(
    "text",
    [
        '<a><property name="HF_TOKEN">planted</property></a>',
        "<a><password>planted</password></a>",
        '<a apiKey="planted"/>',
        '<a><property value="planted" name="HF_TOKEN"/>&#0;</a>',
        '<a><property name="HF_TOKEN">planted</property>&#0;</a>',
        '<a apiKey="planted"/>&#0;',
        "<a><password>planted</password>",
    ],
)
def test_a_secret_is_masked_wherever_xml_holds_it(text: str) -> None:
    found = redact_xml(text)
    assert "planted" not in found
    assert redact_xml(found) == found


@pytest.mark.parametrize("more", ["", "&#0;"])
def test_a_test_that_is_called_like_a_secret_keeps_its_text(more: str) -> None:
    text = f'<testcase name="test_api_key"> in words <skipped message="why" />{more}</testcase>'
    assert redact_xml(text).endswith(text)


def test_a_tree_is_masked_by_key_and_by_content() -> None:
    tree = {
        "env": {"HF_TOKEN": "x", "PORT": 1, "hf_token": ""},
        "args": ("--api-key=x", None, 1.5, True),
        "logprobs": [{"token": "Hello"}],
        "tags": {"b", "a"},
        "error": ValueError("Bearer abcdefgh"),
    }
    assert redact_tree(tree) == {
        "env": {"HF_TOKEN": "[redacted]", "PORT": 1, "hf_token": ""},
        "args": ["--api-key=[redacted]", None, 1.5, True],
        "logprobs": [{"token": "Hello"}],
        "tags": ["a", "b"],
        "error": "Bearer [redacted]",
    }


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=10), LEAVES | st.lists(LEAVES, max_size=4), max_size=5))
def test_a_tree_stays_json_and_is_stable(tree: dict[str, object]) -> None:
    once = redact_tree(tree)
    json.dumps(once)
    assert redact_tree(once) == once


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
