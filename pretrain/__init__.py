"""Self-supervised pretraining: methods, one file each, and the one loop that trains them."""
