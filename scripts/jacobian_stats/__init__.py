"""What the programs of input-Jacobian statistics are made of: what is measured where, and the files it goes into."""
