"""Exact statements about a process: small problems by enumeration."""
