"""One panel per file. A new file with a ``PANEL`` in it is a new panel."""
