"""From results to what people read: tables (`table`), and a web page with its pictures and curves (`page`)."""
