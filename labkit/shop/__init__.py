"""The shop: the small service under study, and its seeded past."""
