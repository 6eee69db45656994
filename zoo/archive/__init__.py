"""Archives of whole zoos (tar.gz): passed through once, indexed, and read in places."""
