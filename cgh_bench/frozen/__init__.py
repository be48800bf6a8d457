"""Frozen features and what is learnt on them: neighbours, probes, heads, fine-tuning."""
