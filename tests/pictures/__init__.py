"""The READMEs' pictures, and the program that makes them."""
