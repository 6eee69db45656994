"""Programs that time us beside the reference; each opens with its command."""
