"""Tables: from stored results to a table in text, CSV, LaTeX or HTML, and its check against a reference."""
