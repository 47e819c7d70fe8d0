"""Runs on the server: claims, leases, supervises and probes. Standard library only, Python 3.8 upward; imports
nothing of the toolkit.
"""
