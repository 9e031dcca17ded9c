"""Registers the plugins; holds nothing else."""

pytest_plugins = ("fixtures.plugin.verdicts", "fixtures.plugin.stack", "fixtures.plugin.tools")
