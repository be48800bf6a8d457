"""Protocols as the configuration files of other frameworks, each run in a process of its own."""
