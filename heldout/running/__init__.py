"""Worker processes, on this machine or on a cluster: who does what, and what happens when one is lost."""
