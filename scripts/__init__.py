"""Command-line programs: flags -> one frozen config -> library calls -> files."""
