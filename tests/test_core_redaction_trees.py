"""Secrets in trees of JSON or YAML, by key, by structure and by what is known."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.redaction.known import register_secret, register_secrets, register_sets
from fixtures.core.redaction.names import MASK
from fixtures.core.redaction.redact import mask, redact, redact_tree


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
