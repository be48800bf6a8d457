"""Self-supervised methods: one file each, holding configuration, modules, loss and `RECIPES`."""
