"""python password_in_the_log.py: LMCache's connector to a remote store logs its URL, password included. No store is needed."""
import asyncio, contextlib
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.storage_backend.connector import CreateConnector

URL = "redis://:my-password@127.0.0.1:6379"
with contextlib.suppress(Exception):  # it has logged by then; a whole engine is needed to go on
    CreateConnector(URL, asyncio.new_event_loop(), None, LMCacheEngineConfig.from_defaults(remote_url=URL))
