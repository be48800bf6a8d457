"""Pretraining methods: one file each, with its settings, networks, losses and `RECIPES`."""
