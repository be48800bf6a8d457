"""Self-supervised pretraining: methods, one file each, and the loop that trains them."""
