"""Writing checkpoints for other frameworks, with proof. A converter is an entry of `CONVERTERS` in a file here."""
