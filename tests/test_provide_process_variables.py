"""What a process of the stack gets of the user's environment, and that this is passing_notes."""

from __future__ import annotations

import pytest

from fixtures.provide.process.variables import for_secrets, passed_on, passing_notes, settings

USERS = {
    "CUDA_VISIBLE_DEVICES": "3",
    "HF_HOME": "/models",
    "HF_TOKEN": "hf_of-the-user",
    "HTTPS_PROXY": "http://user:word@proxy:3128",
    "LMCACHE_CHUNK_SIZE": "16384",
    "PYTHONPATH": "/elsewhere",
    "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
    "UNRELATED": "x",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_PORT": "9",
    "no_proxy": "registry.example",
}


def test_an_engine_gets_tokens_and_settings_and_a_cache_server_does_not() -> None:
    engine, server = passed_on(USERS, engine=True), passed_on(USERS, engine=False)
    assert set(engine) - set(server) == {"HF_HOME", "HF_TOKEN", "VLLM_LOGGING_LEVEL"}
    assert set(server) == {"CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "no_proxy"}
    assert engine["HF_TOKEN"] == "hf_of-the-user"
    assert settings(USERS) == {"VLLM_LOGGING_LEVEL": "WARNING"}


@pytest.mark.parametrize("given", [{}, {"no_proxy": "localhost"}, {"NO_PROXY": "a, b"}])
def test_a_proxy_is_never_asked_for_this_machine(given: dict[str, str]) -> None:
    found = passed_on({"http_proxy": "http://proxy:3128", **given}, engine=False)
    assert {"127.0.0.1", "localhost"} <= set(found["no_proxy"].split(","))
    assert found["no_proxy"] == found["NO_PROXY"]
    assert found["no_proxy"].count("localhost") == 1


def test_without_a_proxy_nothing_is_invented() -> None:
    assert passed_on({"UNRELATED": "x"}, engine=True) == {}


def test_what_is_passed_on_and_what_is_not_is_named_and_never_shown() -> None:
    passed, *others = passing_notes({"VLLM_LOGGING_LEVEL": "INFO"}, USERS)
    names = "HF_HOME, HF_TOKEN, HTTPS_PROXY, REQUESTS_CA_BUNDLE, no_proxy"
    assert passed == f"environment: yours -> passed on: {names} (exported where the suite runs)"
    assert [line.split(":")[0] for line in others] == [
        "env LMCACHE_CHUNK_SIZE",
        "env VLLM_LOGGING_LEVEL",
        "env VLLM_PORT",
    ]
    assert "set it in the values, under env of the model" in others[0]
    text = " ".join([passed, *others])
    assert not [value for value in USERS.values() if len(value) > 2 and value in text]
    assert passing_notes({}, {"UNRELATED": "x"}) == []


def test_what_the_values_take_from_a_secret_is_what_the_user_exported() -> None:
    asked = {"HF_TOKEN": "$(secretKeyRef:s/k)", "POD_IP": "$(status.podIP)", "X": "$(secretKeyRef:s/o)"}
    assert for_secrets(asked, USERS | {"POD_IP": "1.2.3.4"}) == {"HF_TOKEN": "hf_of-the-user"}
