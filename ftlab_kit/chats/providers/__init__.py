"""Providers of hosted models: one file each, named in `requests.PROVIDERS`."""
