"""order → payment → ledger: the pipeline of the drill ``exactly-once``.

``orders`` holds the rows of the flights table. ``enrichers`` (ordered by key)
makes a payment of each; ``bookkeepers`` (ordered by partition) keeps totals per
tail number and publishes them with every payment. Each step is a transaction: what it
consumed, and what it made of it, in one log entry.
"""
