"""The ledger of limits: what the machine allows, what Holdfast reaches of it, and where the time goes."""
