"""Families of networks behind one contract."""
