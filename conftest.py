"""Registers the plugins; holds nothing else."""

pytest_plugins = ("fixtures.verdict.plugin", "fixtures.stack.plugin", "fixtures.measure.plugin")
