"""Any bytes as a file of rows: every line is a row or a problem, and nothing else happens."""
