"""Registers the plugin; holds nothing else."""

pytest_plugins = ("fixtures.plugin",)
