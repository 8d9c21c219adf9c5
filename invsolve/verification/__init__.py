"""Certificates: rules and samplers held against posteriors that are known in closed form."""
