"""Any bytes as a file of rows: each line is a row or a problem, and nothing else happens."""
