"""Objects on this machine, on a web server or in a bucket, read in checked ranges."""
